package controllers_test

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

var _ = Describe("A deleted policy", func() {
	recreate := func(p *v1alpha1.SidecarPolicy) { p.Spec.OnRemoval = v1alpha1.RemovalRecreate }

	// newCarrying creates pods of a Deployment at rest that carry the sidecars.
	newCarrying := func(w *world, pods int) {
		GinkgoHelper()
		rs := w.newSettledDeployment("web0", int32(pods))
		for i := range pods {
			w.newPod(fmt.Sprintf("web0-%d", i), ownedBy(rs))
		}
		w.kubelet.sync(w.pods())
		w.settle()
		w.kubelet.sync(w.pods())
		w.settle()
		w.forgetWrites()
		w.allEvents()
	}
	gone := func(w *world) bool {
		GinkgoHelper()
		err := server.Client.Get(ctx, client.ObjectKey{Name: w.name}, &v1alpha1.SidecarPolicy{})
		Expect(client.IgnoreNotFound(err)).To(Succeed())
		return err != nil
	}
	remove := func(w *world) {
		GinkgoHelper()
		Expect(server.Client.Delete(ctx, w.policy())).To(Succeed())
	}

	It("has no finalizer by default: it goes at once, its registration too, and an event says how many pods still carry its sidecars", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		newCarrying(w, 2)
		Expect(w.policy().Finalizers).To(BeEmpty())
		Expect(w.registration().OwnerReferences).To(ConsistOf(HaveField("UID", w.policy().UID)), "where no operator is left, the garbage collector removes it")
		remove(w)
		Expect(gone(w)).To(BeTrue())
		w.pass()
		Expect(w.registration()).To(BeNil())
		Expect(w.podWrites()).To(BeEmpty())
		Expect(w.allEvents()).To(ConsistOf(And(HavePrefix("Normal SidecarsKept"), ContainSubstring("2 pods still carry its sidecars"))))
		w.pass()
		Expect(w.allEvents()).To(BeEmpty(), "it is said once")
	})

	It("leaves no pod out of its endpoints, also where no operator was there when it went", func() {
		w := newReadyWorld(budgets("100%", "100%"), func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Drain.Seconds = 60 })
		newCarrying(w, 1)
		w.setImage("agent:v2")
		w.settle()
		Expect(hasCondition(w.pod("web0-0"), v1alpha1.DrainCondition(w.name))).To(BeFalse(), "it is drained for its upgrade")
		remove(w)
		w.restartOperator()
		w.pass()
		Expect(hasCondition(w.pod("web0-0"), v1alpha1.DrainCondition(w.name))).To(BeTrue())
	})

	It("with onRemoval Recreate stops injection first, then evicts the pods within the budgets, and goes with the last of them", func() {
		w := newReadyWorld(budgets("100%", "1"), recreate)
		newCarrying(w, 2)
		Expect(w.policy().Finalizers).To(ConsistOf(v1alpha1.UnplugFinalizer))
		home := &corev1.Namespace{}
		Expect(server.Client.Get(ctx, client.ObjectKey{Name: operatorNamespace}, home)).To(Succeed())
		Expect(w.registration().OwnerReferences).To(ConsistOf(HaveField("UID", home.UID)), "the policy may stay when the operator is gone")

		remove(w)
		w.pass()
		Expect(w.registration()).To(BeNil())
		Expect(w.podWrites()).To(BeEmpty(), "the API server may still call for new pods")
		Expect(w.status().Phase).To(Equal(v1alpha1.PhaseUnplugging))
		w.restartOperator()
		w.pass()
		w.setReplicas("web0", 1)
		w.settle()
		Expect(w.podWrites()).To(Equal([]string{"create-eviction Pod web0-0"}))
		Expect(w.condition(v1alpha1.ConditionProgressing)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonUnplugging))
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonUnplugging))
		Expect(w.registration()).To(BeNil(), "it is not made anew")

		By("the new pod, which is not ready yet, and then is")
		rs := w.replicaSet("web0")
		Expect(server.Client.Create(ctx, w.plainPod("web0-2", ownedBy(rs)))).To(Succeed())
		w.setReplicas("web0", 2)
		w.settle()
		Expect(w.podWrites()).To(HaveLen(1))
		w.kubelet.sync(w.pods())
		w.pass()
		Expect(w.podWrites()).To(Equal([]string{"create-eviction Pod web0-0", "create-eviction Pod web0-1"}))
		w.pass()
		Expect(gone(w)).To(BeTrue())
		Expect(w.allEvents()).To(ContainElement(HavePrefix("Normal Unplugged")))
		w.pass()
		Expect(w.allEvents()).To(BeEmpty())
	})

	It("that is stuck says why, and can be given up", func() {
		w := newReadyWorld(budgets("100%", "100%"), recreate)
		newCarrying(w, 1)
		w.newPod("bare")
		pdb := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: w.name, Name: "strict"}, Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{},
		}}
		Expect(server.Client.Create(ctx, pdb)).To(Succeed())
		w.kubelet.sync(w.pods())
		w.settle()
		w.allEvents()
		remove(w)
		w.settle()
		degraded := w.condition(v1alpha1.ConditionDegraded)
		Expect(degraded).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonUnplugStuck))
		Expect(degraded.Message).To(And(ContainSubstring("2 pods are to lose the sidecars"), ContainSubstring(`-p '{"spec":{"onRemoval":"Keep"}}'`),
			Or(ContainSubstring("PodDisruptionBudget "+w.name+"/strict"), ContainSubstring("nobody makes pod "+w.name+"/bare anew"))))
		Expect(w.allEvents()).To(ContainElement(HavePrefix("Warning UnplugStuck")))
		Expect(gone(w)).To(BeFalse())

		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.OnRemoval = v1alpha1.RemovalKeep })
		w.pass()
		Expect(gone(w)).To(BeTrue())
		Expect(w.podWrites()).To(BeEmpty())
		w.pass()
		Expect(w.allEvents()).To(ContainElement(And(HavePrefix("Normal SidecarsKept"), ContainSubstring("2 pods"))))
	})

	It("has lost its finalizer before, where onRemoval became Keep", func() {
		w := newReadyWorld(recreate)
		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.OnRemoval = v1alpha1.RemovalKeep })
		w.settle()
		Expect(w.policy().Finalizers).To(BeEmpty())
		Expect(w.registration().OwnerReferences).To(ConsistOf(HaveField("UID", w.policy().UID)))
	})
})

