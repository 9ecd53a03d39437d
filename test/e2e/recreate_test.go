//go:build e2e

package e2e

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var _ = Describe("A change that a running pod can't take", func() {
	It("recreates the pods by eviction, a canary first, under a PodDisruptionBudget", func() {
		const name = "recreate"
		newFleet(name, 1, 3, func(p *v1alpha1.SidecarPolicy) {
			canaryFirst(0, "")(p)
			all := intstr.FromString("100%")
			p.Spec.Rollout.Method = v1alpha1.MethodInPlaceOrRecreate
			p.Spec.Rollout.Health = health(1, 45)
			p.Spec.Rollout.Budgets = []v1alpha1.Budget{{Per: v1alpha1.PerFleet, MaxUnavailable: &all}, {Per: v1alpha1.PerWorkload, MaxUnavailable: &all}}
		})
		Expect(c.Create(ctx, &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "two"},
			Spec: policyv1.PodDisruptionBudgetSpec{
				MinAvailable: ptr.To(intstr.FromInt32(2)),
				Selector:     &metav1.LabelSelector{MatchLabels: map[string]string{harness.AppLabel: "app-00"}},
			},
		})).To(Succeed())
		before := map[types.UID]bool{}
		for _, pod := range podsOf(name) {
			before[pod.UID] = true
		}
		done := observe(name, 1)
		Expect(harness.Edit(ctx, c, name, func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].Env = []corev1.EnvVar{{Name: "LEVEL", Value: "debug"}}
		})).To(Succeed())
		policy, err := harness.WaitReady(ctx, c, name, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		done()
		Expect(policy.Status.Pods.Stale).To(BeZero())
		Eventually(func() []corev1.Pod { return podsOf(name) }, settleTimeout, "200ms").Should(HaveLen(3))
		for _, pod := range podsOf(name) {
			Expect(before).NotTo(HaveKey(pod.UID))
			Expect(pod.Spec.InitContainers[0].Env).To(ContainElement(corev1.EnvVar{Name: "LEVEL", Value: "debug"}))
		}
	})
})
