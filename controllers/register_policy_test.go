package controllers_test

import (
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// patience bounds how long an API server takes to act on what was registered: a second or two.
const patience = time.Minute

func byAdmissionPolicy(p *v1alpha1.SidecarPolicy) {
	p.Spec.Injection.Engine = v1alpha1.EngineAdmissionPolicy
}

func (w *world) bindings() []admissionregistrationv1.MutatingAdmissionPolicyBinding {
	GinkgoHelper()
	list := &admissionregistrationv1.MutatingAdmissionPolicyBindingList{}
	Expect(server.Client.List(ctx, list, client.MatchingLabels{v1alpha1.PolicyLabel: w.name})).To(Succeed())
	return list.Items
}

// compiled is the policy's MutatingAdmissionPolicy; nil where there is none.
func (w *world) compiled() *admissionregistrationv1.MutatingAdmissionPolicy {
	GinkgoHelper()
	policy := &admissionregistrationv1.MutatingAdmissionPolicy{}
	err := server.Client.Get(ctx, client.ObjectKey{Name: "sidecar-operator-" + w.name}, policy)
	Expect(client.IgnoreNotFound(err)).To(Succeed())
	if err != nil {
		return nil
	}
	return policy
}

// settleUntil makes passes until the API server acts on what was registered, and a condition says so.
func (w *world) settleUntil(kind string, reason v1alpha1.Reason) {
	GinkgoHelper()
	Eventually(func() error {
		w.settle()
		if c := w.condition(kind); c.Status != metav1.ConditionTrue || c.Reason != string(reason) || c.ObservedGeneration != w.policy().Generation {
			return fmt.Errorf("%s is %s, %s: %s", kind, c.Status, c.Reason, c.Message)
		}
		return nil
	}).WithTimeout(patience).WithPolling(20 * time.Millisecond).Should(Succeed())
}

// born is what the API server would make of a new pod.
func (w *world) born(changes ...func(*corev1.Pod)) *corev1.Pod {
	GinkgoHelper()
	pod := w.plainPod("born", changes...)
	pod.UID, pod.ResourceVersion = "", ""
	Expect(server.Client.Create(ctx, pod, client.DryRunAll)).To(Succeed())
	return pod
}

func imageOf(pod *corev1.Pod) string {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == agent {
			return c.Image
		}
	}
	return ""
}

// oldCluster is an API server that knows no MutatingAdmissionPolicies.
type oldCluster struct{ client.Client }

func (oldCluster) RESTMapper() meta.RESTMapper { return meta.NewDefaultRESTMapper(nil) }

