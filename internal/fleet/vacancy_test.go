package fleet_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

func TestPromise3VacanciesAreThePodsThatOwnersLack(t *testing.T) {
	cart := fleet.Workload{Kind: "Deployment", Namespace: "shop", Name: "cart"}
	zone := fleet.Node{Labels: map[string]string{"zone": "a"}}
	member := func(name string, owner fleet.Owner) fleet.Member {
		return fleet.Member{Pod: builders.Pod("shop", name).Obj(), Workload: cart, Owner: owner, Node: zone}
	}
	owner := func(wanted, lacks int32) fleet.Owner { return fleet.Owner{UID: "rs", Wanted: wanted, Lacks: lacks} }
	unknown := fleet.Owner{UID: "custom", Wanted: -1}
	leaving := fleet.Vacancy{Workload: cart, Owner: "rs", Node: zone, Leaving: true}
	gone := fleet.Vacancy{Workload: cart, Owner: "rs"}
	for _, tc := range []struct {
		name          string
		here, leaving []fleet.Member
		want          []fleet.Vacancy
	}{
		{name: "none is missing", here: []fleet.Member{member("a", owner(2, 0)), member("b", owner(2, 0))}},
		{name: "one leaves, and its owner's status does not show it yet", here: []fleet.Member{member("a", owner(2, 0))},
			leaving: []fleet.Member{member("b", owner(2, 0))}, want: []fleet.Vacancy{leaving}},
		{name: "it shows", here: []fleet.Member{member("a", owner(2, 1))}, leaving: []fleet.Member{member("b", owner(2, 1))}, want: []fleet.Vacancy{leaving}},
		{name: "another one is there already", here: []fleet.Member{member("a", owner(2, 0)), member("c", owner(2, 0))}, leaving: []fleet.Member{member("b", owner(2, 0))}},
		{name: "it is gone", here: []fleet.Member{member("a", owner(2, 1))}, want: []fleet.Vacancy{gone}},
		{name: "status lags behind the pods that are there", here: []fleet.Member{member("a", owner(2, 1)), member("b", owner(2, 1))}},
		{name: "one leaves, one is gone", here: []fleet.Member{member("a", owner(3, 2))}, leaving: []fleet.Member{member("b", owner(3, 2))}, want: []fleet.Vacancy{leaving, gone}},
		{name: "all leave", leaving: []fleet.Member{member("a", owner(2, 0)), member("b", owner(2, 0))}, want: []fleet.Vacancy{leaving, leaving}},
		{name: "scaled down", here: []fleet.Member{member("a", owner(1, 0))}, leaving: []fleet.Member{member("b", owner(1, 0))}},
		{name: "nobody knows how many are wanted", leaving: []fleet.Member{member("a", unknown)},
			want: []fleet.Vacancy{{Workload: cart, Owner: "custom", Node: zone, Leaving: true}}},
		{name: "a bare pod has no place to be filled", leaving: []fleet.Member{member("a", fleet.Owner{Unmanaged: true})}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, fleet.Vacancies(tc.here, tc.leaving)); diff != "" {
				t.Errorf("Vacancies() (-want +got):\n%s", diff)
			}
		})
	}
}

// Two are being deleted, and one has been replaced: that was the one that went first.
func TestTheLastToGoIsStillToBeReplaced(t *testing.T) {
	in := func(name, zone string, deletedAt int) fleet.Member {
		m := fleet.Member{Pod: builders.Pod("shop", name).Obj(), Workload: fleet.Workload{Kind: "Deployment", Namespace: "shop", Name: "cart"},
			Owner: fleet.Owner{UID: "rs", Wanted: 2}, Node: fleet.Node{Labels: map[string]string{"zone": zone}}}
		if deletedAt > 0 {
			m.Pod.DeletionTimestamp = ptr.To(metav1.NewTime(builders.At(deletedAt)))
		}
		return m
	}
	got := fleet.Vacancies([]fleet.Member{in("new", "a", 0)}, []fleet.Member{in("first", "a", 1), in("last", "b", 2)})
	if len(got) != 1 || got[0].Node.Labels["zone"] != "b" {
		t.Errorf("Vacancies() = %+v, want one in zone b", got)
	}
}
