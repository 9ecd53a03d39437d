package render

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/simulate"
)

// maxListed is how many lines of a kind a plan lists for people. Programs get all of them.
const maxListed = 12

// Plan is what a policy would do if it was applied now.
type Plan struct {
	Policy string `json:"policy"`
	// Creates: there is no such policy yet. Changes names the fields of the spec that differ from what is
	// stored; where there are none, nothing happens.
	Creates bool     `json:"creates,omitempty"`
	Changes []string `json:"changes,omitempty"`
	// Problem says why the operator would not accept it, Warning what would work, but hardly as meant.
	Problem string `json:"problem,omitempty"`
	Warning string `json:"warning,omitempty"`
	// Template is what differs between the revision that was asked for last and the one that would be.
	Template *Difference `json:"template,omitempty"`
	// Selected is how many pods it would select. Gained are those that it does not select now, Lost
	// those that it would not select any more.
	Selected int `json:"selected"`
	Gained   int `json:"gained,omitempty"`
	Lost     int `json:"lost,omitempty"`
	// Workloads say what becomes of pods, and why.
	Workloads []Group `json:"workloads,omitempty"`
	// Steps are those of the roll-out as it was simulated.
	Steps []PlannedStep `json:"steps,omitempty"`
	// Budgets say what may be unavailable.
	Budgets []PlannedBudget `json:"budgets,omitempty"`
	// Seconds is how long it takes where nothing goes wrong and approvals are given at once; nil where it does not end.
	Seconds *int64 `json:"seconds,omitempty"`
	// Stuck says what would hold it up for ever.
	Stuck string `json:"stuck,omitempty"`
	// Assumed is what the time was reckoned with.
	Assumed []string `json:"assumed,omitempty"`
}

// Fate is what becomes of a pod.
type Fate string

// What becomes of pods, in the order in which they are told.
const (
	FateInPlace   Fate = "in place"
	FateRecreate  Fate = "recreated"
	FateStale     Fate = "stale"
	FateUnchanged Fate = "unchanged"
	FateMissing   Fate = "missing"
	FateConflict  Fate = "conflicting"
	FateExempt    Fate = "exempt"
	FateOnDelete  Fate = "on delete"
	// FateUnplugged and FateKeeps: the policy does not select it, and it carries the sidecars.
	FateUnplugged Fate = "unplugged"
	FateKeeps     Fate = "keeps them"
)

var fates = []Fate{FateRecreate, FateUnplugged, FateInPlace, FateOnDelete, FateStale, FateConflict, FateMissing, FateExempt, FateKeeps, FateUnchanged}

// Group is the pods of a workload that have the same fate for the same reason.
type Group struct {
	Workload string `json:"workload"`
	Pods     int    `json:"pods"`
	Fate     Fate   `json:"fate"`
	Why      string `json:"why,omitempty"`
}

// PlannedStep is one step as it was simulated.
type PlannedStep struct {
	Name      string `json:"name"`
	InPlace   int    `json:"inPlace"`
	Recreated int    `json:"recreated"`
	Waves     int    `json:"waves"`
	// Updated is how many pods have the revision at its end.
	Updated  int   `json:"updated"`
	Seconds  int64 `json:"seconds"`
	Approval bool  `json:"approvalRequired,omitempty"`
	// Ended says whether it came to its end.
	Ended bool `json:"ended"`
}

// PlannedBudget is what one budget allows.
type PlannedBudget struct {
	Budget string `json:"budget"`
	// Allows of Total pods may be unavailable, and Unavailable are now. For a PodDisruptionBudget,
	// Allows is what it allows now, besides.
	Allows      int `json:"allows"`
	Unavailable int `json:"unavailable,omitempty"`
	Total       int `json:"total,omitempty"`
}

// ChangedFields names the fields of a spec that differ, to a depth at which people recognize them:
// spec.rollout.steps, spec.template.sidecars.
func ChangedFields(before, after *v1alpha1.SidecarPolicySpec) []string {
	return changedFields("spec", asMap(before), asMap(after), 2)
}

func changedFields(path string, before, after map[string]any, depth int) []string {
	var list []string
	names := maps.Clone(before)
	maps.Copy(names, after)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		old, isOld := before[name].(map[string]any)
		current, isCurrent := after[name].(map[string]any)
		switch {
		case reflect.DeepEqual(before[name], after[name]):
		case depth > 1 && isOld && isCurrent:
			list = append(list, changedFields(path+"."+name, old, current, depth-1)...)
		default:
			list = append(list, path+"."+name)
		}
	}
	return list
}

