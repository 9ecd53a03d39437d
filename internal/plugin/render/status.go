package render

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// The widths of progress bars, in characters.
const (
	wideBar   = 40
	narrowBar = 20
)

// Status is where the roll-out of a policy stands.
type Status struct {
	Policy string `json:"policy"`
	// Phase is the policy's; Unknown before the operator has looked at it.
	Phase v1alpha1.Phase `json:"phase"`
	// Current says whether the operator has looked at the policy as it is now.
	Current bool `json:"current"`
	// Done: nothing more happens by itself. Failed: and that is not what was asked for.
	Done   bool `json:"done"`
	Failed bool `json:"failed"`

	Target         string             `json:"targetRevision,omitempty"`
	Stable         string             `json:"stableRevision,omitempty"`
	FailedRevision string             `json:"failedRevision,omitempty"`
	Pods           v1alpha1.PodCounts `json:"pods"`
	// Steps are all that the roll-out goes through; none where nothing is rolled out.
	Steps []Step `json:"steps,omitempty"`
	// WaitsFor says what the roll-out waits for now, or how it ended, in the operator's words.
	WaitsFor string `json:"waitsFor,omitempty"`
	// Trouble is what needs a person.
	Trouble []string `json:"trouble,omitempty"`
	// Unhealthy are the worst groups of pods.
	Unhealthy []v1alpha1.UnhealthyPods `json:"unhealthy,omitempty"`
	// Next is what a person may do now.
	Next string `json:"next,omitempty"`
	// Left is how much longer it takes, in seconds, where that can be told.
	Left *int64 `json:"secondsLeft,omitempty"`

	created time.Time
	soaks   time.Duration
}

// Step is one stage of a roll-out.
type Step struct {
	Name string `json:"name"`
	// State is done, now or later.
	State string `json:"state"`
	// Reaches says which part of the fleet it is.
	Reaches  string `json:"reaches"`
	Soak     string `json:"soak,omitempty"`
	Approval bool   `json:"approvalRequired,omitempty"`
	// Analysis is what was measured in it.
	Analysis []string `json:"analysis,omitempty"`
}

// The states of steps.
const (
	stepDone  = "done"
	stepNow   = "now"
	stepLater = "later"
)

const phaseUnknown v1alpha1.Phase = "Unknown"

// StatusOf reads where a policy stands from its status.
func StatusOf(p *v1alpha1.SidecarPolicy, now time.Time) Status {
	s := Status{
		Policy: p.Name, Phase: p.Status.Phase, Current: p.Status.ObservedGeneration == p.Generation,
		Target: p.Status.TargetRevision, Stable: p.Status.StableRevision, FailedRevision: p.Status.FailedRevision,
		Pods: ptr.Deref(p.Status.Pods, v1alpha1.PodCounts{}), Unhealthy: p.Status.Unhealthy, created: p.CreationTimestamp.Time,
	}
	if s.Phase == "" {
		s.Phase = phaseUnknown
	}
	s.Steps, s.soaks = stepsOf(p, now)
	s.WaitsFor = waitsFor(p)
	s.Trouble = trouble(p)
	s.Next = next(p)
	s.Done, s.Failed = ended(p)
	return s
}

// waitsFor is what the operator says about the progress.
func waitsFor(p *v1alpha1.SidecarPolicy) string {
	if p.Status.ObservedGeneration != p.Generation {
		return "the operator to look at the last change of the policy"
	}
	if retried(p) {
		return "the operator to try revision " + p.Status.FailedRevision + " again"
	}
	progressing := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionProgressing)
	if progressing == nil {
		return ""
	}
	return progressing.Message
}

// trouble are the conditions that need a person, but for what Progressing says already.
func trouble(p *v1alpha1.SidecarPolicy) []string {
	var list []string
	add := func(kind string, bad metav1.ConditionStatus) {
		c := meta.FindStatusCondition(p.Status.Conditions, kind)
		if c == nil || c.Status != bad || c.Message == waitsFor(p) {
			return
		}
		list = append(list, fmt.Sprintf("%s=%s, %s: %s", kind, c.Status, c.Reason, c.Message))
	}
	add(v1alpha1.ConditionAccepted, metav1.ConditionFalse)
	add(v1alpha1.ConditionAccepted, metav1.ConditionUnknown)
	if !p.Spec.Injection.Paused {
		add(v1alpha1.ConditionInjecting, metav1.ConditionFalse)
	}
	add(v1alpha1.ConditionAvailable, metav1.ConditionFalse)
	add(v1alpha1.ConditionDegraded, metav1.ConditionTrue)
	if p.Status.Phase == v1alpha1.PhaseComplete {
		add(v1alpha1.ConditionReady, metav1.ConditionFalse)
	}
	return list
}

