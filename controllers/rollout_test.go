package controllers_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// unsettled are the pods that the operator has patched and the kubelet has not made good
// for minReadySeconds, by Deployment: what a budget is about, judged without the operator.
func (w *world) unsettled() map[string]int {
	GinkgoHelper()
	down := map[string]int{}
	for _, pod := range w.pods() {
		record, err := v1alpha1.ParseUpgradeRecord(pod.Annotations, w.name)
		Expect(err).NotTo(HaveOccurred())
		if record == nil {
			continue
		}
		started := container(&pod, agent).State.Running
		if container(&pod, agent).ContainerID == record.Before[agent] || started == nil || w.clock.Since(started.StartedAt.Time) < 10*time.Second {
			down[strings.Split(pod.Name, "-")[0]]++
		}
	}
	return down
}

// apps are the containers of the app as they run, by pod.
func (w *world) apps() map[string]corev1.ContainerStatus {
	GinkgoHelper()
	apps := map[string]corev1.ContainerStatus{}
	for _, pod := range w.pods() {
		apps[pod.Name] = container(&pod, "app")
	}
	return apps
}

func (w *world) podNames() []string {
	GinkgoHelper()
	var names []string
	for _, pod := range w.pods() {
		names = append(names, pod.Name)
	}
	slices.Sort(names)
	return names
}

