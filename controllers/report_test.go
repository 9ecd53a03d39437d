package controllers_test

import (
	"fmt"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/controllers"
	"github.com/sidecar-dev/sidecar-operator/internal/report"
)

var _ = Describe("A report", func() {
	// reporter writes the reports of a world. The queue is where the manager's would be.
	type reporter struct {
		*controllers.SidecarReportReconciler
		queue map[types.NamespacedName]time.Time
	}

	newReporter := func(w *world) *reporter {
		board := &report.Board{}
		w.reconciler.Reports = board
		r := &reporter{&controllers.SidecarReportReconciler{Client: w.client(), Clock: w.clock, Board: board}, map[types.NamespacedName]time.Time{}}
		board.Watch(func(key types.NamespacedName) { r.queue[key] = w.clock.Now() })
		return r
	}
	// write does what is due in the queue.
	write := func(w *world, r *reporter) {
		GinkgoHelper()
		for key, at := range r.queue {
			if at.After(w.clock.Now()) {
				continue
			}
			delete(r.queue, key)
			result, err := r.Reconcile(ctx, ctrl.Request{NamespacedName: key})
			Expect(err).NotTo(HaveOccurred())
			if result.RequeueAfter > 0 {
				r.queue[key] = w.clock.Now().Add(result.RequeueAfter)
			}
		}
	}
	find := func(w *world, name string) *v1alpha1.SidecarReport {
		GinkgoHelper()
		found := &v1alpha1.SidecarReport{}
		err := server.Client.Get(ctx, client.ObjectKey{Namespace: w.name, Name: name}, found)
		Expect(client.IgnoreNotFound(err)).To(Succeed())
		if err != nil {
			return nil
		}
		return found
	}
	writes := func(w *world) int {
		return len(slices.DeleteFunc(slices.Clone(w.writes), func(s string) bool {
			return s != "update SidecarReport deployment-web0" && s != "create SidecarReport deployment-web0"
		}))
	}

	It("follows a roll-out of 50 pods with at most 5 writes", func() {
		w := newReadyWorld(budgets("10%", "10%"))
		r := newReporter(w)
		w.newFleet(1, 50)
		write(w, r)
		first := find(w, "deployment-web0")
		Expect(first).NotTo(BeNil())
		Expect(first.State).To(Equal(v1alpha1.ReportCurrent))
		Expect(first.OwnerReferences).To(ConsistOf(metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web0", UID: types.UID(w.name + "web0")}))

		w.clock.Step(time.Hour)
		w.forgetWrites()
		w.setImage("agent:v2")
		var seen []v1alpha1.ReportState
		w.rollOut(func() {
			write(w, r)
			if state := find(w, "deployment-web0").State; len(seen) == 0 || seen[len(seen)-1] != state {
				seen = append(seen, state)
			}
		})
		w.clock.Step(time.Minute)
		write(w, r)
		Expect(writes(w)).To(BeNumerically("<=", 5), fmt.Sprint(w.writes))
		last := find(w, "deployment-web0")
		Expect(seen).To(ContainElement(v1alpha1.ReportUpdating))
		Expect(last.State).To(Equal(v1alpha1.ReportCurrent))
		Expect(last.Pods).To(Equal(v1alpha1.ReportCounts{Selected: 50, Updated: 50, Ready: 50}))
		Expect(last.Policies).To(HaveLen(1))
		Expect(last.Policies[0].Sidecars).To(ConsistOf(v1alpha1.ReportedSidecar{Name: agent, Wanted: "agent:v2", Running: []v1alpha1.RunningImage{{Image: "agent:v2", Pods: 50}}}))
	})

	It("names what failed", func() {
		w := newReadyWorld(onFailure(v1alpha1.FailurePause), budgets("100%", "100%"))
		r := newReporter(w)
		w.newFleet(1, 2)
		w.setImage("agent:bad")
		for range 20 {
			w.pass()
			w.kubelet.sync(w.pods())
			w.clock.Step(30 * time.Second)
			write(w, r)
		}
		failed := find(w, "deployment-web0")
		Expect(failed.State).To(Equal(v1alpha1.ReportFailed))
		Expect(failed.Reason).To(Equal(v1alpha1.ReasonDeadlineExceeded))
		Expect(failed.Message).To(ContainSubstring("pod web0-"))
		Expect(failed.Pods.Failed).To(BeNumerically(">", 0))
	})

	It("outlives its pods for a minute, and goes when no policy speaks of it", func() {
		w := newReadyWorld()
		r := newReporter(w)
		w.newFleet(1, 1)
		write(w, r)
		Expect(find(w, "deployment-web0")).NotTo(BeNil())
		Expect(server.Client.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(w.name), client.GracePeriodSeconds(0))).To(Succeed())
		Expect(server.Client.DeleteAllOf(ctx, &appsv1.ReplicaSet{}, client.InNamespace(w.name))).To(Succeed())
		w.settle()
		w.clock.Step(time.Second)
		post(r.Board)
		write(w, r)
		Expect(find(w, "deployment-web0")).NotTo(BeNil(), "the pod may be one that is recreated")
		w.clock.Step(2 * time.Minute)
		write(w, r)
		Expect(find(w, "deployment-web0")).To(BeNil())
	})

	It("goes with a policy that the finalizer of somebody else keeps, which holds up no other report either", func() {
		const foreign = "example.com/audit"
		keep := func(p *v1alpha1.SidecarPolicy) { p.Finalizers = append(p.Finalizers, foreign) }
		w := newReadyWorld(keep)
		r := newReporter(w)
		w.newFleet(1, 1)
		write(w, r)
		Expect(find(w, "deployment-web0")).NotTo(BeNil())
		Expect(server.Client.Delete(ctx, w.policy())).To(Succeed())
		w.pass()
		w.clock.Step(2 * time.Minute)
		post(r.Board, w.name)
		write(w, r)
		Expect(find(w, "deployment-web0")).To(BeNil())
	})

	It("is left alone by an operator that does not know the whole cluster yet", func() {
		w := newReadyWorld()
		r := newReporter(w)
		w.newFleet(1, 1)
		write(w, r)
		w.restartOperator()
		again := newReporter(w)
		key := types.NamespacedName{Namespace: w.name, Name: "deployment-web0"}
		again.queue[key] = w.clock.Now()
		write(w, again)
		Expect(find(w, "deployment-web0")).NotTo(BeNil())
		Expect(again.queue).To(HaveKey(key), "looks again")
	})
})

// post has a board know all policies of other tests, which say nothing here.
func post(board *report.Board, but ...string) {
	GinkgoHelper()
	list := &v1alpha1.SidecarPolicyList{}
	Expect(server.Client.List(ctx, list)).To(Succeed())
	for i := range list.Items {
		if name := list.Items[i].Name; !board.Knows(name) && !slices.Contains(but, name) {
			board.Post(name, nil, time.Time{})
		}
	}
}
