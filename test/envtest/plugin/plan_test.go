package plugin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/render"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// fileOf writes what an author would have: the policy without what the API server fills in.
func fileOf(policy *v1alpha1.SidecarPolicy) string {
	GinkgoHelper()
	policy.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("SidecarPolicy"))
	data, err := yaml.Marshal(map[string]any{"apiVersion": policy.APIVersion, "kind": policy.Kind,
		"metadata": map[string]any{"name": policy.Name, "annotations": policy.Annotations}, "spec": policy.Spec})
	Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(GinkgoT().TempDir(), "policy.yaml")
	Expect(os.WriteFile(file, data, 0o600)).To(Succeed())
	return file
}

// planOf is what plan says of a file, and its exit code.
func planOf(file string) (plan render.Plan, code int) {
	GinkgoHelper()
	r := sidecar("plan", "-f", file, "-o", "json")
	Expect(json.Unmarshal([]byte(r.out), &plan)).To(Succeed(), r.out+r.err)
	return plan, r.code
}

var _ = Describe("Planning", func() {
	It("says what a change would do, and changes nothing", func() {
		newPolicy("plan", withApproval, func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Budgets = nil })
		newPods("plan", "web", 4)
		newPods("plan", "till", 2)
		Expect(server.Client.Create(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "plan", Name: "till"},
			Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{harness.AppLabel: "till"}}}})).To(Succeed())
		policy := policyNow("plan")
		before := policy.ResourceVersion

		Expect(succeed("plan", "-f", fileOf(policy.DeepCopy()))).To(Equal("Policy plan would not change.\n"))

		policy.Spec.Template.Sidecars[0].Image = "agent:2"
		plan, code := planOf(fileOf(policy.DeepCopy()))
		Expect(code).To(Equal(2))
		Expect(plan.Changes).To(Equal([]string{"spec.template.sidecars"}))
		Expect(plan.Selected).To(Equal(6))
		Expect(plan.Template.Summary).To(Equal("image of agent"))
		Expect(plan.Workloads).To(ConsistOf(
			render.Group{Workload: "ReplicaSet/plan/web", Pods: 4, Fate: render.FateInPlace, Why: "image of agent"},
			render.Group{Workload: "ReplicaSet/plan/till", Pods: 2, Fate: render.FateInPlace, Why: "image of agent"}))
		Expect(plan.Budgets).To(ContainElements(
			render.PlannedBudget{Budget: "per Fleet: the fleet", Allows: 1, Total: 6},
			render.PlannedBudget{Budget: "PodDisruptionBudget plan/till", Allows: 0}))
		Expect(plan.Steps).To(HaveLen(2))
		Expect(plan.Steps[0]).To(And(HaveField("Name", "canary"), HaveField("InPlace", 1), HaveField("Approval", true)))
		Expect(plan.Stuck).To(ContainSubstring("PodDisruptionBudget plan/till allows no disruption now"), "nobody keeps its status here")
		Expect(policyNow("plan").ResourceVersion).To(Equal(before))

		By("letting the PodDisruptionBudget's controller have looked")
		pdb := &policyv1.PodDisruptionBudget{}
		Expect(server.Client.Get(ctx, client.ObjectKey{Namespace: "plan", Name: "till"}, pdb)).To(Succeed())
		pdb.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: pdb.Generation, DesiredHealthy: 1, CurrentHealthy: 2, ExpectedPods: 2, DisruptionsAllowed: 1}
		Expect(server.Client.Status().Update(ctx, pdb)).To(Succeed())
		plan, _ = planOf(fileOf(policy.DeepCopy()))
		Expect(plan.Stuck).To(BeEmpty())
		Expect(plan.Steps[1]).To(And(HaveField("InPlace", 5), HaveField("Waves", 5), HaveField("Updated", 6)))
		Expect(*plan.Seconds).To(BeNumerically(">", 6*5))

		By("doing what was planned")
		setImage("plan", "agent:2")
		Expect(policyNow("plan").Status.TargetRevision).To(Equal(plan.Template.To))
	})

	It("tells what takes new pods, and what the selection gains and loses", func() {
		newPolicy("plan-env", func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Steps = harness.AllAtOnce() })
		newPods("plan-env", "web", 2)
		newPods("plan-env", "other", 1)
		policy := policyNow("plan-env")
		policy.Spec.Template.Sidecars[0].Env = []corev1.EnvVar{{Name: "LEVEL", Value: "debug"}}
		policy.Spec.Selector.PodSelector.MatchLabels[harness.AppLabel] = "web"
		plan, code := planOf(fileOf(policy))
		Expect(code).To(Equal(2))
		Expect(plan.Changes).To(Equal([]string{"spec.selector.podSelector", "spec.template.sidecars"}))
		Expect(plan).To(And(HaveField("Selected", 2), HaveField("Gained", 0), HaveField("Lost", 1)))
		Expect(plan.Workloads).To(Equal([]render.Group{
			{Workload: "ReplicaSet/plan-env/web", Pods: 2, Fate: render.FateStale, Why: "lacks sidecars[agent].env until it is recreated"},
			{Workload: "ReplicaSet/plan-env/other", Pods: 1, Fate: render.FateKeeps, Why: "not selected, and has the sidecars until it is recreated"}}))

		By("recreating them")
		policy.Spec.Rollout.Method = v1alpha1.MethodInPlaceOrRecreate
		policy.Spec.OnRemoval = v1alpha1.RemovalRecreate
		plan, _ = planOf(fileOf(policy))
		Expect(plan.Workloads).To(Equal([]render.Group{
			{Workload: "ReplicaSet/plan-env/web", Pods: 2, Fate: render.FateRecreate, Why: "sidecars[agent].env"},
			{Workload: "ReplicaSet/plan-env/other", Pods: 1, Fate: render.FateUnplugged, Why: "not selected, and evicted to lose the sidecars, as spec.onRemoval is Recreate"}}))
	})

	It("plans what is not there yet, and what would be refused", func() {
		createNamespace("plan-new")
		plainPod("plan-new", "web", map[string]string{harness.FleetLabel: "plan-new"})
		policy := harness.Policy("plan-new", "plan-new", "agent:1")
		r := sidecar("plan", "-f", fileOf(policy))
		Expect(r.code).To(Equal(2), r.err)
		Expect(r.out).To(And(ContainSubstring("Policy plan-new would be created: it selects 1 pod."), MatchRegexp(`Pod/plan-new/web +1 +missing +it gets the sidecars when it is recreated`)))

		policy.Spec.Rollout.Windows = []v1alpha1.Window{{Schedule: "whenever", Duration: metav1.Duration{Duration: 3600e9}}}
		r = sidecar("plan", "-f", fileOf(policy))
		Expect(r.code).To(Equal(1))
		Expect(r.out).To(ContainSubstring("The operator would not accept it, and change no pod: spec.rollout.windows[0]"))
		policy.Spec.Rollout.Windows = nil
		policy.Spec.Template.Sidecars[0].Image = ""
		Expect(refuse("plan", "-f", fileOf(policy))).To(ContainSubstring("a sidecar needs an image"))
		Expect(refuse("plan", "-f", "nowhere.yaml")).To(ContainSubstring("nowhere.yaml"))
		Expect(refuse("plan", "-f", writeFile("kind: ConfigMap\napiVersion: v1\n"))).To(ContainSubstring("has no SidecarPolicy of fleet.sidecar.dev/v1alpha1"))
	})

	It("does what kubectl apply would do with fields that the file does not name any more", func() {
		newPolicy("plan-applied")
		policy := policyNow("plan-applied")
		policy.Spec.Template.Sidecars[0].Env = []corev1.EnvVar{{Name: "LEVEL", Value: "debug"}}
		applied := policy.DeepCopy()
		applied.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("SidecarPolicy"))
		data, err := json.Marshal(map[string]any{"apiVersion": applied.APIVersion, "kind": applied.Kind, "metadata": map[string]any{"name": applied.Name}, "spec": applied.Spec})
		Expect(err).NotTo(HaveOccurred())
		metav1.SetMetaDataAnnotation(&policy.ObjectMeta, corev1.LastAppliedConfigAnnotation, string(data))
		Expect(server.Client.Update(ctx, policy)).To(Succeed())
		settle("plan-applied")
		succeed("pause", "plan-applied")

		policy.Spec.Template.Sidecars[0].Env = nil
		policy.Annotations = nil
		plan, _ := planOf(fileOf(policy))
		Expect(plan.Changes).To(Equal([]string{"spec.template.sidecars"}), "the env goes, and what pause wrote stays")
	})
})

