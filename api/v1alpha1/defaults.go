package v1alpha1

import (
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"
)

// The budgets that hold where the author wrote none.
var (
	// DefaultFleetBudget is the share of the fleet that may be unavailable.
	DefaultFleetBudget = intstr.FromString("10%")
	// DefaultWorkloadBudget is the share of each workload that may be unavailable.
	DefaultWorkloadBudget = intstr.FromString("25%")
)

// The values of HealthSpec and of the history where the author wrote none.
const (
	DefaultMinReadySeconds         int32 = 10
	DefaultProgressDeadlineSeconds int32 = 300
	DefaultRevisionHistoryLimit    int32 = 10
)

// MaxUnavailable is how many of a group of total pods may be unavailable at
// once under the policy's budget for that scope, or under the default one. A percentage
// is rounded down, but never below one. A value that can't be read allows nothing.
func (r *RolloutSpec) MaxUnavailable(per BudgetScope, total int) int {
	value := DefaultFleetBudget
	if per == PerWorkload {
		value = DefaultWorkloadBudget
	}
	for _, budget := range r.Budgets {
		if budget.Per == per && budget.MaxUnavailable != nil {
			value = *budget.MaxUnavailable
		}
	}
	count, err := intstr.GetScaledValueFromIntOrPercent(&value, total, false)
	if err != nil {
		return 0
	}
	return max(count, 1)
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
