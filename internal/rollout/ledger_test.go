package rollout_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// spread are pods of one Deployment for each namespace, on nodes of zones in turn.
func spread(namespace string, size int, zones ...string) []fleet.Member {
	var members []fleet.Member
	for i := range size {
		m := fleet.Member{Pod: builders.Pod(namespace, fmt.Sprintf("%s-%d", namespace, i)).Injected(policy, r1).Obj(),
			Workload: fleet.Workload{Kind: "Deployment", Namespace: namespace, Name: "app"}}
		if len(zones) > 0 {
			m.Node.Labels = map[string]string{zoneLabel: zones[i%len(zones)]}
		}
		members = append(members, m)
	}
	return members
}

func TestPromise3BudgetsOfNamespacesAndZones(t *testing.T) {
	two := slices.Concat(spread("office", 3, "a", "b"), spread("shop", 3, "a", "b"))
	noNode := slices.Concat(spread("office", 1), spread("shop", 1), spread("till", 1, "a"))
	down := func(members []fleet.Member, i int) []fleet.Member {
		members = slices.Clone(members)
		members[i].Pod = members[i].Pod.DeepCopy()
		builders.SetReady(members[i].Pod, "False", builders.At(50))
		return members
	}
	for _, tc := range []struct {
		name      string
		spec      *builders.RolloutBuilder
		members   []fleet.Member
		vacancies []fleet.Vacancy
		want      []string
		blocked   string
	}{
		{name: "neither holds where it is not written", spec: builders.Rollout(), members: two,
			want: []string{"office-0", "office-1", "office-2", "shop-0", "shop-1", "shop-2"}},
		{name: "per namespace", spec: builders.Rollout().Budget(v1alpha1.PerNamespace, "1"), members: two,
			want: []string{"office-0", "shop-0"}, blocked: "1 of 3 pods of namespace office are unavailable, the budget allows 1"},
		{name: "per namespace, in percent, never nothing", spec: builders.Rollout().Budget(v1alpha1.PerNamespace, "10%"), members: two,
			want: []string{"office-0", "shop-0"}, blocked: "the budget allows 1"},
		{name: "per zone", spec: builders.Rollout().Topology(zoneLabel, "1"), members: two,
			want: []string{"office-0", "office-1"}, blocked: "1 of 4 pods of nodes with topology.kubernetes.io/zone=a are unavailable, the budget allows 1"},
		{name: "pods without a node, or on one without the label, are a zone too", spec: builders.Rollout().Topology(zoneLabel, "1"), members: noNode,
			want: []string{"office-0", "till-0"}, blocked: "1 of 2 pods of nodes with topology.kubernetes.io/zone= are unavailable"},
		{name: "one that is down takes its namespace's budget alone", spec: builders.Rollout().Budget(v1alpha1.PerNamespace, "1"), members: down(two, 1),
			want: []string{"office-1", "shop-0"}, blocked: "namespace office"},
		{name: "what one budget refuses is not taken from another", spec: builders.Rollout().Topology(zoneLabel, "1").Budget(v1alpha1.PerNamespace, "1"), members: two,
			want: []string{"office-0", "shop-1"}, blocked: "namespace office"},
		{name: "a missing pod counts for its zone and its namespace", spec: builders.Rollout().Topology(zoneLabel, "1").Budget(v1alpha1.PerNamespace, "1"), members: two,
			vacancies: []fleet.Vacancy{{Workload: two[0].Workload, Node: two[0].Node}}, want: []string{"shop-1"}, blocked: "1 of 4 pods of namespace office"},
		{name: "and for the fleet", spec: builders.Rollout().Budget(v1alpha1.PerFleet, "1"), members: two,
			vacancies: []fleet.Vacancy{{Workload: two[0].Workload}}, blocked: "1 of 7 pods of the fleet are unavailable"},
		{name: "it is on its way: no other that is down is taken instead", spec: builders.Rollout().Budget(v1alpha1.PerFleet, "1"), members: down(two, 1),
			vacancies: []fleet.Vacancy{{Workload: two[0].Workload}}, blocked: "1 pods of the fleet are being upgraded"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			input := inputAt(100, tc.spec, tc.members)
			input.Vacancies = tc.vacancies
			plan := rollout.Make(input)
			got := names(plan)
			slices.Sort(got)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("upgrades (-want +got):\n%s", diff)
			}
			if !strings.Contains(plan.Summary.Blocked, tc.blocked) || (tc.blocked == "") != (plan.Summary.Blocked == "") {
				t.Errorf("blocked %q, want %q", plan.Summary.Blocked, tc.blocked)
			}
		})
	}
}
