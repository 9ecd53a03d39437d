package rollout

import (
	"fmt"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
)

// account counts one group of pods against its budget.
type account struct {
	name string
	// total pods, those that are unavailable, and those of them that are being upgraded.
	total, unavailable, upgrading int
	// limit is the budget's maxUnavailable for the group.
	limit int
}

// ledger reserves what budgets allow, pod by pod. What is reserved stays reserved
// for the whole pass.
type ledger struct {
	fleet       account
	workloads   map[fleet.Workload]*account
	disruptions []fleet.Disruption
}

func newLedger(in Input) *ledger {
	l := &ledger{
		fleet:       account{name: "the fleet"},
		workloads:   map[fleet.Workload]*account{},
		disruptions: append([]fleet.Disruption(nil), in.Disruptions...),
	}
	for i := range in.Pods {
		pod := &in.Pods[i]
		workload := l.workloads[pod.Workload]
		if workload == nil {
			workload = &account{name: pod.Workload.String()}
			l.workloads[pod.Workload] = workload
		}
		l.fleet.add(pod)
		workload.add(pod)
	}
	l.fleet.limit = in.Spec.MaxUnavailable(v1alpha1.PerFleet, l.fleet.total)
	for _, workload := range l.workloads {
		workload.limit = in.Spec.MaxUnavailable(v1alpha1.PerWorkload, workload.total)
	}
	return l
}

func (a *account) add(pod *fleet.PodState) {
	a.total++
	if !pod.Available {
		a.unavailable++
	}
	if pod.Busy || pod.Verdict.State == fleet.Updating {
		a.upgrading++
	}
}

// reserve takes the pod out of all its budgets and returns "", or says which
// budget does not allow it and takes nothing.
func (l *ledger) reserve(pod *fleet.PodState) string {
	accounts := []*account{&l.fleet, l.workloads[pod.Workload]}
	for _, a := range accounts {
		if refusal := a.refuses(pod); refusal != "" {
			return refusal
		}
	}
	if refusal := l.disrupt(pod); refusal != "" {
		return refusal
	}
	for _, a := range accounts {
		a.take(pod)
	}
	return ""
}

// refuses says why the budget does not allow to upgrade the pod. A pod that is down
// already makes nothing worse, but no more of those than the budget's limit are upgraded at
// once either: a bad version must not take all that are down. One that is counted and serves
// all the same, because its last upgrade is not settled, is taken down within the limit alone.
func (a *account) refuses(pod *fleet.PodState) string {
	serves := !pod.Available && fleet.Ready(pod.Pod)
	if (pod.Available && a.unavailable >= a.limit) || (serves && a.unavailable > a.limit) {
		return fmt.Sprintf("%d of %d pods of %s are unavailable, the budget allows %d", a.unavailable, a.total, a.name, a.limit)
	}
	if !pod.Available && pod.Verdict.State != fleet.Updating && a.upgrading >= a.limit {
		return fmt.Sprintf("%d pods of %s are being upgraded, the budget allows %d", a.upgrading, a.name, a.limit)
	}
	return ""
}

func (a *account) take(pod *fleet.PodState) {
	if pod.Available {
		a.unavailable++
	}
	if pod.Verdict.State != fleet.Updating {
		a.upgrading++
	}
}

// disrupt reserves the pod in every PodDisruptionBudget that covers it. One that is not
// Ready is down for them already, and one in the middle of an upgrade is reserved by
// fleet.Allowance. A Ready one counts as healthy for them, even where its last upgrade failed.
func (l *ledger) disrupt(pod *fleet.PodState) string {
	if !fleet.Ready(pod.Pod) {
		return ""
	}
	need := 1
	if pod.Verdict.State == fleet.Updating {
		need = 0
	}
	var covering []*fleet.Disruption
	for i := range l.disruptions {
		d := &l.disruptions[i]
		if !d.Covers(pod.Pod) {
			continue
		}
		if d.Allowed < need {
			return fmt.Sprintf("PodDisruptionBudget %s/%s allows no disruption now", d.Namespace, d.Name)
		}
		covering = append(covering, d)
	}
	for _, d := range covering {
		d.Allowed -= need
	}
	return ""
}