var _ = Describe("Pods that are not selected any more", func() {
	deselect := func(w *world, name string) {
		GinkgoHelper()
		pod := w.pod(name)
		delete(pod.Labels, "fleet")
		Expect(server.Client.Update(ctx, pod)).To(Succeed())
	}

	It("are counted apart, and keep the sidecars by default", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		w.newFleet(1, 2)
		deselect(w, "web0-0")
		w.settle()
		Expect(w.status().Pods).To(HaveValue(And(HaveField("Deselected", BeEquivalentTo(1)), HaveField("Selected", BeEquivalentTo(1)),
			HaveField("Injected", BeEquivalentTo(1)), HaveField("Updated", BeEquivalentTo(1)))))
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete))
		Expect(w.condition(v1alpha1.ConditionReady).Message).To(ContainSubstring("1 pods that are not selected any more carry the sidecars"))
		Expect(w.podWrites()).To(BeEmpty())
		w.setImage("agent:v2")
		w.rollOut(func() {})
		Expect(w.patches()).To(Equal([]string{"web0-1"}))
	})

	It("lose them by eviction with onRemoval Recreate, and their new pods count for the budgets", func() {
		w := newReadyWorld(budgets("1", "1"), func(p *v1alpha1.SidecarPolicy) {
			p.Spec.OnRemoval = v1alpha1.RemovalRecreate
			p.Spec.Selector.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"world": p.Name}}
		})
		rs := w.newSettledDeployment("web0", 2)
		for i := range 2 {
			w.newPod(fmt.Sprintf("web0-%d", i), ownedBy(rs))
		}
		w.kubelet.sync(w.pods())
		w.settle()
		w.forgetWrites()

		By("another label of the namespace")
		namespace := &corev1.Namespace{}
		Expect(server.Client.Get(ctx, client.ObjectKey{Name: w.name}, namespace)).To(Succeed())
		namespace.Labels["world"] = "another"
		Expect(server.Client.Update(ctx, namespace)).To(Succeed())
		w.pass()
		Expect(w.status().Unplugging).To(ConsistOf("Deployment/" + w.name + "/web0"))
		Expect(w.podWrites()).To(BeEmpty())
		w.restartOperator()
		w.pass()
		w.setReplicas("web0", 1)
		w.settle()
		Expect(w.podWrites()).To(Equal([]string{"create-eviction Pod web0-0"}))
		Expect(server.Client.Create(ctx, w.plainPod("web0-2", ownedBy(rs)))).To(Succeed())
		w.setReplicas("web0", 2)
		w.settle()
		Expect(w.podWrites()).To(HaveLen(1), "the new pod is not ready")
		w.kubelet.sync(w.pods())
		w.pass()
		w.setReplicas("web0", 1)
		w.settle()
		Expect(w.podWrites()).To(HaveLen(2))
		Expect(server.Client.Create(ctx, w.plainPod("web0-3", ownedBy(rs)))).To(Succeed())
		w.setReplicas("web0", 2)
		w.settle()
		Expect(w.status().Unplugging).To(HaveLen(1))
		w.kubelet.sync(w.pods())
		w.settle()
		Expect(w.status().Unplugging).To(BeEmpty())
		Expect(w.status().Pods.Deselected).To(BeZero())
	})
})
