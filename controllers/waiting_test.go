package controllers_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

var _ = Describe("Windows", func() {
	It("freeze a roll-out until the next one opens, and say when that is", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		w.newFleet(1, 2)
		opens := w.clock.Now().UTC().Truncate(time.Hour).Add(3 * time.Hour)
		w.edit(func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Rollout.Windows = []v1alpha1.Window{{Schedule: fmt.Sprintf("0 %d * * *", opens.Hour()), Duration: metav1.Duration{Duration: time.Hour}}}
		})
		w.setImage("agent:v2")
		w.settle()
		Expect(w.status().Phase).To(Equal(v1alpha1.PhaseFrozen))
		Expect(w.patches()).To(BeEmpty())
		Expect(w.condition(v1alpha1.ConditionProgressing)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonFrozen))
		Expect(w.condition(v1alpha1.ConditionProgressing).Message).To(ContainSubstring("the next one opens at " + opens.Format(time.RFC3339)))

		w.clock.Step(w.pass().RequeueAfter)
		w.rollOut(func() {})
		Expect(w.patches()).To(Equal(w.podNames()))
	})

	It("that can't be read are refused with what to write", func() {
		w := newReadyWorld()
		w.edit(func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Rollout.Windows = []v1alpha1.Window{{Schedule: "whenever", Duration: metav1.Duration{Duration: time.Hour}}}
		})
		w.settle()
		accepted := w.condition(v1alpha1.ConditionAccepted)
		Expect(accepted.Status).To(Equal(metav1.ConditionFalse))
		Expect(accepted.Message).To(And(ContainSubstring("spec.rollout.windows[0]"), ContainSubstring("write five fields")))
	})
})

var _ = Describe("An exemption", func() {
	It("keeps pods out of a roll-out until it expires, and out of its way", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		w.newFleet(1, 3)
		exempt := w.pod("web0-1")
		metav1.SetMetaDataAnnotation(&exempt.ObjectMeta, v1alpha1.ExemptUntilAnnotation, w.clock.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		Expect(server.Client.Update(ctx, exempt)).To(Succeed())
		w.setImage("agent:v2")
		w.rollOut(func() {})
		Expect(w.patches()).To(Equal([]string{"web0-0", "web0-2"}))
		Expect(w.status().Pods.Exempt).To(BeEquivalentTo(1))
		Expect(w.condition(v1alpha1.ConditionReady).Message).To(ContainSubstring("1 are exempt"))

		w.clock.Step(w.pass().RequeueAfter)
		w.rollOut(func() {})
		Expect(w.patches()).To(Equal(w.podNames()))
	})

	It("that can't be read is said, and holds until it is corrected", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		w.newFleet(1, 1)
		exempt := w.pod("web0-0")
		metav1.SetMetaDataAnnotation(&exempt.ObjectMeta, v1alpha1.ExemptUntilAnnotation, "next week")
		Expect(server.Client.Update(ctx, exempt)).To(Succeed())
		w.settle()
		Expect(w.status().Unhealthy).To(ConsistOf(And(HaveField("Reason", v1alpha1.ReasonExempt), HaveField("Message", ContainSubstring("write the last day")))))
	})

	It("does not keep a pod on a revision that has failed", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		w.newFleet(1, 1)
		w.setImage("agent:bad")
		w.settle()
		Expect(w.images()).To(HaveEach("agent:bad"))
		exempt := w.pod("web0-0")
		metav1.SetMetaDataAnnotation(&exempt.ObjectMeta, v1alpha1.ExemptUntilAnnotation, "2999-12-31")
		Expect(server.Client.Update(ctx, exempt)).To(Succeed())
		for range 3 {
			w.kubelet.sync(w.pods())
			w.clock.Step(301 * time.Second)
			w.settle()
		}
		Expect(w.images()).To(HaveEach("agent:v1"))
		Expect(w.status().Phase).To(Equal(v1alpha1.PhaseRolledBack))
	})

	It("does nothing where the policy says so", func() {
		w := newReadyWorld(budgets("100%", "100%"), func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Exemptions = v1alpha1.ExemptionsIgnore })
		w.newFleet(1, 1)
		namespace := &corev1.Namespace{}
		Expect(server.Client.Get(ctx, client.ObjectKey{Name: w.name}, namespace)).To(Succeed())
		metav1.SetMetaDataAnnotation(&namespace.ObjectMeta, v1alpha1.ExemptUntilAnnotation, "2999-12-31")
		Expect(server.Client.Update(ctx, namespace)).To(Succeed())
		w.setImage("agent:v2")
		w.rollOut(func() {})
		Expect(w.patches()).To(Equal(w.podNames()))
	})
})