var _ = Describe("A new image", func() {
	It("reaches every pod by one PATCH each, within the budgets, and touches no app", func() {
		w := newReadyWorld(budgets("50%", "25%"))
		w.newFleet(3, 4) // 12 pods: 6 of the fleet, 1 of each Deployment
		apps, stable := w.apps(), w.status().StableRevision

		w.setImage("agent:v2")
		w.rollOut(func() {
			down, total := w.unsettled(), 0
			for deployment, count := range down {
				Expect(count).To(BeNumerically("<=", 1), "unavailable pods of Deployment %s", deployment)
				total += count
			}
			Expect(total).To(BeNumerically("<=", 6))
			s := w.status()
			Expect(s.ObservedGeneration).To(Equal(w.policy().Generation))
			Expect(s.Pods.Updated).To(BeNumerically("<=", 12-total), "more are said to be updated than run the image")
			if s.Pods.Updated < 12 {
				Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonRollingOut))
				Expect(w.condition(v1alpha1.ConditionProgressing)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonRollingOut))
				Expect(s.StableRevision).To(Equal(stable))
				Expect(s.Phase).To(Equal(v1alpha1.PhaseProgressing))
			}
		})

		Expect(w.patches()).To(Equal(w.podNames()), "exactly one PATCH a pod")
		Expect(w.images()).To(HaveEach("agent:v2"))
		Expect(w.apps()).To(Equal(apps), "the app's containers")
		s := w.status()
		Expect(s.Pods).To(HaveValue(Equal(v1alpha1.PodCounts{Selected: 12, Injected: 12, Updated: 12, Ready: 12})))
		Expect(s.StableRevision).To(And(Equal(s.TargetRevision), Not(Equal(stable))))
		Expect(s.Phase).To(Equal(v1alpha1.PhaseComplete))
		Expect(w.condition(v1alpha1.ConditionProgressing)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonComplete))
		Expect(w.condition(v1alpha1.ConditionDegraded)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonHealthy))
		for _, pod := range w.pods() {
			Expect(pod.Labels).To(HaveKeyWithValue(v1alpha1.RevisionLabel(w.name), s.TargetRevision))
		}
		Expect(w.allEvents()).To(ContainElement(ContainSubstring("RolloutComplete revision " + s.TargetRevision)))
	})

	It("changes sidecars of mode Container too", func() {
		w := newReadyWorld(budgets("100%", "100%"), func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].Mode = v1alpha1.ModeContainer
		})
		w.newFleet(1, 2)
		apps := w.apps()
		w.setImage("agent:v2")
		w.rollOut(func() {})
		Expect(w.patches()).To(Equal(w.podNames()))
		Expect(w.images()).To(HaveEach("agent:v2"))
		Expect(w.apps()).To(Equal(apps))
	})

	It("is not started twice by an operator that starts anew in the middle", func() {
		w := newReadyWorld(budgets("2", "2"))
		w.newFleet(1, 5)
		w.setImage("agent:v2")
		w.settle()
		Expect(w.patches()).To(HaveLen(2))
		for range 3 {
			w.restartOperator()
			w.settle()
			w.kubelet.sync(w.pods())
		}
		Expect(w.patches()).To(HaveLen(2), "the budget holds over a restart")
		w.rollOut(func() {})
		Expect(w.patches()).To(Equal(w.podNames()))
	})

	It("does not blame the version for a node that goes away in the middle, and goes on when it is back", func() {
		w := newReadyWorld(budgets("1", "100%"))
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: w.name}}
		Expect(server.Client.Create(ctx, node)).To(Succeed())
		DeferCleanup(func() { Expect(server.Client.Delete(ctx, node)).To(Succeed()) })
		says := func(ready corev1.ConditionStatus) {
			node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready, LastTransitionTime: metav1.NewTime(w.clock.Now())}}
			Expect(server.Client.Status().Update(ctx, node)).To(Succeed())
		}
		says(corev1.ConditionTrue)
		owner := w.newReplicaSet("web0")
		for i := range 2 {
			w.newPod(fmt.Sprintf("web0-%d", i), ownedBy(owner), func(p *corev1.Pod) { p.Spec.NodeName = node.Name })
		}
		w.kubelet.sync(w.pods())
		w.settle()
		w.forgetWrites()

		w.setImage("agent:v2")
		w.settle()
		Expect(w.patches()).To(HaveLen(1))
		says(corev1.ConditionUnknown)
		w.clock.Step(301 * time.Second)
		w.settle()
		Expect(w.patches()).To(HaveLen(1), "nobody would act on another")
		Expect(w.status().FailedRevision).To(BeEmpty())
		Expect(w.condition(v1alpha1.ConditionProgressing).Message).To(ContainSubstring("waits for 1 pods that were moved and are on nodes that are not ready"))

		says(corev1.ConditionTrue)
		w.rollOut(func() {})
		Expect(w.patches()).To(Equal(w.podNames()))
	})

	It("waits for a pod that is down already, and upgrades that one first", func() {
		w := newReadyWorld(budgets("1", "100%"))
		w.newFleet(1, 3)
		down := w.pod("web0-2")
		setCondition(down, corev1.PodReady, corev1.ConditionFalse, metav1.NewTime(w.clock.Now()))
		Expect(server.Client.Status().Update(ctx, down)).To(Succeed())

		w.setImage("agent:v2")
		w.settle()
		Expect(w.patches()).To(ConsistOf("web0-2"), "the one that is down takes the whole budget")
		Expect(w.condition(v1alpha1.ConditionProgressing).Message).To(ContainSubstring("the budget allows 1"))
	})

	It("obeys a PodDisruptionBudget, whose controller can't see restarts in place", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		w.newFleet(1, 4)
		pdb := &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.name, Name: "web"},
			Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(4)), Selector: &metav1.LabelSelector{}},
		}
		Expect(server.Client.Create(ctx, pdb)).To(Succeed())
		w.setImage("agent:v2")
		w.settle()
		Expect(w.patches()).To(BeEmpty(), "it was not looked at by its controller yet")
		Expect(w.condition(v1alpha1.ConditionProgressing).Message).To(ContainSubstring("PodDisruptionBudget " + w.name + "/web allows no disruption now"))

		pdb.Spec.MinAvailable = ptr.To(intstr.FromInt32(3))
		Expect(server.Client.Update(ctx, pdb)).To(Succeed())
		pdb.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: pdb.Generation, DisruptionsAllowed: 1, CurrentHealthy: 4, DesiredHealthy: 3, ExpectedPods: 4}
		Expect(server.Client.Status().Update(ctx, pdb)).To(Succeed())
		w.settle()
		Expect(w.patches()).To(HaveLen(1))
		w.rollOut(func() {
			total := 0
			for _, count := range w.unsettled() {
				total += count
			}
			Expect(total).To(BeNumerically("<=", 1))
		})
		Expect(w.patches()).To(Equal(w.podNames()))
	})

	It("does not reach a pod while another policy upgrades it", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		w.newFleet(1, 2)
		other := newWorld(budgets("100%", "100%"), func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Selector.PodSelector.MatchLabels["fleet"] = w.name
			p.Spec.Template.Sidecars[0].Name = "other"
			p.Spec.Template.Sidecars[0].Image = "other:v1"
		})
		other.settle()
		pod := w.pod("web0-0")
		pod.Labels[v1alpha1.RevisionLabel(other.name)] = other.status().TargetRevision
		pod.Annotations[v1alpha1.UpgradeAnnotation(other.name)] = v1alpha1.UpgradeRecord{
			Revision: other.status().TargetRevision, At: metav1.NewTime(w.clock.Now()), Before: map[string]string{"app": container(pod, "app").ContainerID},
		}.Encode()
		Expect(server.Client.Update(ctx, pod)).To(Succeed())
		w.kubelet.sync(w.pods())

		w.setImage("agent:v2")
		w.settle()
		Expect(w.patches()).To(ConsistOf("web0-1"))
	})
})