func asMap(spec *v1alpha1.SidecarPolicySpec) map[string]any {
	data, err := json.Marshal(spec)
	if err != nil {
		panic(err) // API types always marshal
	}
	m := map[string]any{}
	if err := json.Unmarshal(data, &m); err != nil {
		panic(err)
	}
	return m
}

// Groups say what becomes of the pods that a plan of the manager's was made of.
func Groups(in rollout.Input, plan *rollout.Plan) []Group {
	counts := map[Group]int{}
	count := func(pod *fleet.PodState, fate Fate, why string) {
		counts[Group{Workload: pod.Workload.String(), Fate: fate, Why: why}]++
	}
	for i := range in.Pods {
		fate, why := fateOf(&in.Pods[i], in, plan)
		count(&in.Pods[i], fate, why)
	}
	for i := range in.Deselected {
		if pod := &in.Deselected[i]; pod.Injected {
			fate, why := deselected(pod, in)
			count(pod, fate, why)
		}
	}
	list := make([]Group, 0, len(counts))
	for g, n := range counts {
		g.Pods = n
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b Group) int {
		return cmp.Or(cmp.Compare(slices.Index(fates, a.Fate), slices.Index(fates, b.Fate)), cmp.Compare(b.Pods, a.Pods), cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Why, b.Why))
	})
	return list
}

func fateOf(pod *fleet.PodState, in rollout.Input, plan *rollout.Plan) (Fate, string) {
	lacks := pod.Changes() || pod.Stale != ""
	switch {
	case pod.Injected && lacks && in.Spec.Method == v1alpha1.MethodOnDelete:
		return FateOnDelete, "gets the revision when it is recreated, as the method is OnDelete"
	case !pod.Injected && len(pod.Conflicts) > 0:
		return FateConflict, string(pod.Conflicts[0].Reason) + ": " + inject.Explain(pod.Conflicts)
	case !pod.Injected:
		return FateMissing, plan.WhyMissing(in, pod)
	case pod.Exempt && lacks:
		return FateExempt, "until " + until(pod.ExemptUntil)
	}
	return wayOf(pod, in.Spec)
}

// deselected is the fate of a pod that carries the sidecars and is not selected.
func deselected(pod *fleet.PodState, in rollout.Input) (Fate, string) {
	switch {
	case in.OnRemoval != v1alpha1.RemovalRecreate:
		return FateKeeps, "not selected, and has the sidecars until it is recreated"
	case pod.Owner.Unmanaged && !in.Spec.EvictUnmanaged:
		return FateKeeps, "not selected, and nobody would make it anew: delete it, or write rollout.evictUnmanaged: true"
	case pod.Exempt:
		return FateExempt, "not selected, and evicted to lose the sidecars, but not until " + until(pod.ExemptUntil)
	}
	return FateUnplugged, "not selected, and evicted to lose the sidecars, as spec.onRemoval is Recreate"
}

// wayOf is the fate of a pod that the roll-out may move.
func wayOf(pod *fleet.PodState, spec *v1alpha1.RolloutSpec) (Fate, string) {
	recreated := rollout.IntentFor(pod, spec) == rollout.IntentRecreate
	switch {
	case recreated && pod.Stale != "":
		return FateRecreate, pod.Stale
	case recreated:
		return FateRecreate, "method Recreate: " + changes(pod)
	case pod.Stale != "" && pod.Changes():
		return FateStale, fmt.Sprintf("lacks %s until it is recreated; gets %s in place", pod.Stale, changes(pod))
	case pod.Stale != "":
		return FateStale, fmt.Sprintf("lacks %s until it is recreated", pod.Stale)
	case pod.Changes():
		return FateInPlace, changes(pod)
	}
	return FateUnchanged, ""
}

func until(t time.Time) string {
	if t.IsZero() {
		return "its annotation is corrected"
	}
	return t.UTC().Format(time.RFC3339)
}

// changes names what a pod gets in place.
func changes(pod *fleet.PodState) string {
	var parts []string
	for _, c := range pod.Images {
		parts = append(parts, "image of "+c.Container)
	}
	for _, r := range pod.Resizes {
		parts = append(parts, "resources of "+r.Container)
	}
	return strings.Join(parts, ", ")
}

// Simulated takes over how the roll-out went in a simulation that began at a time.
func (p *Plan) Simulated(story simulate.Story, began time.Time) {
	for _, s := range story.Stages {
		step := PlannedStep{Name: s.Name, InPlace: s.InPlace, Recreated: s.Recreated, Waves: s.Waves, Updated: s.Updated, Approval: s.Approved, Ended: !s.Ended.IsZero()}
		if step.Ended {
			step.Seconds = int64(s.Ended.Sub(s.Began).Seconds())
		}
		p.Steps = append(p.Steps, step)
	}
	p.Stuck = story.Stuck
	if story.Stuck == "" {
		seconds := int64(story.Ended.Sub(began).Seconds())
		p.Seconds = &seconds
	}
}

