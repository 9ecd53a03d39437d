package controllers_test

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/controllers"
)

var _ = Describe("Cached pods", func() {
	var (
		pods *controllers.CachedPods
		c    client.Client
		here string
	)
	create := func(name string, labels map[string]string) *corev1.Pod {
		GinkgoHelper()
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: here, Name: name, Labels: labels},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:v1"}}}}
		Expect(c.Create(ctx, pod)).To(Succeed())
		return pod
	}
	names := func(pods []*corev1.Pod, err error) []string {
		GinkgoHelper()
		Expect(err).NotTo(HaveOccurred())
		var names []string
		for _, pod := range pods {
			names = append(names, pod.Name)
		}
		return names
	}

	BeforeEach(func() {
		here = newWorld().name
		running, cancel := context.WithCancel(ctx)
		informers, err := cache.New(server.Config, cache.Options{Scheme: server.Client.Scheme()})
		Expect(err).NotTo(HaveOccurred())
		c, err = client.New(server.Config, client.Options{Scheme: server.Client.Scheme(),
			Cache: &client.CacheOptions{Reader: informers, EnableReadYourWritesConsistency: ptr.To(true)}})
		Expect(err).NotTo(HaveOccurred())
		pods, err = controllers.NewCachedPods(ctx, c, informers)
		Expect(err).NotTo(HaveOccurred())
		stopped := make(chan error)
		go func() { stopped <- informers.Start(running) }()
		DeferCleanup(func() {
			cancel()
			Expect(<-stopped).To(Succeed())
		})
	})

	It("show what was just written", func() {
		for range 20 { // a cache that was not waited for would lag behind one of them
			pod := create("web-0", nil)
			Expect(names(pods.InNamespace(ctx, here))).To(HaveExactElements("web-0"))
			pod.Labels = map[string]string{"changed": "yes"}
			Expect(c.Update(ctx, pod)).To(Succeed())
			Expect(pods.InNamespace(ctx, here)).To(HaveExactElements(HaveField("Labels", HaveKey("changed"))))
			Expect(c.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
		}
	})

	It("are those of a namespace, or the prefetch pods of a policy", func() {
		create("web-0", nil)
		create("fetch-0", map[string]string{v1alpha1.PrefetchLabel: "x", v1alpha1.PolicyLabel: here})
		create("fetch-1", map[string]string{v1alpha1.PrefetchLabel: "x", v1alpha1.PolicyLabel: "another"})
		create("theirs", map[string]string{v1alpha1.PolicyLabel: here})
		Expect(names(pods.InNamespace(ctx, here))).To(ConsistOf("web-0", "fetch-0", "fetch-1", "theirs"))
		Expect(names(pods.InNamespace(ctx, "nowhere"))).To(BeEmpty())
		Expect(names(pods.Prefetching(ctx, here))).To(HaveExactElements("fetch-0"))
	})
})
