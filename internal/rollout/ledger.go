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

// group is a set of pods that a budget is counted over.
type group struct {
	per      v1alpha1.BudgetScope
	workload fleet.Workload
	key      string
}

func (g group) name(topologyKey string) string {
	switch g.per {
	case v1alpha1.PerWorkload:
		return g.workload.String()
	case v1alpha1.PerNamespace:
		return "namespace " + g.key
	case v1alpha1.PerTopology:
		return fmt.Sprintf("nodes with %s=%s", topologyKey, g.key)
	}
	return "the fleet"
}

// ledger reserves what budgets allow, pod by pod. What is reserved stays reserved
// for the whole pass.
type ledger struct {
	topologyKey string
	scopes      []v1alpha1.BudgetScope
	accounts    map[group]*account
	disruptions []fleet.Disruption
}

// books hold one ledger for all that a plan does, made when something is to be reserved.
type books struct {
	in     *Input
	ledger *ledger
}

func (b *books) open() *ledger {
	if b.ledger == nil {
		b.ledger = newLedger(*b.in)
	}
	return b.ledger
}

func newLedger(in Input) *ledger {
	l := &ledger{
		scopes:      []v1alpha1.BudgetScope{v1alpha1.PerFleet, v1alpha1.PerWorkload},
		accounts:    map[group]*account{},
		disruptions: append([]fleet.Disruption(nil), in.Disruptions...),
	}
	if in.Spec.Budget(v1alpha1.PerNamespace) != nil {
		l.scopes = append(l.scopes, v1alpha1.PerNamespace)
	}
	if budget := in.Spec.Budget(v1alpha1.PerTopology); budget != nil {
		l.scopes = append(l.scopes, v1alpha1.PerTopology)
		l.topologyKey = budget.TopologyKey
	}
	for _, pods := range [][]fleet.PodState{in.Pods, in.Deselected, in.Companions} {
		l.count(pods)
	}
	for i := range in.Vacancies {
		v := &in.Vacancies[i]
		for _, a := range l.accountsOf(v.Workload, v.Node) {
			a.total, a.unavailable, a.upgrading = a.total+1, a.unavailable+1, a.upgrading+1
		}
	}
	for g, a := range l.accounts {
		a.limit = in.Spec.MaxUnavailable(g.per, a.total)
	}
	return l
}

func (l *ledger) count(pods []fleet.PodState) {
	for i := range pods {
		pod := &pods[i]
		for _, a := range l.accountsOf(pod.Workload, pod.Node) {
			a.add(pod)
		}
	}
}

// BudgetUse is, for each scope that has a budget, how many pods are unavailable as a part of what the
// budget allows, in the group in which that is the most. Vacancies count as unavailable.
func BudgetUse(in Input) map[v1alpha1.BudgetScope]float64 {
	use := map[v1alpha1.BudgetScope]float64{}
	for g, a := range newLedger(in).accounts {
		use[g.per] = max(use[g.per], float64(a.unavailable)/float64(a.limit))
	}
	return use
}

// accountsOf are the groups that a pod of a workload is in on a node, in a fixed order.
func (l *ledger) accountsOf(workload fleet.Workload, node fleet.Node) []*account {
	accounts := make([]*account, len(l.scopes))
	for i, per := range l.scopes {
		g := l.groupOf(per, workload, node)
		if l.accounts[g] == nil {
			l.accounts[g] = &account{name: g.name(l.topologyKey)}
		}
		accounts[i] = l.accounts[g]
	}
	return accounts
}

func (l *ledger) groupOf(per v1alpha1.BudgetScope, workload fleet.Workload, node fleet.Node) group {
	g := group{per: per}
	switch per {
	case v1alpha1.PerWorkload:
		g.workload = workload
	case v1alpha1.PerNamespace:
		g.key = workload.Namespace
	case v1alpha1.PerTopology:
		g.key = node.Labels[l.topologyKey]
	}
	return g
}

func (a *account) add(pod *fleet.PodState) {
	a.total++
	if !pod.Available {
		a.unavailable++
	}
	if pod.Busy || pod.Underway() {
		a.upgrading++
	}
}

// reserve takes the pod out of all its budgets and returns "", or says which
// budget does not allow it and takes nothing.
func (l *ledger) reserve(pod *fleet.PodState) string {
	accounts := l.accountsOf(pod.Workload, pod.Node)
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
	if !pod.Available && !pod.Underway() && a.upgrading >= a.limit {
		return fmt.Sprintf("%d pods of %s are being upgraded, the budget allows %d", a.upgrading, a.name, a.limit)
	}
	return ""
}

func (a *account) take(pod *fleet.PodState) {
	if pod.Available {
		a.unavailable++
	}
	if !pod.Underway() {
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
	if pod.Underway() {
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