// Allowed takes over what budgets allow: the policy's, then PodDisruptionBudgets.
func (p *Plan) Allowed(allowances []rollout.Allowance, disruptions []fleet.Disruption) {
	for _, a := range allowances {
		p.Budgets = append(p.Budgets, PlannedBudget{Budget: fmt.Sprintf("per %s: %s", a.Per, a.Group), Allows: a.Limit, Unavailable: a.Unavailable, Total: a.Total})
	}
	for _, d := range disruptions {
		p.Budgets = append(p.Budgets, PlannedBudget{Budget: fmt.Sprintf("PodDisruptionBudget %s/%s", d.Namespace, d.Name), Allows: max(0, d.Allowed)})
	}
}

// PlanText is a plan for people.
func PlanText(p *Plan) string {
	var out strings.Builder
	switch {
	case p.Creates:
		fmt.Fprintf(&out, "Policy %s would be created: it selects %s.\n", p.Policy, plural(p.Selected, "pod"))
	case len(p.Changes) == 0:
		fmt.Fprintf(&out, "Policy %s would not change.\n", p.Policy)
		return out.String()
	default:
		fmt.Fprintf(&out, "Policy %s would change in %s: it selects %s (%d gained, %d lost).\n", p.Policy, strings.Join(p.Changes, ", "), plural(p.Selected, "pod"), p.Gained, p.Lost)
	}
	if p.Problem != "" {
		fmt.Fprintf(&out, "\nThe operator would not accept it, and change no pod: %s\n", p.Problem)
		return out.String()
	}
	if p.Warning != "" {
		fmt.Fprintf(&out, "\nWarning: %s\n", p.Warning)
	}
	if p.Template != nil && p.Template.Unified != "" {
		out.WriteString("\n" + Diff(*p.Template))
	}
	out.WriteString(p.workloads() + p.steps() + p.budgets() + p.end())
	return out.String()
}

func (p *Plan) workloads() string {
	if len(p.Workloads) == 0 {
		return ""
	}
	totals := map[Fate]int{}
	var rows [][]string
	for _, g := range p.Workloads {
		totals[g.Fate] += g.Pods
		if len(rows) < maxListed {
			rows = append(rows, []string{g.Workload, fmt.Sprint(g.Pods), string(g.Fate), or(g.Why)})
		}
	}
	var parts []string
	for _, fate := range fates {
		if totals[fate] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", totals[fate], fate))
		}
	}
	return "\nPods: " + strings.Join(parts, ", ") + "\n" + table([]string{"WORKLOAD", "PODS", "FATE", "WHY"}, rows) + more(len(p.Workloads))
}

func more(n int) string {
	if n <= maxListed {
		return ""
	}
	return fmt.Sprintf("... and %d more (-o json lists them all)\n", n-maxListed)
}

func (p *Plan) steps() string {
	if len(p.Steps) == 0 {
		return ""
	}
	var rows [][]string
	for _, s := range p.Steps {
		takes := "does not end"
		if s.Ended {
			takes = Duration(time.Duration(s.Seconds) * time.Second)
		}
		if s.Approval {
			takes += " and an approval"
		}
		rows = append(rows, []string{s.Name, fmt.Sprint(s.InPlace), fmt.Sprint(s.Recreated), fmt.Sprint(s.Waves), fmt.Sprint(s.Updated), takes})
	}
	return "\n" + table([]string{"STEP", "IN PLACE", "RECREATED", "WAVES", "UPDATED THEN", "TAKES"}, rows)
}

func (p *Plan) budgets() string {
	if len(p.Budgets) == 0 {
		return ""
	}
	var rows [][]string
	for _, b := range p.Budgets[:min(len(p.Budgets), maxListed)] {
		now := nothing
		if b.Total > 0 {
			now = fmt.Sprintf("%d of %d", b.Unavailable, b.Total)
		}
		rows = append(rows, []string{b.Budget, fmt.Sprint(b.Allows), now})
	}
	return "\n" + table([]string{"BUDGET", "ALLOWS", "UNAVAILABLE NOW"}, rows) + more(len(p.Budgets))
}

func (p *Plan) end() string {
	if p.Stuck != "" {
		return fmt.Sprintf("\nIt would not complete by itself: %s.\n", p.Stuck)
	}
	if p.Seconds == nil {
		return ""
	}
	text := fmt.Sprintf("\nIt would take about %s", Duration(time.Duration(*p.Seconds)*time.Second))
	if len(p.Assumed) > 0 {
		text += ", where " + strings.Join(p.Assumed, ", ")
	}
	return text + ".\n"
}
