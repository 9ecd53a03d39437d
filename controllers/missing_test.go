package controllers_test

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

var _ = Describe("Missed pods", func() {
	recreate := func(p *v1alpha1.SidecarPolicy) { p.Spec.Missing = v1alpha1.MissingRecreate }

	// newBare creates pods of a Deployment at rest that nobody injected.
	newBare := func(w *world, deployment string, pods int) {
		GinkgoHelper()
		rs := w.newSettledDeployment(deployment, int32(pods))
		for i := range pods {
			Expect(server.Client.Create(ctx, w.plainPod(fmt.Sprintf("%s-%d", deployment, i), ownedBy(rs)))).To(Succeed())
		}
		w.kubelet.sync(w.pods())
	}

	// newer creates a pod in the place of one that was evicted. The API server tells by the second when.
	newer := func(w *world, deployment string, injected bool) {
		GinkgoHelper()
		rs := w.replicaSet(deployment)
		Eventually(func() error {
			pod := w.plainPod(deployment+"-anew", ownedBy(rs))
			if injected {
				w.inject(pod)
			}
			Expect(server.Client.Create(ctx, pod)).To(Succeed())
			if pod.CreationTimestamp.After(w.status().Replacements[0].NewestPodTime.Time) {
				return nil
			}
			Expect(server.Client.Delete(ctx, pod, deleteNow)).To(Succeed())
			return fmt.Errorf("pod %s is as old as the one that was evicted", pod.Name)
		}).WithPolling(200 * time.Millisecond).WithTimeout(10 * time.Second).Should(Succeed())
	}

	It("are counted and reported to their workload, and left alone by default", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		newBare(w, "web0", 2)
		w.settle()
		Expect(w.status().Pods.Missing).To(BeEquivalentTo(2))
		Expect(w.status().Unhealthy).To(ConsistOf(And(HaveField("Workload", "Deployment/"+w.name+"/web0"),
			HaveField("Pods", BeEquivalentTo(2)), HaveField("Reason", v1alpha1.ReasonMissing), HaveField("Message", ContainSubstring("pod web0-0: created without the sidecars")))))
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete))
		Expect(w.condition(v1alpha1.ConditionReady).Message).To(ContainSubstring("2 selected pods don't have the sidecars"))
		Expect(w.podWrites()).To(BeEmpty())
		Expect(w.allEvents()).To(ContainElement(And(HavePrefix("Warning Missing"), ContainSubstring("2 pods don't have its sidecars"))))
		w.settle()
		Expect(w.allEvents()).To(BeEmpty(), "it is said once")
	})

	It("are replaced by eviction, one of a workload first, by a manager that may start anew at any time", func() {
		w := newReadyWorld(budgets("100%", "100%"), recreate)
		newBare(w, "web0", 3)
		w.pass()
		Expect(w.status().Replacements).To(ConsistOf(HaveField("PodUID", string(w.pod("web0-0").UID))), "what is tried is stored first")
		Expect(w.podWrites()).To(BeEmpty())
		w.restartOperator()
		w.settle()
		Expect(w.podWrites()).To(Equal([]string{"create-eviction Pod web0-0"}))
		Expect(w.allEvents()).To(ContainElement(HavePrefix("Normal Replacing")))

		By("the one that comes in its place")
		w.restartOperator()
		w.clock.Step(2 * time.Second)
		w.settle()
		Expect(w.podWrites()).To(HaveLen(1), "the others wait for it")
		newer(w, "web0", true)
		w.kubelet.sync(w.pods())
		w.settle()
		Expect(w.podWrites()).To(ConsistOf("create-eviction Pod web0-0", "create-eviction Pod web0-1", "create-eviction Pod web0-2"))
		w.kubelet.sync(w.pods())
		w.settle()
		Expect(w.status().Pods.Missing).To(BeZero())
		Expect(w.status().Replacements).To(BeEmpty())
	})

	It("are not evicted where a dry run shows that a new pod would lack the sidecars too", func() {
		w := newReadyWorld(budgets("100%", "100%"), recreate)
		w.deaf = true
		newBare(w, "web0", 1)
		w.settle()
		w.clock.Step(time.Second) // nothing tells the operator of a dry run's answer
		w.settle()
		Expect(w.podWrites()).To(BeEmpty())
		Expect(w.status().Unhealthy).To(ContainElement(And(HaveField("Reason", v1alpha1.ReasonUpdateRefused),
			HaveField("Message", ContainSubstring("would not get the sidecars either")))))
		Expect(w.condition(v1alpha1.ConditionReady).Message).To(ContainSubstring("would not get the sidecars either"))
		w.deaf = false
		w.clock.Step(time.Minute)
		w.settle()
		Expect(w.podWrites()).To(Equal([]string{"create-eviction Pod web0-0"}))
	})

	It("are not replaced where too many are missing, until a person says so", func() {
		w := newReadyWorld(budgets("100%", "100%"), recreate)
		newBare(w, "web0", 4)
		w.settle()
		Expect(w.podWrites()).To(BeEmpty())
		degraded := w.condition(v1alpha1.ConditionDegraded)
		Expect(degraded).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonTooManyMissing))
		Expect(degraded.Message).To(And(ContainSubstring("4 of 4 selected pods lack the sidecars"), ContainSubstring("write maxMissing: 100%")))
		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.MaxMissing = ptr.To(intstr.FromString("100%")) })
		w.settle()
		Expect(w.podWrites()).To(HaveLen(1))
		Expect(w.condition(v1alpha1.ConditionDegraded)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonHealthy))
	})

	It("that come back without the sidecars rest for ever longer, also for a manager that starts anew", func() {
		w := newReadyWorld(budgets("100%", "100%"), recreate)
		newBare(w, "web0", 1)
		w.settle()
		Expect(w.podWrites()).To(HaveLen(1))
		newer(w, "web0", false)
		w.kubelet.sync(w.pods())
		w.forgetWrites()
		w.settle()
		Expect(w.status().Replacements).To(ConsistOf(HaveField("Failures", BeEquivalentTo(1))))
		degraded := w.condition(v1alpha1.ConditionDegraded)
		Expect(degraded).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonReplacedInVain))
		Expect(degraded.Message).To(And(ContainSubstring("Deployment/"+w.name+"/web0"), ContainSubstring("see whether the API server reaches the webhook")))
		Expect(w.podWrites()).To(BeEmpty())

		result := w.pass()
		Expect(result.RequeueAfter).To(And(BeNumerically(">", 0), BeNumerically("<=", time.Minute)))
		w.restartOperator()
		w.clock.Step(59 * time.Second)
		w.settle()
		Expect(w.podWrites()).To(BeEmpty())
		w.clock.Step(time.Second)
		w.settle()
		Expect(w.podWrites()).To(HaveLen(1))
	})

	It("of which the owner wrote a native sidecar of the same name himself are a conflict, and stay", func() {
		w := newReadyWorld(budgets("100%", "100%"), recreate)
		rs := w.newSettledDeployment("web0", 1)
		Expect(server.Client.Create(ctx, w.plainPod("web0-0", ownedBy(rs), func(pod *corev1.Pod) {
			pod.Spec.InitContainers = []corev1.Container{{Name: agent, Image: "own", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}}
		}))).To(Succeed())
		w.kubelet.sync(w.pods())
		w.settle()
		Expect(w.status().Unhealthy).To(ConsistOf(HaveField("Reason", v1alpha1.ReasonContainerNameConflict)))
		Expect(w.podWrites()).To(BeEmpty())
	})

	It("stay while injection is paused, and bare pods always", func() {
		w := newReadyWorld(budgets("100%", "100%"), recreate)
		Expect(server.Client.Create(ctx, w.plainPod("bare"))).To(Succeed())
		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Injection.Paused = true })
		newBare(w, "web0", 1)
		w.settle()
		Expect(w.status().Pods.Missing).To(BeEquivalentTo(2))
		Expect(w.podWrites()).To(BeEmpty())
		Expect(w.condition(v1alpha1.ConditionReady).Message).To(ContainSubstring("new pods don't get the sidecars now"))
		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Injection.Paused = false })
		w.settle()
		Expect(w.podWrites()).To(Equal([]string{"create-eviction Pod web0-0"}))
	})
})
