package admission

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

var _ = Describe("Limits of a namespace", func() {
	cpu := func(amount string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(amount)}
	}
	// leftAlone tries pods until the operator knows of the limit.
	leftAlone := func(namespace, why string, app corev1.ResourceRequirements) {
		GinkgoHelper()
		p := func() *corev1.Pod {
			p := pod(namespace, "web")
			p.Spec.Containers[0].Resources = app
			return p
		}
		Eventually(func(g Gomega) {
			warnings.take()
			created := p()
			_ = c.Create(ctx, created, client.DryRunAll)
			g.Expect(created.Spec.InitContainers).To(BeEmpty())
			g.Expect(warnings.take()).To(ContainElement(ContainSubstring(why)))
		}).Should(Succeed())
		created := p()
		Expect(c.Create(ctx, created)).To(Succeed(), "the pod is created as its owner wrote it")
		Expect(created.Spec.InitContainers).To(BeEmpty())
		Expect(created.Annotations).NotTo(HaveKey(v1alpha1.InjectedAnnotation(namespace)))
		warnings.take()
	}

	It("that a LimitRange sets leave a pod without sidecars, instead of refused", func() {
		createNamespace("ranged", nil)
		limits := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "ranged", Name: "limits"}, Spec: corev1.LimitRangeSpec{
			Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypePod, Max: cpu("1")}}}}
		Expect(c.Create(ctx, limits)).To(Succeed())
		createPolicy("ranged", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Injection.FailurePolicy = v1alpha1.FailurePolicyFail
			p.Spec.Template.Sidecars[0].Resources.Limits = cpu("500m")
		})
		waitReady("ranged")
		leftAlone("ranged", "LimitRange limits: the pod has the limit 1300m for cpu, and 1 is the most", corev1.ResourceRequirements{Limits: cpu("800m")})
		refused := pod("ranged", "large")
		refused.Spec.Containers[0].Resources.Limits = cpu("2")
		Expect(c.Create(ctx, refused)).To(MatchError(ContainSubstring("maximum cpu usage per Pod is 1")), "what is refused anyway stays so")
	})

	It("that a ResourceQuota sets leave a pod without sidecars, instead of refused", func() {
		createNamespace("rationed", nil)
		hard := corev1.ResourceList{corev1.ResourceRequestsCPU: resource.MustParse("1")}
		quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "rationed", Name: "quota"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
		Expect(c.Create(ctx, quota)).To(Succeed())
		quota.Status = corev1.ResourceQuotaStatus{Hard: hard, Used: corev1.ResourceList{corev1.ResourceRequestsCPU: resource.MustParse("0")}}
		Expect(c.Status().Update(ctx, quota)).To(Succeed()) // nobody else counts here
		createPolicy("rationed")
		waitReady("rationed")
		leftAlone("rationed", `ResourceQuota quota: container "rationed" must say requests.cpu`, corev1.ResourceRequirements{Requests: cpu("500m")})
	})

	It("that refuse every pod with the sidecars leave pods without them by engine AdmissionPolicy, for as long as they do", func() {
		createNamespace("compiled", nil)
		createPolicy("compiled", byAPIServer, func(p *v1alpha1.SidecarPolicy) { p.Spec.Template.Sidecars[0].Resources.Limits = cpu("100m") })
		waitReady("compiled")
		memory := func(amount string) corev1.ResourceList {
			return corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(amount)}
		}
		app := func(name string) *corev1.Pod {
			p := pod("compiled", name)
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi"), corev1.ResourceCPU: resource.MustParse("1")}
			return p
		}
		// sidecarsAre waits until the API server has heard, and takes the pod.
		sidecarsAre := func(names ...string) *corev1.Pod {
			GinkgoHelper()
			var p *corev1.Pod
			Eventually(func(g Gomega) {
				p = app("tried")
				g.Expect(c.Create(ctx, p, client.DryRunAll)).To(Succeed())
				g.Expect(p.Spec.InitContainers).To(HaveLen(len(names)))
			}).Should(Succeed())
			return p
		}
		sidecarsAre("compiled")

		By("a quota that wants a limit which the sidecar does not say")
		hard := corev1.ResourceList{corev1.ResourceLimitsMemory: resource.MustParse("1Gi")}
		quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "compiled", Name: "quota"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
		Expect(c.Create(ctx, quota)).To(Succeed())
		quota.Status = corev1.ResourceQuotaStatus{Hard: hard, Used: corev1.ResourceList{corev1.ResourceLimitsMemory: resource.MustParse("0")}}
		Expect(c.Status().Update(ctx, quota)).To(Succeed()) // nobody else counts here
		sidecarsAre()
		Expect(c.Create(ctx, app("web"))).To(Succeed())
		Eventually(func() []v1alpha1.UnhealthyPods {
			policy := &v1alpha1.SidecarPolicy{}
			Expect(c.Get(ctx, client.ObjectKey{Name: "compiled"}, policy)).To(Succeed())
			return policy.Status.Unhealthy
		}).Should(ContainElement(And(HaveField("Reason", v1alpha1.ReasonQuotaConflict), HaveField("Message", ContainSubstring("must say limits.memory")))))

		By("a LimitRange that says it")
		limits := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "compiled", Name: "limits"}, Spec: corev1.LimitRangeSpec{
			Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer, Default: memory("32Mi")}}}}
		Expect(c.Create(ctx, limits)).To(Succeed())
		p := sidecarsAre("compiled")
		Expect(p.Spec.InitContainers[0].Resources.Limits.Memory().String()).To(Equal("32Mi"), "LimitRanges fill in what sidecars lack")

		By("a LimitRange that wants more than it says")
		limits.Spec.Limits[0].Min = cpu("200m")
		Expect(c.Update(ctx, limits)).To(Succeed())
		sidecarsAre()
	})
})
