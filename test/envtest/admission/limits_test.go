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
})
