package fleet_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

func TestPromise3AllowanceIsNeverMoreThanThePodsBear(t *testing.T) {
	healthy := func(i int) *builders.PodBuilder {
		return builders.Pod("shop", fmt.Sprintf("cart-%d", i)).Label("app", "cart").Injected(policy, r1)
	}
	// inFlight was patched a moment ago; status does not show it yet.
	inFlight := func(i int) *builders.PodBuilder { return healthy(i).Upgraded(policy, r2, builders.At(99)) }
	for _, tc := range []struct {
		name string
		pdb  *builders.PDBBuilder
		pods []*builders.PodBuilder
		want int
	}{
		{"as the controller says", builders.PDB("shop", "cart", 2, 2), []*builders.PodBuilder{healthy(1), healthy(2), healthy(3), healthy(4)}, 2},
		{"no more than the controller says", builders.PDB("shop", "cart", 2, 1), []*builders.PodBuilder{healthy(1), healthy(2), healthy(3), healthy(4)}, 1},
		{"the controller has not seen the spec", builders.PDB("shop", "cart", 2, 2).With(func(p *policyv1.PodDisruptionBudget) { p.Generation = 2 }),
			[]*builders.PodBuilder{healthy(1), healthy(2), healthy(3), healthy(4)}, 0},
		{"an upgrade that the controller can't see", builders.PDB("shop", "cart", 2, 2), []*builders.PodBuilder{healthy(1), healthy(2), healthy(3), inFlight(4)}, 1},
		{"two of them", builders.PDB("shop", "cart", 2, 2), []*builders.PodBuilder{healthy(1), healthy(2), inFlight(3), inFlight(4)}, 0},
		{"more than the controller allows", builders.PDB("shop", "cart", 1, 1), []*builders.PodBuilder{healthy(1), inFlight(2), inFlight(3)}, -1},
		{"a pod went down since the controller looked", builders.PDB("shop", "cart", 2, 2),
			[]*builders.PodBuilder{healthy(1), healthy(2), healthy(3), healthy(4).NotReady(builders.At(99))}, 1},
		{"an upgrade that took readiness is not counted twice", builders.PDB("shop", "cart", 2, 1),
			[]*builders.PodBuilder{healthy(1), healthy(2), healthy(3), inFlight(4).NotReady(builders.At(99))}, 1},
		{"an eviction under way", builders.PDB("shop", "cart", 2, 2).With(func(p *policyv1.PodDisruptionBudget) {
			p.Status.DisruptedPods = map[string]metav1.Time{"cart-4": metav1.NewTime(builders.At(99))}
		}), []*builders.PodBuilder{healthy(1), healthy(2), healthy(3), healthy(4)}, 1},
		{"a pod that is being deleted", builders.PDB("shop", "cart", 2, 2), []*builders.PodBuilder{healthy(1), healthy(2), healthy(3),
			healthy(4).With(func(p *corev1.Pod) { now := metav1.NewTime(builders.At(99)); p.DeletionTimestamp = &now })}, 1},
		{"pods of others", builders.PDB("shop", "cart", 2, 2), []*builders.PodBuilder{healthy(1), healthy(2), healthy(3),
			healthy(4).Label("app", "till"), builders.Pod("office", "cart-5").Label("app", "cart")}, 1},
		{"fewer than desired", builders.PDB("shop", "cart", 5, 1), []*builders.PodBuilder{healthy(1)}, -4},
		{"a selector that can't be read", builders.PDB("shop", "cart", 0, 5).With(func(p *policyv1.PodDisruptionBudget) {
			p.Spec.Selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Like"}}}
		}), []*builders.PodBuilder{healthy(1)}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var pods []*corev1.Pod
			for _, pod := range tc.pods {
				pods = append(pods, pod.Obj())
			}
			if got := fleet.Allowance(tc.pdb.Obj(), pods, viewAt(100, r2, r1)); got.Allowed != tc.want {
				t.Errorf("Allowed = %d, want %d", got.Allowed, tc.want)
			}
		})
	}
}

func TestDisruptionCoversPodsOfItsNamespaceAlone(t *testing.T) {
	everything := builders.PDB("shop", "cart", 0, 1).With(func(p *policyv1.PodDisruptionBudget) { p.Spec.Selector = &metav1.LabelSelector{} })
	nothing := builders.PDB("shop", "cart", 0, 1).With(func(p *policyv1.PodDisruptionBudget) { p.Spec.Selector = nil })
	for _, tc := range []struct {
		name string
		pdb  *builders.PDBBuilder
		pod  *builders.PodBuilder
		want bool
	}{
		{"selected", builders.PDB("shop", "cart", 0, 1), builders.Pod("shop", "a").Label("app", "cart"), true},
		{"another label", builders.PDB("shop", "cart", 0, 1), builders.Pod("shop", "a").Label("app", "till"), false},
		{"another namespace", builders.PDB("shop", "cart", 0, 1), builders.Pod("office", "a").Label("app", "cart"), false},
		{"an empty selector is every pod", everything, builders.Pod("shop", "a"), true},
		{"no selector is none", nothing, builders.Pod("shop", "a"), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := fleet.Allowance(tc.pdb.Obj(), nil, viewAt(0, r1))
			if got := d.Covers(tc.pod.Obj()); got != tc.want {
				t.Errorf("Covers() = %t, want %t", got, tc.want)
			}
		})
	}
}