var _ = Describe("A drain", func() {
	It("costs three writes a pod, and leaves none drained, whoever starts the manager when", func() {
		w := newReadyWorld(budgets("100%", "100%"), func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Drain.Seconds = 5 })
		owner := w.newReplicaSet("web0")
		w.newPod("web0-0", ownedBy(owner))
		w.kubelet.sync(w.pods())
		w.settle()
		w.kubelet.sync(w.pods())
		w.settle()
		Expect(w.status().Pods.Ready).To(BeEquivalentTo(1), "a new pod's gate is opened")
		w.forgetWrites()

		w.setImage("agent:v2")
		w.restartOperator()
		w.settle()
		Expect(w.podWrites()).To(Equal([]string{"patch-status Pod web0-0"}))
		Expect(hasCondition(w.pod("web0-0"), v1alpha1.DrainCondition(w.name))).To(BeFalse())
		w.restartOperator()
		w.clock.Step(4 * time.Second)
		w.settle()
		Expect(w.podWrites()).To(HaveLen(1), "it is drained for 5 s")
		w.clock.Step(2 * time.Second)
		w.settle()
		Expect(w.podWrites()).To(Equal([]string{"patch-status Pod web0-0", "patch Pod web0-0"}))
		w.kubelet.sync(w.pods())
		w.restartOperator()
		w.clock.Step(11 * time.Second)
		w.settle()
		Expect(w.podWrites()).To(Equal([]string{"patch-status Pod web0-0", "patch Pod web0-0", "patch-status Pod web0-0"}))
		w.kubelet.sync(w.pods())
		w.settle()
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete))

		By("pausing in the middle of the next one")
		w.setImage("agent:v3")
		w.settle()
		Expect(hasCondition(w.pod("web0-0"), v1alpha1.DrainCondition(w.name))).To(BeFalse())
		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Paused = true })
		w.settle()
		Expect(hasCondition(w.pod("web0-0"), v1alpha1.DrainCondition(w.name))).To(BeTrue(), "a pod is not left drained for an upgrade that does not come")
		Expect(w.images()).To(HaveEach("agent:v2"))
	})
})

// podWrites are the writes of pods, in order.
func (w *world) podWrites() []string {
	return slices.DeleteFunc(slices.Clone(w.writes), func(write string) bool { return !strings.Contains(write, " Pod ") })
}

var _ = Describe("A change that needs new pods", func() {
	It("evicts them where the method says so, and no others", func() {
		w := newReadyWorld(budgets("100%", "100%"), func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Method = v1alpha1.MethodInPlaceOrRecreate })
		rs := w.newSettledDeployment("web0", 2)
		for i := range 2 {
			w.newPod(fmt.Sprintf("web0-%d", i), ownedBy(rs))
		}
		w.newPod("bare")
		w.kubelet.sync(w.pods())
		w.settle()
		w.forgetWrites()
		w.edit(func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].Env = []corev1.EnvVar{{Name: "LEVEL", Value: "debug"}}
		})
		w.settle()
		Expect(w.podWrites()).To(ConsistOf("create-eviction Pod web0-0", "create-eviction Pod web0-1"), "a bare pod is evicted only when asked")
		Expect(w.status().Unhealthy).To(ContainElement(And(HaveField("Workload", "Pod/"+w.name+"/bare"), HaveField("Reason", v1alpha1.ReasonStale))))
	})

	It("evicts none whose namespace would not take the new one", func() {
		w := newReadyWorld(budgets("100%", "100%"), func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Method = v1alpha1.MethodInPlaceOrRecreate })
		rs := w.newSettledDeployment("web0", 1)
		w.newPod("web0-0", ownedBy(rs))
		w.kubelet.sync(w.pods())
		w.settle()
		w.forgetWrites()
		w.fail = func(verb string, object runtime.Object) error {
			if pod, is := object.(*corev1.Pod); is && verb == "dry-run" && pod.Namespace == w.name {
				return apierrors.NewForbidden(corev1.Resource("pods"), pod.Name, errors.New("no debug here"))
			}
			return nil
		}
		w.edit(func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].Env = []corev1.EnvVar{{Name: "LEVEL", Value: "debug"}}
		})
		for range 5 {
			w.settle()
			w.clock.Step(time.Minute)
		}
		Expect(w.podWrites()).To(BeEmpty())
		Expect(w.status().Unhealthy).To(ContainElement(And(HaveField("Reason", v1alpha1.ReasonUpdateRefused), HaveField("Message", ContainSubstring("no debug here")))))
	})

	It("takes containers out that the template has no more, where the author wants that, whatever the method", func() {
		w := newReadyWorld(budgets("100%", "100%"), func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars = append(p.Spec.Template.Sidecars, v1alpha1.Sidecar{Container: corev1.Container{Name: "exporter", Image: "exporter:v1"}})
		})
		rs := w.newSettledDeployment("web0", 1)
		w.newPod("web0-0", ownedBy(rs))
		w.kubelet.sync(w.pods())
		w.settle()
		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Template.Sidecars = p.Spec.Template.Sidecars[:1] })
		w.settle()
		Expect(w.podWrites()).To(BeEmpty())
		Expect(w.condition(v1alpha1.ConditionReady).Message).To(ContainSubstring("1 of them still carry containers"))
		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.OnRemoval = v1alpha1.RemovalRecreate })
		w.settle()
		Expect(w.podWrites()).To(Equal([]string{"create-eviction Pod web0-0"}))
	})
})

// newSettledDeployment is a Deployment with one ReplicaSet, both with all the pods that they want.
func (w *world) newSettledDeployment(name string, replicas int32) *appsv1.ReplicaSet {
	GinkgoHelper()
	rs := w.newReplicaSet(name)
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.name, Name: name, Annotations: map[string]string{"deployment.kubernetes.io/revision": "1"}},
		Spec:       appsv1.DeploymentSpec{Replicas: &replicas, Selector: rs.Spec.Selector, Template: rs.Spec.Template},
	}
	Expect(server.Client.Create(ctx, d)).To(Succeed())
	d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: replicas, UpdatedReplicas: replicas}
	Expect(server.Client.Status().Update(ctx, d)).To(Succeed())
	rs.Annotations = d.Annotations
	rs.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: name, UID: d.UID, Controller: ptr.To(true)}}
	rs.Spec.Replicas = &replicas
	Expect(server.Client.Update(ctx, rs)).To(Succeed())
	rs.Status = appsv1.ReplicaSetStatus{Replicas: replicas, ObservedGeneration: rs.Generation}
	Expect(server.Client.Status().Update(ctx, rs)).To(Succeed())
	return rs
}
