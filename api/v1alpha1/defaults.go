package v1alpha1

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// The budgets that hold where the author wrote none.
var (
	// DefaultFleetBudget is the share of the fleet that may be unavailable.
	DefaultFleetBudget = intstr.FromString("10%")
	// DefaultWorkloadBudget is the share of each workload that may be unavailable.
	DefaultWorkloadBudget = intstr.FromString("25%")
	// DefaultMaxMissing is the share of the fleet that may lack the sidecars for it to be replaced.
	DefaultMaxMissing = intstr.FromString("33%")
)

// The values of HealthSpec and of the history where the author wrote none.
const (
	DefaultMinReadySeconds         int32 = 10
	DefaultProgressDeadlineSeconds int32 = 300
	DefaultRevisionHistoryLimit    int32 = 10
	DefaultMaxRestarts             int32 = 2
)

// DefaultSoak is how long the first steps are watched where the author wrote none.
const DefaultSoak = time.Minute

// Holds says whether new pods wait for the sidecars where the operator can't be reached.
func (s *InjectionSpec) Holds() bool { return s.FailurePolicy == FailurePolicyHold && !s.Paused }

// leastMaxMissing is what a percentage of maxMissing comes to at least.
const leastMaxMissing = 3

// MissingLimit is how many of total selected pods may lack the sidecars for missing: Recreate to act.
// A percentage is rounded down, but never below three. A value that can't be read allows nothing.
func (s *SidecarPolicySpec) MissingLimit(total int) int {
	value := DefaultMaxMissing
	if s.MaxMissing != nil {
		value = *s.MaxMissing
	}
	count, err := intstr.GetScaledValueFromIntOrPercent(&value, total, false)
	if err != nil {
		return 0
	}
	if value.Type == intstr.String {
		count = max(count, leastMaxMissing)
	}
	return count
}

// EffectiveSteps are the policy's steps, or the default ones where it has none. With the method OnDelete those by
// a count or a percentage are left out, except for the last: whoever deletes pods chooses how many.
func (r *RolloutSpec) EffectiveSteps() []Step {
	steps := r.Steps
	if len(steps) == 0 {
		steps = defaultSteps()
	}
	if r.Method == MethodOnDelete {
		last := len(steps) - 1
		chosen := slices.DeleteFunc(slices.Clone(steps[:last]), func(step Step) bool { return step.UpTo != nil })
		steps = append(chosen, steps[last])
	}
	return steps
}

func defaultSteps() []Step {
	return []Step{
		{Name: "one-percent", UpTo: ptr.To(intstr.FromString("1%")), Soak: &metav1.Duration{Duration: DefaultSoak}},
		{Name: "ten-percent", UpTo: ptr.To(intstr.FromString("10%")), Soak: &metav1.Duration{Duration: DefaultSoak}},
		{Name: "fleet", UpTo: ptr.To(intstr.FromString("100%"))},
	}
}

// Quota is how many of total pods the step reaches by its upTo; 0 where it has none. A
// percentage is rounded down, but never below one. A value that can't be read reaches none.
func (s *Step) Quota(total int) int {
	if s.UpTo == nil {
		return 0
	}
	count, err := intstr.GetScaledValueFromIntOrPercent(s.UpTo, total, false)
	if err != nil {
		return 0
	}
	return min(max(count, 1), total)
}

// SoakTime is how long the step is watched.
func (s *Step) SoakTime() time.Duration {
	if s.Soak == nil {
		return 0
	}
	return s.Soak.Duration
}

// Budget is the policy's for that scope; nil where it has none.
func (r *RolloutSpec) Budget(per BudgetScope) *Budget {
	for i := range r.Budgets {
		if r.Budgets[i].Per == per && r.Budgets[i].MaxUnavailable != nil {
			return &r.Budgets[i]
		}
	}
	return nil
}

// MaxUnavailable is how many of a group of total pods may be unavailable at
// once under the policy's budget for that scope, or under the default one. A percentage
// is rounded down, but never below one. A value that can't be read allows nothing.
func (r *RolloutSpec) MaxUnavailable(per BudgetScope, total int) int {
	value := DefaultFleetBudget
	if budget := r.Budget(per); budget != nil {
		value = *budget.MaxUnavailable
	} else if per == PerWorkload {
		value = DefaultWorkloadBudget
	} else if per != PerFleet {
		return total
	}
	count, err := intstr.GetScaledValueFromIntOrPercent(&value, total, false)
	if err != nil {
		return 0
	}
	return max(count, 1)
}

// GuardTime is how long after the upgrade of a pod what becomes of its app is held against the new revision: the longest soak, but no
// less than progressDeadlineSeconds. What happens later is taken for the app's own: in a fleet of thousands something restarts at any time.
func (r *RolloutSpec) GuardTime() time.Duration {
	longest := r.Health.ProgressDeadline()
	for _, step := range r.EffectiveSteps() {
		longest = max(longest, step.SoakTime())
	}
	return longest
}

// MinReady is how long an upgraded pod must have been ready.
func (h *HealthSpec) MinReady() time.Duration {
	return secondsOr(h.MinReadySeconds, DefaultMinReadySeconds)
}

// ProgressDeadline is how long an upgraded pod may take to get healthy.
func (h *HealthSpec) ProgressDeadline() time.Duration {
	return secondsOr(h.ProgressDeadlineSeconds, DefaultProgressDeadlineSeconds)
}

func secondsOr(seconds *int32, fallback int32) time.Duration {
	if seconds == nil {
		seconds = &fallback
	}
	return time.Duration(*seconds) * time.Second
}
