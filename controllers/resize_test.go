package controllers_test

import (
	"context"
	"errors"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

var _ = Describe("A change of resources", func() {
	memory := func(quantity string) corev1.ResourceRequirements {
		list := corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(quantity)}
		return corev1.ResourceRequirements{Requests: list, Limits: list}
	}
	sized := func(quantity string) func(*v1alpha1.SidecarPolicy) {
		return func(p *v1alpha1.SidecarPolicy) { p.Spec.Template.Sidecars[0].Resources = memory(quantity) }
	}
	// sizes are what the sidecars ask for, by pod.
	sizes := func(w *world) map[string]string {
		sizes := map[string]string{}
		for _, pod := range w.pods() {
			sizes[pod.Name] = pod.Spec.InitContainers[0].Resources.Limits.Memory().String()
		}
		return sizes
	}
	// resizes names the pods that the operator has resized.
	resizes := func(w *world) []string {
		var pods []string
		for _, write := range w.writes {
			if pod, ok := strings.CutPrefix(write, "patch-resize Pod "); ok {
				pods = append(pods, pod)
			}
		}
		return pods
	}
	var w *world
	BeforeEach(func() {
		w = newReadyWorld(budgets("1", "1"), sized("32Mi"))
		w.newFleet(1, 2)
	})

	It("is made in place, within the budget, and restarts nothing", func() {
		starts := w.kubelet.starts
		w.edit(sized("64Mi"))
		w.rollOut(func() { Expect(len(resizes(w))).To(BeNumerically("<=", 2)) })
		Expect(sizes(w)).To(Equal(map[string]string{"web0-0": "64Mi", "web0-1": "64Mi"}))
		Expect(w.kubelet.starts).To(Equal(starts))
		Expect(resizes(w)).To(ConsistOf("web0-0", "web0-1"))
		Expect(w.patches()).To(Equal([]string{"web0-0", "web0-1"}))
		Expect(w.status().Pods.Updated).To(BeEquivalentTo(2), w.describe())
		for _, pod := range w.pods() {
			Expect(pod.Spec.Containers[0].Resources).To(Equal(corev1.ResourceRequirements{}), "the app's own")
		}
	})

	It("goes on where the operator went away between the two requests", func() {
		w.edit(sized("64Mi"))
		gone := errors.New("the operator is gone")
		w.fail = func(verb string, _ runtime.Object) error {
			if verb == "patch-resize" {
				return gone
			}
			return nil
		}
		for range 10 {
			if _, err := w.reconciler.Reconcile(context.Background(), w.request()); errors.Is(err, gone) {
				break
			}
		}
		Expect(w.patches()).To(HaveLen(1))
		w.fail = nil
		w.restartOperator()
		w.rollOut(func() {})
		Expect(sizes(w)).To(Equal(map[string]string{"web0-0": "64Mi", "web0-1": "64Mi"}))
	})

	It("is rolled back where the kubelet has no room for it", func() {
		w.kubelet.full = true
		w.edit(sized("64Mi"))
		for range 200 {
			w.pass()
			w.kubelet.sync(w.pods())
			w.clock.Step(6 * time.Second)
			if w.status().Phase == v1alpha1.PhaseRolledBack {
				break
			}
		}
		Expect(w.status().Phase).To(Equal(v1alpha1.PhaseRolledBack), w.describe())
		Expect(w.status().FailureMessage).To(And(ContainSubstring(string(v1alpha1.ReasonResizeFailed)), ContainSubstring("Node didn't have enough resource")))
		Expect(sizes(w)).To(Equal(map[string]string{"web0-0": "32Mi", "web0-1": "32Mi"}))
	})

	It("makes pods stale where it would change their QoS class, and says so", func() {
		w.edit(func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].Resources = memory("0")
		})
		w.settle()
		Expect(resizes(w)).To(BeEmpty())
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonStalePods), w.describe())
		Expect(w.status().Unhealthy[0].Message).To(ContainSubstring("sidecars[agent].resources (a resize may not change the pod's QoS class from Burstable to BestEffort)"))
	})
})