// ended says whether nothing more happens by itself, and whether that is a failure.
func ended(p *v1alpha1.SidecarPolicy) (done, failed bool) {
	if p.Status.ObservedGeneration != p.Generation {
		return false, false
	}
	accepted := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionAccepted)
	switch {
	case accepted != nil && accepted.Status == metav1.ConditionFalse:
		return true, true
	case retried(p):
		return false, false
	case p.Status.Phase == v1alpha1.PhaseComplete:
		return true, false
	case p.Status.Phase == v1alpha1.PhaseRolledBack:
		return true, true
	case p.Status.Phase == v1alpha1.PhasePaused:
		return p.Status.FailedRevision != "", p.Status.FailedRevision != ""
	}
	return false, false
}

// retried says whether a person has asked for another try of the failed revision, and the operator has yet to begin it. It
// decides that itself.
func retried(p *v1alpha1.SidecarPolicy) bool {
	failed := p.Status.FailedRevision
	if failed == "" {
		return false
	}
	aim := rollout.TakeAim(p, &revision.Revision{Hash: failed}, nil)
	return aim.Failed == ""
}

// next is what a person may do.
func next(p *v1alpha1.SidecarPolicy) string {
	command := func(verb, does string) string { return fmt.Sprintf("`kubectl sidecar %s %s` %s", verb, p.Name, does) }
	switch {
	case p.Status.Phase == v1alpha1.PhaseAwaitingApproval:
		return command("approve", "lets it go on") + "; " + command("abort", "stops it")
	case retried(p):
		return ""
	case p.Status.FailedRevision != "":
		return "write a good template; or " + command("undo", "goes back for good") + "; or " + command("retry", "tries it again")
	case p.Spec.Rollout.Paused:
		return command("resume", "lets it go on")
	case p.Status.Phase == v1alpha1.PhaseSoaking:
		return command("promote", "ends the step now")
	case p.Spec.Rollout.Revision != "" && p.Status.Phase == v1alpha1.PhaseComplete:
		return fmt.Sprintf("`kubectl sidecar undo %s --to-template` rolls the template out again", p.Name)
	}
	return ""
}

// stepsOf are the steps of the roll-out that is under way, and how long they still soak.
func stepsOf(p *v1alpha1.SidecarPolicy, now time.Time) (list []Step, soaks time.Duration) {
	at := p.Status.Step
	if at == nil || at.Index == nil {
		return nil, 0
	}
	for i, step := range p.Spec.Rollout.EffectiveSteps() {
		s := Step{Name: step.Name, State: stepLater, Reaches: reaches(&step), Approval: step.Approval == v1alpha1.ApprovalRequired}
		if step.SoakTime() > 0 {
			s.Soak = Duration(step.SoakTime())
		}
		switch {
		case i < int(*at.Index):
			s.State = stepDone
		case i == int(*at.Index):
			s.State, s.Analysis = stepNow, measured(at)
			soaks += soakLeft(&step, at, now)
		default:
			soaks += step.SoakTime()
		}
		list = append(list, s)
	}
	return list, soaks
}

func soakLeft(step *v1alpha1.Step, at *v1alpha1.StepStatus, now time.Time) time.Duration {
	if at.UpdatedAt == nil {
		return step.SoakTime()
	}
	return max(0, at.UpdatedAt.Add(step.SoakTime()).Sub(now))
}

func measured(at *v1alpha1.StepStatus) []string {
	var list []string
	for _, a := range at.Analysis {
		list = append(list, fmt.Sprintf("%s: %d successful, %d failed, %d inconclusive; last: %s", a.Name, a.Successful, a.Failed, a.Inconclusive, or(a.LastValue)))
	}
	return list
}

// reaches says which part of the fleet a step is about.
func reaches(step *v1alpha1.Step) string {
	if step.UpTo != nil {
		return "up to " + step.UpTo.String()
	}
	var parts []string
	if step.PodSelector != nil {
		parts = append(parts, "pods "+metav1.FormatLabelSelector(step.PodSelector))
	}
	if step.NamespaceSelector != nil {
		parts = append(parts, "namespaces "+metav1.FormatLabelSelector(step.NamespaceSelector))
	}
	return strings.Join(parts, " in ")
}

// at is the step that the roll-out has reached: early (2/3).
func (s *Status) at() string {
	for i := range s.Steps {
		if s.Steps[i].State == stepNow {
			return fmt.Sprintf("%s (%d/%d)", s.Steps[i].Name, i+1, len(s.Steps))
		}
	}
	return ""
}

func (s *Status) left() string {
	if s.Left == nil {
		return ""
	}
	return Duration(time.Duration(*s.Left) * time.Second)
}

