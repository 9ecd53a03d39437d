package admission

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var _ = Describe("A policy that is broken", func() {
	leftAlone := func(p *corev1.Pod, why string) {
		GinkgoHelper()
		Expect(p.Spec.InitContainers).To(BeEmpty())
		Expect(p.Annotations).To(BeEmpty())
		Expect(warnings.take()).To(ConsistOf(And(HavePrefix("SidecarPolicy "+p.Namespace+": created without its sidecars: "), ContainSubstring(why))))
	}

	It("by resources that can't be computed for a pod leaves the pod as it is", func() {
		createNamespace("uncomputable", nil)
		createPolicy("uncomputable", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].ResourcesFromApp = &v1alpha1.AppResources{Requests: map[corev1.ResourceName]v1alpha1.ResourceExpression{
				corev1.ResourceCPU: "app.requests.cpu > 1.0 ? app.requests.cpu - 5.0 : 0.1"}}
		})
		waitReady("uncomputable")
		p := pod("uncomputable", "web")
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}
		leftAlone(create(p), "can't be computed")
	})

	It("by a revision that can't be read leaves the pod as it is", func() {
		createNamespace("unreadable", nil)
		createPolicy("unreadable")
		policy := waitReady("unreadable")
		revision := &appsv1.ControllerRevision{}
		Expect(c.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: "unreadable-" + policy.Status.TargetRevision}, revision)).To(Succeed())
		delete(revision.Labels, v1alpha1.RevisionLabel("unreadable"))
		Expect(c.Update(ctx, revision)).To(Succeed())
		Eventually(func() error { // the operator's cache hears of it a moment later
			p := pod("unreadable", "web")
			if err := c.Create(ctx, p, client.DryRunAll); err != nil {
				return StopTrying("the pod was refused").Wrap(err)
			}
			if warned := warnings.take(); len(p.Spec.InitContainers) > 0 || len(warned) == 0 {
				return fmt.Errorf("the pod was injected, warnings %q", warned)
			}
			return nil
		}).Should(Succeed())
		leftAlone(create(pod("unreadable", "web")), "has no label")
	})
})

var _ = Describe("The log", func() {
	It("never has a variable of a pod, at any verbosity", func() {
		const secret = "correct-horse-battery-staple"
		createNamespace("quiet-log", nil)
		createPolicy("quiet-log", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].EnvFromApp = []v1alpha1.AppEnv{{Names: []string{"PASSWORD"}}}
		})
		policy := waitReady("quiet-log")
		said := len(logged.containing("wrote response"))
		injected, clashing := pod("quiet-log", "injected"), pod("quiet-log", "clashing")
		for _, p := range []*corev1.Pod{injected, clashing} {
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "PASSWORD", Value: secret}}
		}
		clashing.Spec.Containers = append(clashing.Spec.Containers, corev1.Container{Name: "quiet-log", Image: "own"})
		Expect(checkInjected(create(injected), policy)).To(Succeed())
		Expect(injected.Spec.InitContainers[0].Env).To(ConsistOf(HaveField("Value", secret)))
		Expect(create(clashing).Spec.InitContainers).To(BeEmpty())
		refused := pod("quiet-log", "refused") // by the API server, after it was injected
		refused.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "PASSWORD", Value: secret}, {Name: "not a name=", Value: secret}}
		Expect(c.Create(ctx, refused)).NotTo(Succeed())
		_, err := harness.WaitForPolicy(ctx, c, "quiet-log", patience, func(p *v1alpha1.SidecarPolicy) bool {
			return p.Status.Pods != nil && p.Status.Pods.Injected == 1 && p.Status.Pods.Conflicting == 1
		})
		Expect(err).NotTo(HaveOccurred())
		Expect(len(logged.containing("wrote response"))).To(BeNumerically(">", said+1), "what is logged at high verbosity is not seen")
		Expect(logged.containing(secret)).To(BeEmpty())
	})
})
