package plugin

import (
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/render"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// withApproval gives a policy a first step of one pod that needs approval.
func withApproval(p *v1alpha1.SidecarPolicy) {
	p.Spec.Rollout.Steps = append([]v1alpha1.Step{{Name: "canary", UpTo: ptr.To(intstr.FromInt32(1)), Approval: v1alpha1.ApprovalRequired}}, harness.AllAtOnce()...)
}

var _ = Describe("Steering", func() {
	It("leads a roll-out from its first step to its end", func() {
		newPolicy("steer-approve", withApproval)
		newPods("steer-approve", "web", 4)
		setImage("steer-approve", "agent:2")
		Expect(policyNow("steer-approve").Status.Phase).To(Equal(v1alpha1.PhaseAwaitingApproval), harness.Describe(policyNow("steer-approve")))

		Expect(refuse("retry", "steer-approve")).To(ContainSubstring("no revision of policy steer-approve has failed: its phase is AwaitingApproval, at step canary"))
		before := policyNow("steer-approve").ResourceVersion
		Expect(succeed("approve", "steer-approve", "--dry-run=server")).To(ContainSubstring("(server dry run: nothing was changed)"))
		Expect(succeed("approve", "steer-approve", "--dry-run=client")).To(ContainSubstring("(client dry run: nothing was changed)"))
		Expect(policyNow("steer-approve").ResourceVersion).To(Equal(before))

		Expect(succeed("approve", "sidecarpolicy/steer-approve")).To(ContainSubstring("approved step canary of revision"))
		Expect(managers("steer-approve")).To(ContainElement("kubectl-sidecar"))
		settle("steer-approve")
		Expect(policyNow("steer-approve").Status.Phase).To(Equal(v1alpha1.PhaseComplete))
		Expect(refuse("approve", "steer-approve")).To(ContainSubstring("nothing of policy steer-approve awaits approval: its phase is Complete"))
	})

	It("pauses, resumes, aborts, retries and promotes", func() {
		newPolicy("steer-abort", withApproval)
		newPods("steer-abort", "web", 4)
		succeed("pause", "steer-abort")
		setImage("steer-abort", "agent:2")
		Expect(policyNow("steer-abort").Status.Phase).To(Equal(v1alpha1.PhasePaused))
		Expect(refuse("pause", "steer-abort")).To(ContainSubstring("paused already"))
		succeed("resume", "steer-abort")
		settle("steer-abort")
		Expect(policyNow("steer-abort").Status.Phase).To(Equal(v1alpha1.PhaseAwaitingApproval))

		Expect(succeed("abort", "steer-abort")).To(ContainSubstring("put back to revision"))
		settle("steer-abort")
		Expect(policyNow("steer-abort").Status.Phase).To(Equal(v1alpha1.PhaseRolledBack))
		Expect(sidecar("status", "steer-abort", "--watch").code).To(Equal(1), "the watch of a failure")

		succeed("retry", "steer-abort")
		settle("steer-abort")
		Expect(policyNow("steer-abort").Status.Phase).To(Equal(v1alpha1.PhaseAwaitingApproval))
		succeed("promote", "steer-abort")
		settle("steer-abort")
		Expect(policyNow("steer-abort").Status.Phase).To(Equal(v1alpha1.PhaseComplete))
		Expect(succeed("status", "steer-abort", "--watch", "--timeout", "20s")).To(ContainSubstring("steer-abort: Complete: 4/4 updated"))
	})

	It("goes back and forth between revisions, and restarts", func() {
		newPolicy("steer-undo")
		newPods("steer-undo", "web", 2)
		first := policyNow("steer-undo").Status.TargetRevision
		setImage("steer-undo", "agent:2")
		second := policyNow("steer-undo").Status.TargetRevision
		Expect(second).NotTo(Equal(first))

		Expect(refuse("undo", "steer-undo", "--to-revision", "nope")).To(ContainSubstring(`no revision "nope": write one of ` + second + " (number 2), " + first + " (number 1)"))
		Expect(succeed("undo", "steer-undo")).To(ContainSubstring("rolls out revision " + first))
		settle("steer-undo")
		Expect(policyNow("steer-undo").Status.StableRevision).To(Equal(first))
		Expect(refuse("restart", "steer-undo")).To(ContainSubstring("--to-template"))
		succeed("undo", "steer-undo", "--to-template")
		settle("steer-undo")
		Expect(policyNow("steer-undo").Status.StableRevision).To(Equal(second))

		Expect(succeed("restart", "steer-undo")).To(ContainSubstring("restart of the sidecars of policy steer-undo"))
		Expect(policyNow("steer-undo").Spec.Template.RestartedAt).NotTo(BeNil())
	})

	It("says what to do where there is nothing to steer", func() {
		Expect(refuse("pause", "nobody")).To(ContainSubstring(`there is no policy "nobody"`))
		Expect(refuse("pause")).To(ContainSubstring("name one policy: kubectl sidecar pause POLICY"))
		newPolicy("steer-flags")
		Expect(refuse("pause", "steer-flags", "--dry-run=perhaps")).To(ContainSubstring("write none, client or server"))
		Expect(refuse("pause", "nobody")).To(ContainSubstring("write one of "))
	})
})

func managers(name string) []string {
	GinkgoHelper()
	var names []string
	for _, field := range policyNow(name).ManagedFields {
		names = append(names, field.Manager)
	}
	return slices.Compact(names)
}

var _ = Describe("What is", func() {
	It("is told of all policies and of one", func() {
		newPolicy("see-one", withApproval)
		newPods("see-one", "web", 4)
		first := policyNow("see-one").Status.TargetRevision
		setImage("see-one", "agent:2")
		second := policyNow("see-one").Status.TargetRevision

		Expect(succeed("status")).To(MatchRegexp(`see-one +AwaitingApproval +canary \(1/2\) +\[#####\.+\] +1/4 +0 +0 +step canary: waits for approval`))
		Expect(succeed("status", "-o", "wide")).To(ContainSubstring(second))
		Expect(succeed("status", "see-one")).To(ContainSubstring("1 of 4 pods run revision " + second))
		status := decoded[render.Status]("status", "see-one")
		Expect(status.Pods.Updated).To(BeEquivalentTo(1))
		Expect(status.Steps).To(HaveLen(2))
		Expect(refuse("status", "-o", "xml")).To(ContainSubstring("write one of json, yaml, wide"))

		history := decoded[[]render.Revision]("history", "see-one")
		Expect(history).To(HaveLen(2))
		Expect(history[0]).To(And(HaveField("Name", second), HaveField("Pods", 1), HaveField("Roles", []string{"target"}), HaveField("Images", []string{"agent:2"})))
		Expect(history[1]).To(And(HaveField("Name", first), HaveField("Pods", 3), HaveField("Roles", []string{"stable"})))
		Expect(refuse("history", "see-one", "--operator-namespace", "elsewhere")).To(ContainSubstring("--operator-namespace"))

		Expect(succeed("diff", "see-one")).To(And(ContainSubstring("-- image: agent:1\n+- image: agent:2"), ContainSubstring("Running pods get it in place: image of agent.")))
		Expect(succeed("diff", "see-one", "2", "1")).To(ContainSubstring("-- image: agent:2\n+- image: agent:1"))
		Expect(refuse("diff", "see-one", "7")).To(ContainSubstring(`no revision "7"`))
	})

	It("completes policies and revisions", func() {
		newPolicy("see-complete")
		Expect(succeed("__complete", "pause", "")).To(ContainSubstring("see-complete\n"))
		Expect(succeed("__complete", "undo", "see-complete", "--to-revision", "")).To(ContainSubstring(policyNow("see-complete").Status.TargetRevision))
	})
})