var _ = Describe("A bad image", func() {
	It("stops the roll-out within the deadline, keeps away from new pods, and is taken back", func() {
		w := newReadyWorld(budgets("50%", "25%"), onFailure(v1alpha1.FailurePause))
		w.newFleet(1, 4)
		good, apps := w.status().StableRevision, w.apps()

		w.setImage("agent:bad")
		w.settle()
		Expect(w.patches()).To(HaveLen(1))
		harmed := w.patches()[0]
		w.kubelet.sync(w.pods())
		w.settle()
		Expect(w.status().FailedRevision).To(BeEmpty())
		Expect(w.pass().RequeueAfter).To(And(BeNumerically(">", 0), BeNumerically("<=", 300*time.Second)), "nothing but time tells that it failed")

		w.clock.Step(299 * time.Second)
		w.settle()
		Expect(w.condition(v1alpha1.ConditionDegraded)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonHealthy))
		w.clock.Step(2 * time.Second)
		w.settle()
		Expect(w.condition(v1alpha1.ConditionDegraded)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonUpgradeFailed))
		Expect(w.condition(v1alpha1.ConditionProgressing)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonUpgradeFailed))
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonUpgradeFailed))
		s := w.status()
		Expect(s.FailedRevision).To(Equal(s.TargetRevision))
		Expect(s.StableRevision).To(Equal(good))
		Expect(s.Pods.Failed).To(BeEquivalentTo(1))
		Expect(s.Unhealthy).To(HaveExactElements(And(
			HaveField("Workload", "Deployment/"+w.name+"/web0"), HaveField("Pods", BeEquivalentTo(1)),
			HaveField("Reason", v1alpha1.ReasonDeadlineExceeded), HaveField("Message", ContainSubstring(harmed)))))
		Expect(w.allEvents()).To(ContainElement(HavePrefix("Warning UpgradeFailed")))

		By("going no further, however long it takes, and giving new pods the stable revision")
		for range 5 {
			w.clock.Step(10 * time.Minute)
			w.kubelet.sync(w.pods())
			w.settle()
		}
		Expect(w.patches()).To(ConsistOf(harmed))
		Expect(rollout.RevisionFor(w.policy(), rollout.Place{})).To(Equal(good))
		w.newPod("web0-new")
		Expect(w.images()).To(HaveKeyWithValue("web0-new", "agent:v1"))

		By("writing the previous image")
		w.setImage("agent:v1")
		w.rollOut(func() {})
		Expect(w.patches()).To(Equal([]string{harmed, harmed}), "the others never left the stable revision")
		Expect(w.images()).To(HaveEach("agent:v1"))
		Expect(w.status().TargetRevision).To(Equal(good))
		Expect(w.status().FailedRevision).To(BeEmpty())
		Expect(w.condition(v1alpha1.ConditionDegraded)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonHealthy))
		delete(apps, "web0-new")
		for pod, app := range apps {
			Expect(w.apps()).To(HaveKeyWithValue(pod, app))
		}
	})

	It("is rolled back by itself, remembered, and tried again only when somebody asks", func() {
		w := newReadyWorld(budgets("50%", "25%"))
		w.newFleet(1, 4)
		good, apps := w.status().StableRevision, w.apps()
		w.setImage("agent:bad")
		w.settle()
		harmed := w.patches()[0]
		w.kubelet.sync(w.pods())
		w.clock.Step(301 * time.Second)
		w.settle()
		Expect(w.status().Phase).To(Equal(v1alpha1.PhaseRollingBack))
		Expect(w.images()).To(HaveEach("agent:v1"))
		for range 3 {
			w.kubelet.sync(w.pods())
			w.clock.Step(time.Minute)
			w.settle()
		}
		s := w.status()
		Expect(s.Phase).To(Equal(v1alpha1.PhaseRolledBack))
		Expect(s.StableRevision).To(Equal(good))
		Expect(s.FailedRevision).To(Equal(s.TargetRevision))
		Expect(s.FailureMessage).To(ContainSubstring(harmed))
		Expect(w.condition(v1alpha1.ConditionDegraded)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonUpgradeFailed))
		Expect(w.condition(v1alpha1.ConditionProgressing)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonRolledBack))
		Expect(w.patches()).To(Equal([]string{harmed, harmed}))
		Expect(w.policy().Spec.Template.Sidecars[0].Image).To(Equal("agent:bad"), "the spec is left as its author wrote it")
		Expect(rollout.RevisionFor(w.policy(), rollout.Place{})).To(Equal(good))
		Expect(w.apps()).To(Equal(apps))

		By("asking for a retry, which is acted on once")
		w.kubelet.mended = true
		w.annotate(v1alpha1.RetryAnnotation, s.FailedRevision)
		w.rollOut(func() {})
		Expect(w.images()).To(HaveEach("agent:bad"))
		Expect(w.status().HandledRetry).To(Equal(s.FailedRevision))
	})

	It("can be answered by a newer one", func() {
		w := newReadyWorld(budgets("1", "1"), onFailure(v1alpha1.FailurePause))
		w.newFleet(1, 3)
		w.setImage("agent:bad")
		w.settle()
		w.kubelet.sync(w.pods())
		w.clock.Step(301 * time.Second)
		w.settle()
		Expect(w.condition(v1alpha1.ConditionDegraded)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonUpgradeFailed))
		w.setImage("agent:v3")
		w.rollOut(func() {})
		Expect(w.images()).To(HaveEach("agent:v3"))
	})
})