var _ = Describe("Engine AdmissionPolicy", func() {
	It("injects by the API server alone, from the first moment at which the policy is Ready", func() {
		w := newWorld(byAdmissionPolicy)
		w.settleUntil(v1alpha1.ConditionReady, v1alpha1.ReasonComplete)
		Expect(imageOf(w.born())).To(Equal("agent:v1"))
		Expect(w.condition(v1alpha1.ConditionInjecting)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonRegistered))
		Expect(w.registration()).To(BeNil(), "no webhook is called")
		for i := range 3 {
			image := fmt.Sprintf("agent:v%d", i+2)
			w.setImage(image)
			w.settleUntil(v1alpha1.ConditionReady, v1alpha1.ReasonComplete)
			Expect(imageOf(w.born())).To(Equal(image))
		}

		By("a pod that is not selected")
		Expect(imageOf(w.born(func(p *corev1.Pod) { p.Labels = nil }))).To(BeEmpty())
	})

	It("is written once, put right when somebody changes it, and goes while injection is paused", func() {
		w := newWorld(byAdmissionPolicy)
		w.settleUntil(v1alpha1.ConditionReady, v1alpha1.ReasonComplete)
		before := w.compiled()
		Expect(before.OwnerReferences).To(HaveExactElements(HaveField("UID", w.policy().UID)))
		Expect(w.bindings()).To(HaveLen(2), "one of the selected pods, one to ask by")
		w.restartOperator()
		w.settle()
		Expect(w.compiled().ResourceVersion).To(Equal(before.ResourceVersion))

		edited := w.compiled()
		edited.Spec.MatchConditions = nil
		Expect(server.Client.Update(ctx, edited)).To(Succeed())
		for _, binding := range w.bindings() {
			Expect(server.Client.Delete(ctx, &binding)).To(Succeed())
		}
		w.settleUntil(v1alpha1.ConditionReady, v1alpha1.ReasonComplete)
		Expect(w.compiled().Spec).To(Equal(before.Spec))
		Expect(w.bindings()).To(HaveLen(2))

		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Injection.Paused = true })
		w.settle()
		Expect(w.compiled()).To(BeNil())
		Expect(w.bindings()).To(BeEmpty())
		Expect(w.condition(v1alpha1.ConditionInjecting)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonInjectionPaused))
	})

	It("follows the selection, also where owners opt in", func() {
		w := newWorld(byAdmissionPolicy)
		w.settleUntil(v1alpha1.ConditionReady, v1alpha1.ReasonComplete)
		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Selector.Mode = v1alpha1.SelectOptIn })
		w.settleUntil(v1alpha1.ConditionReady, v1alpha1.ReasonComplete)
		Expect(w.bindings()).To(HaveLen(3))
		Expect(imageOf(w.born())).To(BeEmpty())
		optedIn := func(p *corev1.Pod) { p.Labels[v1alpha1.InjectLabel] = "true" }
		Expect(imageOf(w.born(optedIn))).To(Equal("agent:v1"))

		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Selector.Mode = v1alpha1.SelectOptOut })
		w.settleUntil(v1alpha1.ConditionReady, v1alpha1.ReasonComplete)
		Expect(w.bindings()).To(HaveLen(2))
		Expect(imageOf(w.born())).To(Equal("agent:v1"))
	})

	It("leaves out the namespaces whose limits would refuse every pod with the sidecars, and says why", func() {
		w := newWorld(byAdmissionPolicy)
		w.settleUntil(v1alpha1.ConditionReady, v1alpha1.ReasonComplete)
		before := w.compiled().Spec
		limited := func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
		}
		Expect(imageOf(w.born(limited))).To(Equal("agent:v1"))
		elsewhere := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: w.name}}
		quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: w.name, Name: "memory"}}
		for _, q := range []*corev1.ResourceQuota{elsewhere, quota} {
			q.Spec.Hard = corev1.ResourceList{corev1.ResourceLimitsMemory: resource.MustParse("10Gi")}
			Expect(server.Client.Create(ctx, q)).To(Succeed())
			DeferCleanup(func() { Expect(client.IgnoreNotFound(server.Client.Delete(ctx, q))).To(Succeed()) })
		}
		quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: corev1.ResourceList{corev1.ResourceLimitsMemory: resource.MustParse("0")}}
		Expect(server.Client.Status().Update(ctx, quota)).To(Succeed())
		w.settle()
		w.settleUntil(v1alpha1.ConditionReady, v1alpha1.ReasonComplete)
		Expect(imageOf(w.born(limited))).To(BeEmpty())
		Expect(fmt.Sprint(w.compiled().Spec.Variables)).To(And(ContainSubstring(w.name), Not(ContainSubstring(operatorNamespace))))

		Expect(server.Client.Create(ctx, w.plainPod("web-1", limited))).To(Succeed())
		w.settle()
		Expect(w.status().Pods.Conflicting).To(BeEquivalentTo(1))
		Expect(w.status().Unhealthy).To(HaveExactElements(And(HaveField("Reason", v1alpha1.ReasonQuotaConflict),
			HaveField("Message", ContainSubstring(`ResourceQuota memory: container "agent" must say limits.memory`)))))

		Expect(server.Client.Delete(ctx, quota)).To(Succeed())
		w.settle()
		w.settleUntil(v1alpha1.ConditionInjecting, v1alpha1.ReasonRegistered)
		Expect(w.compiled().Spec).To(Equal(before))
		Expect(imageOf(w.born(limited))).To(Equal("agent:v1"))
	})

	It("gives new pods what the roll-out has reached", func() {
		w := newWorld(byAdmissionPolicy, budgets("100%", "100%"), steps(v1alpha1.Step{Name: "canary",
			PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"canary": "true"}}, Approval: v1alpha1.ApprovalRequired}))
		w.settleUntil(v1alpha1.ConditionReady, v1alpha1.ReasonComplete)
		canary := func(p *corev1.Pod) { p.Labels["canary"] = "true" }
		w.newPod("canary-1", canary)
		w.newPod("web-1")
		w.settle()
		w.setImage("agent:v2")
		w.settleUntil(v1alpha1.ConditionInjecting, v1alpha1.ReasonRegistered)
		Expect(imageOf(w.born(canary))).To(Equal("agent:v2"))
		Expect(imageOf(w.born())).To(Equal("agent:v1"), "a new pod does not leak past the step")

		By("aborting it")
		w.annotate(v1alpha1.AbortAnnotation, w.status().TargetRevision)
		w.settleUntil(v1alpha1.ConditionInjecting, v1alpha1.ReasonRegistered)
		Expect(w.status().FailedRevision).NotTo(BeEmpty(), w.describe())
		Expect(imageOf(w.born(canary))).To(Equal("agent:v1"))
	})

	It("takes over from the webhook, and gives back, without a gap", func() {
		w := newReadyWorld()
		w.edit(byAdmissionPolicy)
		w.pass()
		Expect(w.compiled()).NotTo(BeNil())
		Expect(w.registration()).NotTo(BeNil())
		w.settleUntil(v1alpha1.ConditionInjecting, v1alpha1.ReasonRegistered)
		Expect(w.registration()).NotTo(BeNil(), "other API servers may be behind")
		Expect(w.pass().RequeueAfter).To(And(BeNumerically(">", 0), BeNumerically("<=", 5*time.Second)))
		w.clock.Step(5 * time.Second)
		w.settle()
		Expect(w.registration()).To(BeNil())
		Expect(imageOf(w.born())).To(Equal("agent:v1"))

		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Injection.Engine = v1alpha1.EngineWebhook })
		w.clock.SetTime(time.Now())
		w.settle()
		Expect(w.registration()).NotTo(BeNil())
		Expect(w.compiled()).NotTo(BeNil(), "other API servers may be behind")
		Expect(w.pass().RequeueAfter).To(And(BeNumerically(">", 0), BeNumerically("<=", 6*time.Second)))
		w.clock.Step(6 * time.Second)
		w.settle()
		Expect(w.compiled()).To(BeNil())
		Expect(w.bindings()).To(BeEmpty())
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete))
	})

	It("is not accepted where the API server knows no MutatingAdmissionPolicies, and the webhook stays", func() {
		w := newReadyWorld()
		w.reconciler.Client = oldCluster{w.client()}
		w.edit(byAdmissionPolicy)
		w.settle()
		accepted := w.condition(v1alpha1.ConditionAccepted)
		Expect(accepted).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonInvalidSpec))
		Expect(accepted.Message).To(And(ContainSubstring("Kubernetes 1.36 or newer"), ContainSubstring("write engine: Webhook")))
		Expect(w.registration()).NotTo(BeNil())
	})

	It("is not accepted for what can't be said in CEL, and names it", func() {
		w := newWorld(byAdmissionPolicy, func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].ShareVolumeMounts = &v1alpha1.SharedVolumeMounts{}
		})
		w.settle()
		accepted := w.condition(v1alpha1.ConditionAccepted)
		Expect(accepted).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonInvalidSpec))
		Expect(accepted.Message).To(Equal("spec.template.sidecars[agent].shareVolumeMounts: engine AdmissionPolicy can't do that: remove it, or write spec.injection.engine: Webhook"))
		Expect(w.revisions()).To(BeEmpty())
		Expect(w.compiled()).To(BeNil())
	})

	It("is not accepted in the middle of a roll-out from a revision that can't be said in CEL", func() {
		w := newReadyWorld(budgets("100%", "100%"), func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].ShareVolumeMounts = &v1alpha1.SharedVolumeMounts{}
		})
		w.newFleet(1, 2)
		stable := w.status().TargetRevision
		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Paused = true })
		w.edit(byAdmissionPolicy)
		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Template.Sidecars[0].ShareVolumeMounts = nil })
		w.settle()
		accepted := w.condition(v1alpha1.ConditionAccepted)
		Expect(accepted).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonInvalidSpec))
		Expect(accepted.Message).To(HavePrefix("revision " + stable + ".sidecars[agent].shareVolumeMounts: "))
		Expect(w.registration()).NotTo(BeNil())
	})

	It("is not accepted for a template that is too big for an expression", func() {
		w := newWorld(byAdmissionPolicy, func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].Args = []string{strings.Repeat("x", 110_000)}
		})
		w.settle()
		accepted := w.condition(v1alpha1.ConditionAccepted)
		Expect(accepted).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonInvalidSpec))
		Expect(accepted.Message).To(And(ContainSubstring("too big for an AdmissionPolicy"), ContainSubstring("ConfigMap")))
	})
})
