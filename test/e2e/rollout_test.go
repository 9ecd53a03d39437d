//go:build e2e

package e2e

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// canaryFirst upgrades one pod, watches it, and then all others.
func canaryFirst(soak time.Duration, approval v1alpha1.Approval) func(*v1alpha1.SidecarPolicy) {
	return func(p *v1alpha1.SidecarPolicy) {
		p.Spec.Rollout.Steps = append([]v1alpha1.Step{{
			Name: "canary", UpTo: ptr.To(intstr.FromInt32(1)), Soak: &metav1.Duration{Duration: soak}, Approval: approval,
		}}, harness.AllAtOnce()...)
		p.Spec.Rollout.Budgets = []v1alpha1.Budget{{Per: v1alpha1.PerFleet, MaxUnavailable: ptr.To(intstr.FromInt32(2))}}
		p.Spec.Rollout.Health = health(2, 15)
	}
}

// changed counts the pods in which a container is not what it was.
func changed(namespace, container string, before map[string]harness.Identity) int {
	GinkgoHelper()
	n := 0
	for pod, now := range identities(namespace, container) {
		if now != before[pod] {
			n++
		}
	}
	return n
}

func waitForPhase(name string, phase v1alpha1.Phase, timeout time.Duration) *v1alpha1.SidecarPolicy {
	GinkgoHelper()
	policy, err := harness.WaitForPolicy(ctx, c, name, timeout, func(p *v1alpha1.SidecarPolicy) bool {
		return p.Status.ObservedGeneration == p.Generation && p.Status.Phase == phase
	})
	Expect(err).NotTo(HaveOccurred())
	return policy
}

var _ = Describe("A roll-out by steps", func() {
	It("upgrades the canary, soaks, waits for approval, and then does the rest", func() {
		const name = "steps"
		fleet := newFleet(name, 2, 3, canaryFirst(3*time.Second, v1alpha1.ApprovalRequired))
		agents := identities(name, name)
		done := observe(name, 1)
		Expect(harness.SetImage(ctx, c, name, name, image("agent:v2"))).To(Succeed())
		waitForPhase(name, v1alpha1.PhaseSoaking, settleTimeout)
		policy := waitForPhase(name, v1alpha1.PhaseAwaitingApproval, settleTimeout)
		Expect(changed(name, name, agents)).To(Equal(1))
		Expect(policy.Status.Pods.Updated).To(BeEquivalentTo(1))
		Expect(policy.Status.MaxSidecarDowntimeSeconds).NotTo(BeNil(), "the kubelet says how long the sidecar was down")

		Expect(harness.Edit(ctx, c, name, func(p *v1alpha1.SidecarPolicy) {
			metav1.SetMetaDataAnnotation(&p.ObjectMeta, v1alpha1.ApproveAnnotation, p.Status.TargetRevision+"/canary")
		})).To(Succeed())
		_, err := harness.WaitReady(ctx, c, name, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		done()
		Expect(changed(name, name, agents)).To(Equal(fleet.Pods()))
	})

	// rollsBack rolls out an image that must fail, and shows that it stops in its step and is taken
	// back, with that many sidecars harmed.
	rollsBack := func(name, bad string, mode v1alpha1.PrefetchMode, harmed int) *v1alpha1.SidecarPolicy {
		GinkgoHelper()
		newFleet(name, 1, 4, func(p *v1alpha1.SidecarPolicy) {
			canaryFirst(20*time.Second, "")(p)
			p.Spec.Rollout.Prefetch.Mode = mode
		})
		agents := identities(name, name)
		Expect(harness.SetImage(ctx, c, name, name, image(bad))).To(Succeed())
		policy := waitForPhase(name, v1alpha1.PhaseRolledBack, settleTimeout)
		Expect(policy.Status.FailedRevision).To(Equal(policy.Status.TargetRevision))
		Expect(harness.ConditionIs(policy, v1alpha1.ConditionDegraded, metav1.ConditionTrue)).To(BeTrue())
		Expect(changed(name, name, agents)).To(Equal(harmed), "pods that the bad version reached")
		Expect(identities(name, name)).NotTo(ContainElement(harness.Identity{}), "all sidecars run again")
		for _, pod := range podsOf(name) {
			Expect(pod.Spec.InitContainers[0].Image).To(Equal(image("agent:v1")))
		}
		return policy
	}

	It("harms no sidecar with an image that can't be pulled", func() {
		const name = "prefetched"
		policy := rollsBack(name, "agent:does-not-exist", v1alpha1.PrefetchAuto, 0)
		Expect(policy.Status.FailureMessage).To(And(ContainSubstring("prefetch failed"), ContainSubstring("agent:does-not-exist: not found")))
		Expect(restarts(name, harness.AppContainer)).To(BeZero())
		Eventually(func() []corev1.Pod { return podsOf(name) }, settleTimeout, "200ms").Should(HaveLen(4), "no prefetch pod is left")
	})

	It("without prefetch stops it in its step, and rolls it back", func() {
		policy := rollsBack("bad-image", "agent:does-not-exist", v1alpha1.PrefetchNever, 1)
		Expect(policy.Status.FailureMessage).To(ContainSubstring("Deployment/bad-image/app-00"))
		Expect(restarts("bad-image", harness.AppContainer)).To(BeZero())
	})

	It("catches a version that crashes 5 s after it was ready", func() {
		policy := rollsBack("crash", "agent:crash", v1alpha1.PrefetchAuto, 1)
		Expect(policy.Status.FailureMessage).To(ContainSubstring("exited with code 1"))
		Expect(restarts("crash", harness.AppContainer)).To(BeZero())
	})

	It("catches a version that makes its app restart", func() {
		policy := rollsBack("guard", "agent:poison", v1alpha1.PrefetchAuto, 1)
		Expect(policy.Status.FailureMessage).To(ContainSubstring(string(v1alpha1.ReasonAppRestarted)))
		Expect(restarts("guard", harness.AppContainer)).To(BeEquivalentTo(1), "the one app that the canary took down")
	})
})

// restarts adds up those of one container over all pods of a namespace.
func restarts(namespace, container string) int32 {
	GinkgoHelper()
	total := int32(0)
	for _, identity := range identities(namespace, container) {
		total += identity.RestartCount
	}
	return total
}
