package docs

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

const operatorNamespace = "sidecar-operator-system"

// The revisions of the policy that the pages speak of.
var (
	older = revision.Next(nil, harness.Policy("log-agent", "x", "agent:v1").Spec.Template)
	newer = revision.Next([]revision.Revision{older}, harness.Policy("log-agent", "x", "agent:v2").Spec.Template)
)

// world is what the pages speak of: a policy with two revisions, and the workload cart of the namespace shop with a pod and its report.
func world() {
	GinkgoHelper()
	labels := map[string]string{"app": "cart"}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:v1"}}}}
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"},
		Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart-5d4f8", Labels: labels}, Spec: template.Spec}
	pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: v1alpha1.HoldGate("log-agent")}}
	report := &v1alpha1.SidecarReport{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "deployment-cart"},
		Workload: v1alpha1.WorkloadReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "cart"},
		State:    v1alpha1.ReportCurrent, Since: metav1.Now(), WrittenAt: metav1.Now(), Pods: v1alpha1.ReportCounts{Selected: 1},
		Policies: []v1alpha1.ReportedPolicy{{Policy: "log-agent", Revision: "4be31a0c7d", State: v1alpha1.ReportCurrent, Since: metav1.Now(), Pods: v1alpha1.ReportCounts{Selected: 1}}}}
	objects := []client.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, deployment, pod, report, harness.Policy("log-agent", "x", "agent:v1")}
	for _, r := range []revision.Revision{older, newer} {
		stored, err := revision.Encode("log-agent", operatorNamespace, r)
		Expect(err).NotTo(HaveOccurred())
		objects = append(objects, stored)
	}
	for _, object := range objects {
		Expect(client.IgnoreAlreadyExists(server.Client.Create(ctx, object))).To(Succeed(), object.GetName())
	}
}

// situation changes a policy that is complete to what a command is for.
type situation func(*v1alpha1.SidecarPolicy)

// situations are those of the commands of kubectl sidecar that refuse others.
var situations = map[string]situation{
	"kubectl sidecar approve": atStep, "kubectl sidecar promote": atStep, "kubectl sidecar abort": atStep,
	"kubectl sidecar retry":                        func(p *v1alpha1.SidecarPolicy) { p.Status.FailedRevision = newer.Hash },
	"kubectl sidecar resume":                       func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Paused = true },
	"kubectl sidecar undo log-agent --to-template": func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Revision = older.Hash },
	"kubectl sidecar restart":                      func(p *v1alpha1.SidecarPolicy) { p.Spec.Template.RestartedAt = nil },
}

// atStep: the newer revision awaits approval at a step.
func atStep(p *v1alpha1.SidecarPolicy) {
	p.Status.Phase, p.Status.StableRevision, p.Status.TargetRevision = v1alpha1.PhaseAwaitingApproval, older.Hash, newer.Hash
	p.Status.Step = &v1alpha1.StepStatus{Index: ptr.To[int32](0), Name: "canary", StartedAt: metav1.Now()}
}

// settle writes what people and controllers would have written until a command is run.
func settle(change situation) {
	GinkgoHelper()
	var policies v1alpha1.SidecarPolicyList
	Expect(server.Client.List(ctx, &policies)).To(Succeed())
	for i := range policies.Items {
		policy := &policies.Items[i]
		policy.Annotations, policy.Spec.Rollout.Paused, policy.Spec.Rollout.Revision = nil, false, ""
		policy.Status = v1alpha1.SidecarPolicyStatus{Phase: v1alpha1.PhaseComplete, StableRevision: newer.Hash, TargetRevision: newer.Hash,
			Pods: &v1alpha1.PodCounts{}, Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "Complete", LastTransitionTime: metav1.Now()}}}
		if change != nil {
			change(policy)
		}
		status := policy.Status
		Expect(server.Client.Update(ctx, policy)).To(Succeed())
		policy.Status = status
		policy.Status.ObservedGeneration, policy.Status.Conditions[0].ObservedGeneration = policy.Generation, policy.Generation
		Expect(server.Client.Status().Update(ctx, policy)).To(Succeed())
	}
	var deployments appsv1.DeploymentList
	Expect(server.Client.List(ctx, &deployments)).To(Succeed())
	for i := range deployments.Items {
		d := &deployments.Items[i]
		want := *d.Spec.Replicas
		d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: want, UpdatedReplicas: want, ReadyReplicas: want, AvailableReplicas: want}
		Expect(server.Client.Status().Update(ctx, d)).To(Succeed())
	}
}

// dropLimits takes away the limits for policies that a page applies, and waits until the API server has forgotten them.
func dropLimits() {
	GinkgoHelper()
	Expect(server.Client.DeleteAllOf(ctx, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{})).To(Succeed())
	beyond := harness.Policy("beyond-the-limits", "x", "agent:v1")
	beyond.Spec.Template.Sidecars[0].SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_ADMIN"}}}
	Eventually(func() error { return server.Client.Create(ctx, beyond.DeepCopy(), client.DryRunAll) }, "30s", "100ms").Should(Succeed())
}