var _ = Describe("An image that somebody changed by hand", func() {
	It("is reported and put right", func() {
		w := newReadyWorld()
		w.newFleet(1, 1)
		pod := w.pod("web0-0")
		pod.Spec.InitContainers[0].Image = "agent:mine"
		Expect(server.Client.Update(ctx, pod)).To(Succeed())
		w.kubelet.sync(w.pods())
		w.pass()
		Expect(w.status().Pods.Drifted).To(BeEquivalentTo(1))
		Expect(w.condition(v1alpha1.ConditionReady).Status).To(Equal(metav1.ConditionFalse))
		Expect(w.patches()).To(ConsistOf("web0-0"))
		w.rollOut(func() {})
		Expect(w.images()).To(HaveEach("agent:v1"))
		Expect(w.status().Pods.Drifted).To(BeZero())
	})
})

var _ = Describe("A template change that a running pod can't take", func() {
	It("makes pods stale, touches none, and does not block a later image", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		w.newFleet(1, 2)
		born := w.status().StableRevision
		w.edit(func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].Env = []corev1.EnvVar{{Name: "LEVEL", Value: "debug"}}
		})
		w.settle()
		Expect(w.patches()).To(BeEmpty())
		Expect(w.status().Pods.Stale).To(BeEquivalentTo(2))
		Expect(w.status().Pods.Updated).To(BeZero())
		ready := w.condition(v1alpha1.ConditionReady)
		Expect(ready).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonStalePods))
		Expect(ready.Message).To(ContainSubstring("kubectl rollout restart"))
		Expect(w.status().Unhealthy).To(HaveExactElements(And(HaveField("Reason", v1alpha1.ReasonStale), HaveField("Message", ContainSubstring("sidecars[agent].env")))))

		By("changing the image too")
		w.setImage("agent:v2")
		for range 10 {
			w.pass()
			w.kubelet.sync(w.pods())
			w.clock.Step(6 * time.Second)
		}
		w.settle()
		Expect(w.patches()).To(Equal(w.podNames()))
		Expect(w.images()).To(HaveEach("agent:v2"))
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonStalePods))
		for _, pod := range w.pods() {
			Expect(pod.Labels).To(HaveKeyWithValue(v1alpha1.RevisionLabel(w.name), born), "it still lacks the target's env")
		}

		By("recreating the pods")
		for _, name := range w.podNames() {
			Expect(server.Client.Delete(ctx, w.pod(name), deleteNow)).To(Succeed())
			w.newPod(name + "-anew")
		}
		w.kubelet.sync(w.pods())
		w.settle()
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete))
	})
})

var _ = Describe("Pods without the sidecars", func() {
	It("are counted as missing, with the clash where there is one, and don't hold up Ready", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		Expect(server.Client.Create(ctx, w.plainPod("older"))).To(Succeed())
		Expect(server.Client.Create(ctx, w.plainPod("clash", func(pod *corev1.Pod) { pod.Spec.Containers[0].Name = agent }))).To(Succeed())
		w.kubelet.sync(w.pods())
		w.settle()
		Expect(w.status().Pods).To(HaveValue(And(
			HaveField("Selected", BeEquivalentTo(2)), HaveField("Missing", BeEquivalentTo(2)),
			HaveField("Conflicting", BeEquivalentTo(1)), HaveField("Injected", BeZero()))))
		Expect(w.condition(v1alpha1.ConditionDegraded)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonConflict))
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete))
		Expect(w.status().Unhealthy).To(HaveExactElements(
			And(HaveField("Workload", "Pod/"+w.name+"/clash"), HaveField("Reason", v1alpha1.ReasonContainerNameConflict)),
			And(HaveField("Workload", "Pod/"+w.name+"/older"), HaveField("Reason", v1alpha1.ReasonMissing))))
		w.setImage("app:v2")
		w.settle()
		Expect(w.patches()).To(BeEmpty(), "a container of the sidecar's name is the app's")
	})

	It("are not of the fleet when they have finished or are mirror pods", func() {
		w := newReadyWorld()
		Expect(server.Client.Create(ctx, w.plainPod("done"))).To(Succeed())
		Expect(server.Client.Create(ctx, w.plainPod("running"))).To(Succeed())
		w.kubelet.sync(w.pods())
		done := w.pod("done")
		done.Status.Phase = corev1.PodSucceeded
		Expect(server.Client.Status().Update(ctx, done)).To(Succeed())
		w.settle()
		Expect(w.status().Pods.Selected).To(BeEquivalentTo(1))
	})

	It("are never those of kube-system and the operator's namespace", func() {
		w := newReadyWorld(func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Selector.NamespaceSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpExists}}}
		})
		for _, namespace := range []string{"kube-system", operatorNamespace, w.name} {
			pod := w.plainPod(w.name)
			pod.Namespace = namespace
			Expect(server.Client.Create(ctx, pod)).To(Succeed())
			DeferCleanup(func() { Expect(server.Client.Delete(ctx, pod, deleteNow)).To(Succeed()) })
		}
		w.settle()
		Expect(w.status().Pods.Selected).To(BeEquivalentTo(1))
	})
})

var _ = Describe("A roll-out that is told to wait", func() {
	It("by the method OnDelete touches no pod, and is complete when all were recreated", func() {
		w := newReadyWorld(func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Method = v1alpha1.MethodOnDelete })
		w.newFleet(1, 2)
		w.setImage("agent:v2")
		w.settle()
		Expect(w.condition(v1alpha1.ConditionProgressing)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonOnDelete))
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonOnDelete))
		Expect(w.status().Phase).To(Equal(v1alpha1.PhasePaused))
		for i, name := range w.podNames() {
			Expect(w.status().Pods.Updated).To(BeEquivalentTo(i))
			Expect(server.Client.Delete(ctx, w.pod(name), deleteNow)).To(Succeed())
			w.newPod(fmt.Sprintf("anew-%d", i))
			w.kubelet.sync(w.pods())
			w.settle()
		}
		Expect(w.images()).To(HaveEach("agent:v2"))
		Expect(w.patches()).To(BeEmpty())
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete))
	})

	It("by paused stops where it is, gives new pods the stable revision, and goes on later", func() {
		w := newReadyWorld(budgets("1", "1"))
		w.newFleet(1, 3)
		stable := w.status().StableRevision
		w.setImage("agent:v2")
		w.settle()
		Expect(w.patches()).To(HaveLen(1))
		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Paused = true })
		for range 5 {
			w.kubelet.sync(w.pods())
			w.clock.Step(time.Minute)
			w.settle()
		}
		Expect(w.patches()).To(HaveLen(1))
		Expect(w.status().Pods.Updated).To(BeEquivalentTo(1), "what was started is watched to its end")
		Expect(w.condition(v1alpha1.ConditionProgressing)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonPaused))
		Expect(w.status().Phase).To(Equal(v1alpha1.PhasePaused))
		Expect(rollout.RevisionFor(w.policy(), rollout.Place{})).To(Equal(stable))

		w.allEvents()
		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Paused = false })
		w.rollOut(func() {})
		Expect(w.patches()).To(Equal(w.podNames()))
		Expect(w.allEvents()).To(ContainElement(HavePrefix("Normal Resumed")))
	})

	It("is over with as many failed pods as the author allows", func() {
		w := newReadyWorld(budgets("100%", "100%"), func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Health.MaxFailed = ptr.To[int32](1) })
		w.newFleet(1, 3)
		w.kubelet.broken = "web0-1"
		w.setImage("agent:v2")
		for range 4 {
			w.settle()
			w.kubelet.sync(w.pods())
			w.clock.Step(301 * time.Second)
		}
		w.settle()
		Expect(w.status().Phase).To(Equal(v1alpha1.PhaseComplete), w.describe())
		Expect(w.status().StableRevision).To(Equal(w.status().TargetRevision))
		Expect(w.status().Pods.Failed).To(BeEquivalentTo(1))
		Expect(w.condition(v1alpha1.ConditionDegraded)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonUpgradeFailed))
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete))
	})
})