var _ = Describe("Planning a file with a mistake", func() {
	// misspelled is a file in which the last line is not what the schema has.
	misspelled := func(name string) string {
		data, err := os.ReadFile(fileOf(policyNow(name)))
		Expect(err).NotTo(HaveOccurred())
		return writeFile(string(data) + "  onRemovall: Recreate\n")
	}

	It("refuses it as kubectl apply --server-side does", func() {
		newPolicy("typo-server")
		Expect(refuse("plan", "-f", misspelled("typo-server"))).To(And(ContainSubstring("policy typo-server: the API server does not take it"), ContainSubstring("onRemovall")))
	})

	It("refuses it as kubectl apply does", func() {
		newPolicy("typo-client")
		policy := policyNow("typo-client")
		metav1.SetMetaDataAnnotation(&policy.ObjectMeta, corev1.LastAppliedConfigAnnotation, "{}")
		Expect(server.Client.Update(ctx, policy)).To(Succeed())
		Expect(refuse("plan", "-f", misspelled("typo-client"))).To(And(ContainSubstring("policy typo-client: the API server does not take it"), ContainSubstring(`unknown field "spec.onRemovall"`)))
	})

	It("refuses it where there is no such policy yet", func() {
		newPolicy("typo-new")
		file := misspelled("typo-new")
		data, err := os.ReadFile(file)
		Expect(err).NotTo(HaveOccurred())
		other := writeFile(strings.ReplaceAll(string(data), "name: typo-new", "name: typo-other"))
		Expect(refuse("plan", "-f", other)).To(And(ContainSubstring("policy typo-other: the API server does not take it"), ContainSubstring("onRemovall")))
	})
})

func writeFile(text string) string {
	GinkgoHelper()
	file := filepath.Join(GinkgoT().TempDir(), "file.yaml")
	Expect(os.WriteFile(file, []byte(text), 0o600)).To(Succeed())
	return file
}
