//go:build e2e

package e2e

import (
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var _ = Describe("A drain", func() {
	It("takes each pod out of its endpoints before its sidecar stops, and puts it back", func() {
		const name = "drain"
		fleet := newFleet(name, 1, 3, func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Rollout.Drain.Seconds = 2
			p.Spec.Rollout.Budgets = []v1alpha1.Budget{{Per: v1alpha1.PerWorkload, MaxUnavailable: ptr.To(intstr.FromInt32(1))}}
		})
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "app"}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{harness.AppLabel: "app-00"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
		}}
		Expect(c.Create(ctx, service)).To(Succeed())
		Eventually(func() int { return len(serving(name)) }, settleTimeout, "200ms").Should(Equal(fleet.Pods()))
		apps := identities(name, harness.AppContainer)
		left := watchLeaving(name)
		done := observe(name, 1)

		Expect(harness.SetImage(ctx, c, name, name, image("agent:v2"))).To(Succeed())
		_, err := harness.WaitReady(ctx, c, name, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() int { return len(serving(name)) }, settleTimeout, "200ms").Should(Equal(fleet.Pods()))
		done()
		Expect(identities(name, harness.AppContainer)).To(Equal(apps))
		times := left()
		for _, pod := range podsOf(name) {
			stopped := pod.Status.InitContainerStatuses[0].LastTerminationState.Terminated
			Expect(stopped).NotTo(BeNil())
			Expect(times).To(HaveKey(pod.Name), "pods that left their endpoints")
			Expect(times[pod.Name]).To(BeTemporally("<", stopped.FinishedAt.Add(time.Second)), "pod %s left its endpoints before its sidecar stopped", pod.Name)
		}
	})
})

// serving names the pods that a Service of the namespace sends requests to.
func serving(namespace string) []string {
	GinkgoHelper()
	list := &discoveryv1.EndpointSliceList{}
	Expect(c.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
	var pods []string
	for _, slice := range list.Items {
		for _, endpoint := range slice.Endpoints {
			if ptr.Deref(endpoint.Conditions.Ready, false) && endpoint.TargetRef != nil {
				pods = append(pods, endpoint.TargetRef.Name)
			}
		}
	}
	return pods
}

// watchLeaving notes when each pod was first seen not to be served, until the answer is asked for.
func watchLeaving(namespace string) func() map[string]time.Time {
	GinkgoHelper()
	slices, err := c.Watch(ctx, &discoveryv1.EndpointSliceList{}, client.InNamespace(namespace))
	Expect(err).NotTo(HaveOccurred())
	var mu sync.Mutex
	left := map[string]time.Time{}
	go func() {
		for event := range slices.ResultChan() {
			slice, ok := event.Object.(*discoveryv1.EndpointSlice)
			if !ok {
				continue
			}
			mu.Lock()
			for _, endpoint := range slice.Endpoints {
				_, known := left[endpoint.TargetRef.Name]
				if !known && !ptr.Deref(endpoint.Conditions.Ready, false) {
					left[endpoint.TargetRef.Name] = time.Now()
				}
			}
			mu.Unlock()
		}
	}()
	return func() map[string]time.Time {
		slices.Stop()
		mu.Lock()
		defer mu.Unlock()
		return left
	}
}