// Fleet is the table of all policies.
func Fleet(list []Status, wide bool, now time.Time) string {
	header := []string{"POLICY", "PHASE", "STEP", "PROGRESS", "UPDATED", "UNAVAILABLE", "FAILED"}
	if wide {
		header = append(header, "MISSING", "STALE", "CONFLICTING", "EXEMPT", "STABLE", "TARGET", "AGE")
	}
	header = append(header, "WAITS FOR")
	var rows [][]string
	for i := range list {
		s := &list[i]
		c := &s.Pods
		row := []string{s.Policy, string(s.Phase), or(s.at()), bar(int(c.Updated), int(c.Injected), narrowBar),
			fmt.Sprintf("%d/%d", c.Updated, c.Injected), fmt.Sprint(c.Unavailable), fmt.Sprint(c.Failed)}
		if wide {
			row = append(row, fmt.Sprint(c.Missing), fmt.Sprint(c.Stale), fmt.Sprint(c.Conflicting), fmt.Sprint(c.Exempt),
				or(s.Stable), or(s.Target), age(s.created, now))
		}
		rows = append(rows, append(row, or(s.inShort())))
	}
	return table(header, rows)
}

// inShort is what the overview says of a policy: nothing where all is well.
func (s *Status) inShort() string {
	switch {
	case len(s.Trouble) > 0 && s.Done:
		return s.Trouble[0]
	case s.Phase == v1alpha1.PhaseComplete && s.Current:
		return ""
	}
	return s.WaitsFor
}

// Policy is all about one policy.
func Policy(s *Status) string {
	var out strings.Builder
	head := fmt.Sprintf("%s: %s", s.Policy, s.Phase)
	if at := s.at(); at != "" {
		head += ", step " + at
	}
	fmt.Fprintf(&out, "%s\n%s %d of %d pods run revision %s", head, bar(int(s.Pods.Updated), int(s.Pods.Injected), wideBar), s.Pods.Updated, s.Pods.Injected, or(s.runs()))
	if left := s.left(); left != "" {
		fmt.Fprintf(&out, ", about %s left", left)
	}
	out.WriteString("\n\n")
	paragraph(&out, "Revisions", s.revisions())
	paragraph(&out, "Steps", steps(s.Steps))
	paragraph(&out, "Pods", counts(&s.Pods))
	paragraph(&out, s.outcome(), s.WaitsFor)
	paragraph(&out, "Trouble", strings.Join(s.Trouble, "\n"))
	paragraph(&out, "Next", s.Next)
	if len(s.Unhealthy) > 0 {
		out.WriteString("\n" + unhealthy(s.Unhealthy))
	}
	return out.String()
}

// outcome is the title of what the operator says of the progress.
func (s *Status) outcome() string {
	if s.Done {
		return "Outcome"
	}
	return "Waits for"
}

// runs is the revision that updated pods run: during a rollback and after it the stable one.
func (s *Status) runs() string {
	if s.Phase == v1alpha1.PhaseRollingBack || s.Phase == v1alpha1.PhaseRolledBack {
		return s.Stable
	}
	return s.Target
}

func (s *Status) revisions() string {
	text := "target " + or(s.Target) + ", stable " + or(s.Stable)
	if s.FailedRevision != "" {
		text += ", failed " + s.FailedRevision
	}
	return text
}

func steps(list []Step) string {
	var rows []string
	for i, s := range list {
		row := fmt.Sprintf("%d %s: %s, %s", i+1, s.Name, s.State, s.Reaches)
		if s.Soak != "" {
			row += ", soak " + s.Soak
		}
		if s.Approval {
			row += ", approval required"
		}
		rows = append(rows, row)
		for _, a := range s.Analysis {
			rows = append(rows, "  "+a)
		}
	}
	return strings.Join(rows, "\n")
}

// counts names the counts that are not zero; the first three always.
func counts(c *v1alpha1.PodCounts) string {
	text := fmt.Sprintf("%d selected, %d injected, %d ready", c.Selected, c.Injected, c.Ready)
	for _, count := range []struct {
		n    int32
		name string
	}{
		{c.Unavailable, "unavailable"}, {c.Failed, "failed"}, {c.Missing, "missing"}, {c.Conflicting, "conflicting"},
		{c.Stale, "stale"}, {c.Drifted, "drifted"}, {c.Exempt, "exempt"},
	} {
		if count.n > 0 {
			text += fmt.Sprintf(", %d %s", count.n, count.name)
		}
	}
	return text
}

func unhealthy(list []v1alpha1.UnhealthyPods) string {
	var rows [][]string
	for _, u := range list {
		rows = append(rows, []string{u.Workload, fmt.Sprint(u.Pods), string(u.Reason), u.Message})
	}
	return table([]string{"WORKLOAD", "PODS", "REASON", "MESSAGE"}, rows)
}

// Line is one policy in a line, where a picture can't be drawn over the last one.
func Line(s *Status) string {
	text := s.Policy + ": " + string(s.Phase)
	if at := s.at(); at != "" {
		text += ", step " + at
	}
	text += fmt.Sprintf(": %d/%d updated, %d unavailable, %d failed", s.Pods.Updated, s.Pods.Injected, s.Pods.Unavailable, s.Pods.Failed)
	if short := s.inShort(); short != "" {
		text += ": " + short
	}
	return text
}
