package controllers_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

var _ = Describe("Steps", func() {
	canary := v1alpha1.Step{Name: "canary", UpTo: ptr.To(intstr.FromInt32(1)), Soak: &metav1.Duration{Duration: time.Minute}, Approval: v1alpha1.ApprovalRequired}

	// updatedCanary is a fleet of 4 of which the canary has been upgraded and soaks.
	updatedCanary := func() *world {
		GinkgoHelper()
		w := newReadyWorld(budgets("100%", "100%"), steps(canary))
		w.newFleet(1, 4)
		w.setImage("agent:v2")
		w.settle()
		Expect(w.patches()).To(HaveLen(1))
		w.kubelet.sync(w.pods())
		w.clock.Step(11 * time.Second)
		w.settle()
		Expect(w.status().Phase).To(Equal(v1alpha1.PhaseSoaking), w.describe())
		return w
	}

	It("soak, wait for approval, and only then go on to the rest", func() {
		w := updatedCanary()
		target, stable := w.status().TargetRevision, w.status().StableRevision
		Expect(w.status().Step).To(HaveValue(And(HaveField("Index", HaveValue(BeEquivalentTo(0))), HaveField("Name", "canary"))))
		Expect(w.condition(v1alpha1.ConditionProgressing)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonSoaking))
		Expect(rollout.RevisionFor(w.policy(), rollout.Place{})).To(Equal(stable), "a new pod does not leak past the step")

		result := w.pass()
		Expect(result.RequeueAfter).To(And(BeNumerically(">", 0), BeNumerically("<=", time.Minute)), "nothing but time ends the soak")
		w.clock.Step(result.RequeueAfter)
		w.settle()
		progressing := w.condition(v1alpha1.ConditionProgressing)
		Expect(progressing).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonAwaitingApproval))
		Expect(progressing.Message).To(ContainSubstring("kubectl annotate --overwrite sidecarpolicy/" + w.name + " fleet.sidecar.dev/approve=" + target + "/canary"))
		Expect(w.status().Phase).To(Equal(v1alpha1.PhaseAwaitingApproval))

		By("an approval of something else")
		w.annotate(v1alpha1.ApproveAnnotation, stable+"/canary")
		w.settle()
		Expect(w.patches()).To(HaveLen(1))

		By("the approval")
		w.annotate(v1alpha1.ApproveAnnotation, target+"/canary")
		w.settle()
		Expect(w.status().Step).To(HaveValue(HaveField("Name", "fleet")))
		Expect(rollout.RevisionFor(w.policy(), rollout.Place{})).To(Equal(target), "new pods get the target from the last step on")
		w.rollOut(func() {})
		Expect(w.patches()).To(Equal(w.podNames()))
		Expect(w.status().Step).To(BeNil())
		Expect(w.allEvents()).To(ContainElements(ContainSubstring("step canary"), ContainSubstring("step fleet"), HavePrefix("Normal RolloutComplete")))
	})

	It("go on where they were after the manager has started anew", func() {
		w := updatedCanary()
		w.restartOperator()
		w.clock.Step(2 * time.Minute)
		w.settle()
		Expect(w.status().Phase).To(Equal(v1alpha1.PhaseAwaitingApproval))
		Expect(w.patches()).To(HaveLen(1))
	})

	It("can be promoted: the soak ends and the approval is given", func() {
		w := updatedCanary()
		w.annotate(v1alpha1.PromoteAnnotation, w.status().TargetRevision+"/canary")
		w.settle()
		Expect(w.status().Step).To(HaveValue(HaveField("Name", "fleet")))
	})

	It("can be aborted: the revision counts as failed and is rolled back", func() {
		w := updatedCanary()
		target := w.status().TargetRevision
		w.annotate(v1alpha1.AbortAnnotation, target)
		w.settle()
		Expect(w.status().FailedRevision).To(Equal(target))
		Expect(w.images()).To(HaveEach("agent:v1"))
		w.kubelet.sync(w.pods())
		w.clock.Step(time.Minute)
		w.settle()
		Expect(w.status().Phase).To(Equal(v1alpha1.PhaseRolledBack))
		Expect(w.status().FailureMessage).To(ContainSubstring("aborted"))

		By("asking for a retry, which waits until nobody wants it aborted any more")
		w.annotate(v1alpha1.RetryAnnotation, target)
		w.settle()
		Expect(w.status().Phase).To(Equal(v1alpha1.PhaseRolledBack))
		Expect(w.status().HandledRetry).To(BeEmpty())
		Expect(w.condition(v1alpha1.ConditionDegraded).Message).To(ContainSubstring(v1alpha1.RetryAnnotation + "=" + target + " " + v1alpha1.AbortAnnotation + "-"))
		w.annotate(v1alpha1.AbortAnnotation, "")
		w.settle()
		Expect(w.status().Step).To(HaveValue(HaveField("Name", "canary")))
		Expect(w.status().FailedRevision).To(BeEmpty())
	})

	It("take changes in the middle at once, and don't begin again", func() {
		w := updatedCanary()
		w.edit(func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Rollout.Steps[0].Soak, p.Spec.Rollout.Steps[0].Approval = nil, ""
		})
		w.settle()
		Expect(w.status().Step).To(HaveValue(HaveField("Name", "fleet")))
	})

	It("are superseded by a new target, and taken back by the stable template without a third version", func() {
		w := updatedCanary()
		stable := w.status().StableRevision
		w.setImage("agent:v3")
		w.settle()
		Expect(w.status().Step).To(HaveValue(And(HaveField("Name", "canary"), HaveField("UpdatedAt", BeNil()))))
		w.setImage("agent:v1")
		w.rollOut(func() {})
		Expect(w.status().StableRevision).To(Equal(stable))
		Expect(w.images()).To(HaveEach("agent:v1"))
		Expect(w.patches()).To(HaveEach(w.patches()[0]), "the others never left the stable revision")
	})

	It("reach pods by their labels and those of their namespace, new ones too", func() {
		byLabel := v1alpha1.Step{Name: "volunteers", PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"canary": "true"}}, Soak: canary.Soak}
		w := newReadyWorld(budgets("100%", "100%"), steps(byLabel))
		w.newFleet(1, 3)
		w.newPod("volunteer", withLabel("canary", "true"))
		w.kubelet.sync(w.pods())
		w.settle()
		w.setImage("agent:v2")
		w.settle()
		Expect(w.patches()).To(ConsistOf("volunteer"))
		Expect(rollout.RevisionFor(w.policy(), rollout.Place{Labels: map[string]string{"canary": "true"}})).To(Equal(w.status().TargetRevision))
		Expect(rollout.RevisionFor(w.policy(), rollout.Place{})).To(Equal(w.status().StableRevision))
	})

	It("that select no pod hold the roll-out and say so, until they are corrected or promoted", func() {
		typo := v1alpha1.Step{Name: "volunteers", PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"canray": "true"}}}
		w := newReadyWorld(budgets("100%", "100%"), steps(typo))
		w.newFleet(1, 2)
		w.setImage("agent:v2")
		w.settle()
		Expect(w.patches()).To(BeEmpty())
		target := w.status().TargetRevision
		Expect(w.condition(v1alpha1.ConditionProgressing).Message).To(And(ContainSubstring("step volunteers selects no pod that can be upgraded"),
			ContainSubstring("fleet.sidecar.dev/promote="+target+"/volunteers")))
		w.annotate(v1alpha1.PromoteAnnotation, target+"/volunteers")
		w.rollOut(func() {})
		Expect(w.images()).To(HaveEach("agent:v2"))
	})

	It("by default soak a small fleet once", func() {
		w := newReadyWorld(budgets("100%", "100%"), func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Steps = nil })
		w.newFleet(1, 4)
		w.setImage("agent:v2")
		w.settle()
		w.kubelet.sync(w.pods())
		w.clock.Step(11 * time.Second)
		w.settle()
		Expect(w.status().Phase).To(Equal(v1alpha1.PhaseSoaking))
		w.clock.Step(time.Minute)
		w.settle()
		Expect(w.status().Step).To(HaveValue(HaveField("Name", "fleet")), "10% of 4 is the pod that has soaked")
	})

	It("hold for a policy without any: one pod first", func() {
		w := newReadyWorld(budgets("100%", "100%"), func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Steps = nil })
		w.newFleet(2, 5)
		w.setImage("agent:v2")
		w.settle()
		Expect(w.patches()).To(HaveLen(1), "1% is at least one pod")
		Expect(w.status().Step).To(HaveValue(HaveField("Name", "one-percent")))
	})
})

var _ = Describe("An older revision named by the policy", func() {
	It("is rolled out instead of the template until the field is removed", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		w.newFleet(1, 2)
		first := w.status().StableRevision
		w.setImage("agent:v2")
		w.rollOut(func() {})
		second := w.status().StableRevision

		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Revision = first })
		w.rollOut(func() {})
		Expect(w.images()).To(HaveEach("agent:v1"))
		Expect(w.status().StableRevision).To(Equal(first))

		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Revision = "nonsense" })
		w.settle()
		accepted := w.condition(v1alpha1.ConditionAccepted)
		Expect(accepted.Status).To(Equal(metav1.ConditionFalse))
		Expect(accepted.Message).To(And(ContainSubstring(first), ContainSubstring(second), ContainSubstring("or remove the field")))

		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Revision = "" })
		w.rollOut(func() {})
		Expect(w.status().StableRevision).To(Equal(second))
	})
})
