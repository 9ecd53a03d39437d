//go:build e2e

package e2e

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var _ = Describe("A change of resources", func() {
	sizes := func(cpu, memory string) corev1.ResourceRequirements {
		list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
		return corev1.ResourceRequirements{Requests: list}
	}
	// sized gives both kinds of sidecars their resources.
	sized := func(cpu, memory string) func(*v1alpha1.SidecarPolicy) {
		return func(p *v1alpha1.SidecarPolicy) {
			for i := range p.Spec.Template.Sidecars {
				p.Spec.Template.Sidecars[i].Resources = sizes(cpu, memory)
			}
		}
	}
	both := func(p *v1alpha1.SidecarPolicy) {
		p.Spec.Template.Sidecars = []v1alpha1.Sidecar{
			{Container: corev1.Container{Name: "agent", Image: image("agent:v1"), StartupProbe: httpProbe(9000)}},
			{Container: corev1.Container{Name: "exporter", Image: image("exporter:v1"), ReadinessProbe: httpProbe(9001)}, Mode: v1alpha1.ModeContainer},
		}
		p.Spec.Rollout.Budgets = []v1alpha1.Budget{
			{Per: v1alpha1.PerFleet, MaxUnavailable: new(intstr.FromInt32(1))}, {Per: v1alpha1.PerWorkload, MaxUnavailable: new(intstr.FromInt32(1))}}
	}
	// given are the CPU requests that the kubelet says it has given, by pod.
	given := func(namespace, container string) map[string]string {
		GinkgoHelper()
		given := map[string]string{}
		for _, pod := range podsOf(namespace) {
			for _, status := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
				if status.Name == container && status.Resources != nil {
					given[pod.Name] = status.Resources.Requests.Cpu().String()
				}
			}
		}
		return given
	}

	It("restarts no container, and comes with a new image in the same upgrade", func() {
		const name = "resize"
		newFleet(name, 1, 2, func(p *v1alpha1.SidecarPolicy) {
			both(p)
			sized("10m", "16Mi")(p)
		})
		containers := []string{"agent", "exporter", harness.AppContainer}
		before := map[string]map[string]harness.Identity{}
		for _, container := range containers {
			before[container] = identities(name, container)
		}
		done := observe(name, 0)
		Expect(harness.Edit(ctx, c, name, sized("20m", "24Mi"))).To(Succeed())
		_, err := harness.WaitReady(ctx, c, name, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		done()
		for _, container := range containers {
			Expect(identities(name, container)).To(Equal(before[container]), container)
		}
		for _, sidecar := range containers[:2] {
			Expect(given(name, sidecar)).To(And(HaveLen(2), HaveEach("20m")), sidecar)
		}

		Expect(harness.Edit(ctx, c, name, func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].Image = image("agent:v2")
			sized("30m", "24Mi")(p)
		})).To(Succeed())
		_, err = harness.WaitReady(ctx, c, name, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		for pod, agent := range identities(name, "agent") {
			Expect(agent.RestartCount).To(BeEquivalentTo(1), "the agent of pod %s", pod)
		}
		for _, container := range containers[1:] {
			Expect(identities(name, container)).To(Equal(before[container]), container)
		}
		Expect(given(name, "agent")).To(And(HaveLen(2), HaveEach("30m")))
	})

	It("that the node has no room for is rolled back, with the kubelet's words", func() {
		const name = "resize-full"
		newFleet(name, 1, 2, func(p *v1alpha1.SidecarPolicy) {
			both(p)
			sized("10m", "16Mi")(p)
			p.Spec.Template.Sidecars = p.Spec.Template.Sidecars[:1]
			p.Spec.Rollout.Health = health(0, 15)
		})
		app := identities(name, harness.AppContainer)
		allocatable := &corev1.NodeList{}
		Expect(c.List(ctx, allocatable)).To(Succeed())
		// It fits once, but not twice.
		cpu := allocatable.Items[0].Status.Allocatable.Cpu().MilliValue() * 3 / 4
		done := observe(name, 0)
		Expect(harness.Edit(ctx, c, name, sized(resource.NewMilliQuantity(cpu, resource.DecimalSI).String(), "16Mi"))).To(Succeed())
		policy, err := harness.WaitForPolicy(ctx, c, name, settleTimeout, func(p *v1alpha1.SidecarPolicy) bool {
			return p.Status.Phase == v1alpha1.PhaseRolledBack
		})
		Expect(err).NotTo(HaveOccurred())
		done()
		Expect(policy.Status.FailureMessage).To(And(ContainSubstring(string(v1alpha1.ReasonResizeFailed)), ContainSubstring("Node didn't have enough resource: cpu")))
		Expect(given(name, "agent")).To(And(HaveLen(2), HaveEach("10m")))
		Expect(identities(name, harness.AppContainer)).To(Equal(app))
	})
})
