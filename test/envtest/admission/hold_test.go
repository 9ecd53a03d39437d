package admission

import (
	"context"
	"fmt"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var _ = Describe("failurePolicy Hold", func() {
	hold := func(p *v1alpha1.SidecarPolicy) { p.Spec.Injection.FailurePolicy = v1alpha1.FailurePolicyHold }

	// owned makes a pod one of a ReplicaSet.
	owned := func(p *corev1.Pod) *corev1.Pod {
		GinkgoHelper()
		labels := map[string]string{"app": p.Name}
		rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}, Spec: appsv1.ReplicaSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: p.Spec},
		}}
		Expect(c.Create(ctx, rs)).To(Succeed())
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
		return p
	}
	isGone := func(p *corev1.Pod) error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(p), &corev1.Pod{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("pod %s is still there, or can't be read: %w", p.Name, err)
		}
		return nil
	}
	isFree := func(p *corev1.Pod) error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(p), p); err != nil {
			return err
		}
		if held := v1alpha1.HeldBy(p); len(held) > 0 {
			return fmt.Errorf("pod %s waits for the sidecars of %v", p.Name, held)
		}
		return nil
	}

	It("lets pods wait while the operator is away, and replaces them when it is back", func() {
		createNamespace("held", nil)
		createPolicy("held", hold)
		policy := waitReady("held")
		serves := create(owned(pod("held", "while-it-serves")))
		Expect(checkInjected(serves, policy)).To(Succeed())
		Expect(serves.Spec.SchedulingGates).To(BeEmpty())

		By("the operator goes away")
		operator.stop()
		DeferCleanup(func() { operator.start() })
		away := owned(pod("held", "while-it-is-away"))
		away.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/own"}}
		create(away)
		Expect(away.Spec.SchedulingGates).To(ConsistOf(HaveField("Name", "example.com/own"), HaveField("Name", v1alpha1.HoldGate("held"))))
		Expect(away.Spec.InitContainers).To(BeEmpty())
		bare, optedOut := create(pod("held", "bare")), pod("held", "opted-out")
		Expect(v1alpha1.HeldBy(bare)).To(ConsistOf("held"))
		optedOut.Labels[v1alpha1.InjectLabel] = "false"
		Expect(create(optedOut).Spec.SchedulingGates).To(BeEmpty())
		onNode := pod("held", "on-a-node")
		onNode.Spec.NodeName = "somewhere"
		Expect(create(onNode).Spec.SchedulingGates).To(BeEmpty(), "the API server would refuse gates on it")

		By("the operator is back")
		operator.start()
		Eventually(func() error { return isGone(away) }).Should(Succeed())
		anew := create(owned(pod("held", "anew")))
		Expect(checkInjected(anew, policy)).To(Succeed())
		Expect(anew.Spec.SchedulingGates).To(BeEmpty())

		By("somebody has to decide about pods that nobody makes anew")
		Eventually(func() error {
			degraded, err := harness.WaitForPolicy(ctx, c, "held", patience, func(p *v1alpha1.SidecarPolicy) bool {
				return harness.ConditionIs(p, v1alpha1.ConditionDegraded, metav1.ConditionTrue)
			})
			if err != nil {
				return err
			}
			if degraded.Status.Pods.Held != 1 || !slices.ContainsFunc(degraded.Status.Unhealthy, func(u v1alpha1.UnhealthyPods) bool { return u.Reason == v1alpha1.ReasonHeld }) {
				return fmt.Errorf("%s", harness.Describe(degraded))
			}
			return nil
		}).Should(Succeed())
		Expect(v1alpha1.HeldBy(bare)).NotTo(BeEmpty())
		patch := client.MergeFrom(bare.DeepCopy())
		bare.Labels[v1alpha1.InjectLabel] = "false"
		Expect(c.Patch(ctx, bare, patch)).To(Succeed())
		Eventually(func() error { return isFree(bare) }).Should(Succeed())
		Expect(bare.Spec.InitContainers).To(BeEmpty())
	})

	It("holds for each of several policies, and frees pods when it is taken back", func() {
		createNamespace("held-twice", nil)
		createPolicy("held-twice", hold)
		createPolicy("held-besides", hold, func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Selector = harness.Policy("held-twice", "held-twice", "x").Spec.Selector
		})
		waitReady("held-twice")
		waitReady("held-besides")
		both := create(pod("held-twice", "both"))
		Expect(names(both.Spec.InitContainers)).To(ConsistOf("held-twice", "held-besides"))
		Expect(both.Spec.SchedulingGates).To(BeEmpty())

		operator.stop()
		DeferCleanup(func() { operator.start() })
		one, two := create(pod("held-twice", "one")), create(pod("held-twice", "two"))
		Expect(v1alpha1.HeldBy(one)).To(ConsistOf("held-twice", "held-besides"))
		operator.start()
		Expect(harness.Edit(ctx, c, "held-twice", func(p *v1alpha1.SidecarPolicy) { p.Spec.Injection.FailurePolicy = v1alpha1.FailurePolicyIgnore })).To(Succeed())
		remove("held-besides")
		for _, p := range []*corev1.Pod{one, two} {
			Eventually(func() error { return isFree(p) }).Should(Succeed())
		}
		Eventually(func() ([]string, error) { return holding(ctx) }).ShouldNot(ContainElement(ContainSubstring("held-twice")))
	})

	It("keeps no pod waiting that the sidecars clash with", func() {
		createNamespace("held-clash", nil)
		createPolicy("held-clash", hold)
		waitReady("held-clash")
		clashing := pod("held-clash", "web")
		clashing.Spec.Containers = append(clashing.Spec.Containers, corev1.Container{Name: "held-clash", Image: "own"})
		Expect(create(clashing).Spec.SchedulingGates).To(BeEmpty())
		Expect(clashing.Spec.InitContainers).To(BeEmpty())
	})

	It("is not for the engine that needs no operator", func() {
		policy := harness.Policy("held-engine", "held-engine", "x:v1")
		policy.Spec.Injection.Engine, policy.Spec.Injection.FailurePolicy = v1alpha1.EngineAdmissionPolicy, v1alpha1.FailurePolicyHold
		Expect(c.Create(ctx, policy)).To(MatchError(ContainSubstring("write failurePolicy: Ignore or Fail")))
	})
})

// holding are the names of what keeps pods from being scheduled.
func holding(ctx context.Context) ([]string, error) {
	list := &admissionregistrationv1.MutatingAdmissionPolicyList{}
	err := c.List(ctx, list)
	var held []string
	for i := range list.Items {
		held = append(held, list.Items[i].Name)
	}
	return held, err
}
