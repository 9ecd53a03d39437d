package controllers_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/controllers"
	"github.com/sidecar-dev/sidecar-operator/internal/prefetch"
)

var _ = Describe("Prefetch pods", func() {
	var (
		w          *world
		prefetcher *controllers.Prefetcher
		wants      []prefetch.Want
	)

	// prefetchPods are those in the world's namespace.
	prefetchPods := func() []corev1.Pod {
		GinkgoHelper()
		list := &corev1.PodList{}
		Expect(server.Client.List(ctx, list, client.InNamespace(w.name), client.HasLabels{v1alpha1.PrefetchLabel})).To(Succeed())
		return list.Items
	}
	// carry makes one look, and says what became of the first want.
	carry := func(revision string, mode prefetch.Mode) (prefetch.Presence, string) {
		GinkgoHelper()
		look := controllers.Prefetching{Policy: w.policy(), Revision: revision, Mode: mode, Now: w.clock.Now()}
		view, err := prefetcher.View(ctx, look)
		Expect(err).NotTo(HaveOccurred())
		_, err = prefetcher.Carry(ctx, look, view, wants)
		Expect(err).NotTo(HaveOccurred())
		view, err = prefetcher.View(ctx, look)
		Expect(err).NotTo(HaveOccurred())
		return view.Presence(wants[0].Pod, wants[0].Images)
	}

	BeforeEach(func() {
		w = newReadyWorld()
		prefetcher = &controllers.Prefetcher{Client: w.client(), Pods: controllers.ListedPods{Reader: w.client()}, IdleImage: "operator:v1", ServerVersion: func() (string, error) { return "v1.37.2", nil }}
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: w.name}}
		Expect(server.Client.Create(ctx, node)).To(Succeed())
		DeferCleanup(func() { Expect(server.Client.Delete(ctx, node)).To(Succeed()) })
		node.Status.NodeInfo.KubeletVersion = "v1.37.2"
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		Expect(server.Client.Status().Update(ctx, node)).To(Succeed())
		pod := w.newPod("web-0", func(p *corev1.Pod) { p.Spec.NodeName = node.Name })
		wants = []prefetch.Want{{Pod: pod, Images: prefetch.Images(pod, map[string]string{agent: "agent:v2"})}}
	})

	It("come, stay while they are wanted, and go", func() {
		presence, _ := carry("rev", prefetch.Auto)
		Expect(presence).To(Equal(prefetch.Absent))
		created := prefetchPods()
		Expect(created).To(HaveLen(1))
		Expect(created[0].Labels).To(HaveKeyWithValue(v1alpha1.PolicyLabel, w.name))
		Expect(created[0].OwnerReferences).To(HaveExactElements(HaveField("UID", w.policy().UID)))
		Expect(created[0].Spec.Volumes[0].Image.Reference).To(Equal("agent:v2"))

		By("starting anew")
		w.restartOperator()
		prefetcher.Client = w.client()
		carry("rev", prefetch.Auto)
		Expect(prefetchPods()).To(HaveExactElements(HaveField("UID", created[0].UID)))

		created[0].Status.Phase = corev1.PodSucceeded
		Expect(server.Client.Status().Update(ctx, &created[0])).To(Succeed())
		presence, message := carry("rev", prefetch.Auto)
		Expect(presence).To(Equal(prefetch.Present), message)
		Expect(prefetchPods()).To(HaveLen(1))

		By("another revision")
		carry("next", prefetch.Auto)
		Expect(prefetchPods()).To(HaveExactElements(HaveField("Labels", HaveKeyWithValue(v1alpha1.PrefetchLabel, "next"))))
		presence, _ = carry("next", prefetch.Never)
		Expect(presence).To(Equal(prefetch.Unknown))
		Expect(prefetchPods()).To(BeEmpty())
	})

	It("are never part of a fleet", func() {
		w.settle()
		selected := w.status().Pods.Selected
		w.edit(func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Selector = v1alpha1.PodSelection{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"world": w.name}}}
		})
		carry("rev", prefetch.Auto)
		Expect(prefetchPods()).To(HaveLen(1))
		w.settle()
		Expect(w.status().Pods.Selected).To(Equal(selected), w.describe())
	})

	It("that a namespace refuses are tried again later, each time later", func() {
		quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: w.name, Name: "full"}}
		quota.Spec.Hard = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}
		Expect(server.Client.Create(ctx, quota)).To(Succeed())
		// There is no quota controller here, whose figures the API server goes by.
		quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}}
		Expect(server.Client.Status().Update(ctx, quota)).To(Succeed())
		Eventually(func() error {
			return server.Client.Create(ctx, w.plainPod("probe"), client.DryRunAll)
		}).WithTimeout(30 * time.Second).Should(Satisfy(apierrors.IsForbidden))

		w.forgetWrites()
		for range 3 {
			presence, message := carry("rev", prefetch.Auto)
			Expect(presence).To(Equal(prefetch.Refused))
			Expect(message).To(ContainSubstring("exceeded quota: full"))
		}
		Expect(w.writes).To(HaveLen(1), "it is not tried again at once")
		w.clock.Step(10 * time.Second)
		carry("rev", prefetch.Auto)
		w.clock.Step(10 * time.Second)
		carry("rev", prefetch.Auto)
		Expect(w.writes).To(HaveLen(2))

		By("making room")
		Expect(server.Client.Delete(ctx, quota)).To(Succeed())
		Eventually(func() error {
			return server.Client.Create(ctx, w.plainPod("probe"), client.DryRunAll)
		}).WithTimeout(30 * time.Second).Should(Succeed())
		w.clock.Step(10 * time.Second)
		presence, message := carry("rev", prefetch.Auto)
		Expect(presence).To(Equal(prefetch.Absent), message)
		Expect(prefetchPods()).To(HaveLen(1))
	})
})
