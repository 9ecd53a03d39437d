//go:build e2e

package e2e

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var _ = Describe("An in-place upgrade", func() {
	It("restarts native and classic sidecars, and never touches the app", func() {
		const name = "main"
		fleet := newFleet(name, 2, 3, func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars = []v1alpha1.Sidecar{
				{Container: corev1.Container{Name: "agent", Image: image("agent:v1"), StartupProbe: httpProbe(9000)}},
				{Container: corev1.Container{Name: "exporter", Image: image("exporter:v1"), ReadinessProbe: httpProbe(9001)}, Mode: v1alpha1.ModeContainer},
			}
			p.Spec.Rollout.Budgets = []v1alpha1.Budget{{Per: v1alpha1.PerFleet, MaxUnavailable: ptr.To(intstr.FromInt32(2))}}
		})
		before := map[string]map[string]harness.Identity{}
		for _, container := range []string{"agent", "exporter", harness.AppContainer} {
			before[container] = identities(name, container)
			Expect(before[container]).To(HaveLen(fleet.Pods()))
			Expect(before[container]).NotTo(ContainElement(harness.Identity{}), "%s runs in every pod", container)
		}
		// 25% of 3 pods is rounded up to the one that a budget always allows.
		done := observe(name, 1)

		Expect(harness.Edit(ctx, c, name, func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].Image = image("agent:v2")
			p.Spec.Template.Sidecars[1].Image = image("exporter:v2")
		})).To(Succeed())
		policy, err := harness.WaitReady(ctx, c, name, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		done()

		Expect(policy.Status.StableRevision).To(Equal(policy.Status.TargetRevision))
		Expect(policy.Status.Pods.Updated).To(BeEquivalentTo(fleet.Pods()))
		Expect(identities(name, harness.AppContainer)).To(Equal(before[harness.AppContainer]))
		for _, container := range []string{"agent", "exporter"} {
			for pod, now := range identities(name, container) {
				was := before[container][pod]
				Expect(now.ContainerID).NotTo(Equal(was.ContainerID), "%s of pod %s", container, pod)
				Expect(now.RestartCount).To(Equal(was.RestartCount+1), "%s of pod %s", container, pod)
				Expect(now.StartedAt).To(BeTemporally(">", was.StartedAt), "%s of pod %s", container, pod)
			}
		}
	})

	It("goes on where it was after the manager was killed, within the budgets", func() {
		const name = "killed"
		fleet := newFleet(name, 2, 4, func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Rollout.Budgets = []v1alpha1.Budget{{Per: v1alpha1.PerFleet, MaxUnavailable: ptr.To(intstr.FromInt32(2))}}
		})
		done := observe(name, 1)
		Expect(harness.SetImage(ctx, c, name, name, image("agent:v2"))).To(Succeed())
		for _, updated := range []int32{1, 4} {
			_, err := harness.WaitForPolicy(ctx, c, name, settleTimeout, func(p *v1alpha1.SidecarPolicy) bool {
				return p.Status.ObservedGeneration == p.Generation && p.Status.Pods.Updated >= updated
			})
			Expect(err).NotTo(HaveOccurred())
			manager.Kill()
			startManager()
		}
		policy, err := harness.WaitReady(ctx, c, name, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		done()
		Expect(policy.Status.Pods.Updated).To(BeEquivalentTo(fleet.Pods()))
		for pod, agent := range identities(name, name) {
			Expect(agent.RestartCount).To(BeEquivalentTo(1), "the agent of pod %s is upgraded once", pod)
		}
	})

	It("respects PodDisruptionBudgets, which the API server does not apply to restarts in place", func() {
		const name = "pdb"
		newFleet(name, 1, 3, func(p *v1alpha1.SidecarPolicy) {
			all := intstr.FromString("100%")
			p.Spec.Rollout.Budgets = []v1alpha1.Budget{{Per: v1alpha1.PerFleet, MaxUnavailable: &all}, {Per: v1alpha1.PerWorkload, MaxUnavailable: &all}}
		})
		pdb := &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "strict"},
			Spec: policyv1.PodDisruptionBudgetSpec{
				MinAvailable: ptr.To(intstr.FromInt32(3)),
				Selector:     &metav1.LabelSelector{MatchLabels: map[string]string{harness.AppLabel: "app-00"}},
			},
		}
		Expect(c.Create(ctx, pdb)).To(Succeed())
		agents := identities(name, name)
		done := observe(name, 1)
		Expect(harness.SetImage(ctx, c, name, name, image("agent:v2"))).To(Succeed())
		_, err := harness.WaitForPolicy(ctx, c, name, time.Minute, func(p *v1alpha1.SidecarPolicy) bool {
			return strings.Contains(harness.Describe(p), "PodDisruptionBudget pdb/strict allows no disruption")
		})
		Expect(err).NotTo(HaveOccurred())
		Consistently(func() map[string]harness.Identity { return identities(name, name) }, "3s", "500ms").Should(Equal(agents))

		before := pdb.DeepCopy()
		pdb.Spec.MinAvailable = ptr.To(intstr.FromInt32(2))
		Expect(c.Patch(ctx, pdb, client.MergeFrom(before))).To(Succeed())
		_, err = harness.WaitReady(ctx, c, name, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		done()
	})
})

func httpProbe(port int32) *corev1.Probe {
	return &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
		HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromInt32(port)},
	}}
}
