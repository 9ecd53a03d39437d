package rollout

import (
	"fmt"
	"strings"
	"time"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
)

// maxNamed is how many pods a note names.
const maxNamed = 6

// Notes say in order where the roll-out stands, what the plan does and what it waits for, a
// sentence each. A plan that stands still says the same each time.
func (p *Plan) Notes() []string {
	var n notes
	n.standing(p)
	n.pods("try", "as dry runs", upgraded(p.Tries))
	n.pods("upgrade", "in place", upgraded(p.Upgrades))
	n.pods("evict", "to be made anew", p.Evictions)
	n.pods("evict", "since they lack the sidecars", p.Replaced)
	n.pods("evict", "to lose the sidecars", p.Unplugged)
	n.pods("drain", "before their upgrade", p.Drains)
	n.pods("undrain", "", p.Undrains)
	n.waiting(&p.Summary)
	return n
}

type notes []string

func (n *notes) add(format string, args ...any) { *n = append(*n, fmt.Sprintf(format, args...)) }

// standing says where the roll-out stands.
func (n *notes) standing(p *Plan) {
	s := &p.Summary
	switch {
	case s.FailedRevision != "":
		n.add("revision %s has failed: %s", s.FailedRevision, s.FailureMessage)
	case p.RollingBack && s.Finished():
		n.add("rolled back to revision %s", p.Target)
	case p.RollingBack:
		n.add("roll back to revision %s: %s", p.Target, progress(s))
	case s.Finished():
		n.add("revision %s is complete: %s", p.Target, progress(s))
	case p.Step != nil:
		n.add("step %s of revision %s: %s", p.Step.Name, p.Target, progress(s))
	}
}

func progress(s *Summary) string {
	return fmt.Sprintf("%d of %d pods run it", s.Counts.Updated, s.Counts.Injected)
}

func upgraded(upgrades []Upgrade) []*fleet.PodState {
	var pods []*fleet.PodState
	for i := range upgrades {
		pods = append(pods, upgrades[i].Pod)
	}
	return pods
}

// pods says what is done to pods, and names the first of them.
func (n *notes) pods(verb, how string, pods []*fleet.PodState) {
	if len(pods) == 0 {
		return
	}
	var names []string
	for _, pod := range pods[:min(len(pods), maxNamed)] {
		names = append(names, pod.Pod.Namespace+"/"+pod.Pod.Name)
	}
	if more := len(pods) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	if how != "" {
		how = " " + how
	}
	n.add("%s%s: %s", verb, how, strings.Join(names, ", "))
}

// waiting says what does not go on, and why.
func (n *notes) waiting(s *Summary) {
	n.held(s)
	for _, wait := range []struct {
		holds bool
		note  string
	}{
		{s.Replacing > 0, fmt.Sprintf("wait for owners to make %d pods anew", s.Replacing)},
		{s.Prefetching > 0, fmt.Sprintf("wait for the images of %d pods", s.Prefetching)},
		{!s.SoakingUntil.IsZero(), "soak until " + clock(s.SoakingUntil)},
		{s.Analyzing != "", "wait for the analysis: " + s.Analyzing},
		{s.AwaitingApproval != "", "wait for the approval of " + s.AwaitingApproval},
		{s.Blocked != "", "wait: " + s.Blocked},
		{s.Unplug.Message != "", "take no sidecars out: " + s.Unplug.Message},
		{s.Unplug.Blocked != "", "wait with pods that are to lose the sidecars: " + s.Unplug.Blocked},
		{s.Missing.Message != "", "replace no pod that lacks the sidecars: " + s.Missing.Message},
		{s.Missing.Blocked != "", "wait with pods that lack the sidecars: " + s.Missing.Blocked},
	} {
		if wait.holds {
			n.add("%s", wait.note)
		}
	}
}

// held says why nothing may be started.
func (n *notes) held(s *Summary) {
	switch {
	case s.Hold == v1alpha1.ReasonFrozen && s.OpensAt.IsZero():
		n.add("wait: no window opens any more")
	case s.Hold == v1alpha1.ReasonFrozen:
		n.add("wait for the window that opens at %s", clock(s.OpensAt))
	case s.Hold != "" && s.FailedRevision == "":
		n.add("wait: %s", s.Hold)
	}
}

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }
