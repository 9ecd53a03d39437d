package plugin

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// Whether pods that lack the sidecars are replaced depends on whether new ones get them, once the spec is stored.
func TestPlanForeseesInjection(t *testing.T) {
	policy := func(paused bool, injecting metav1.ConditionStatus) *v1alpha1.SidecarPolicy {
		p := newPolicy("logs")
		p.Spec.Injection.Paused = paused
		p.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionInjecting, Status: injecting}}
		return p
	}
	for _, tc := range []struct {
		name    string
		current *v1alpha1.SidecarPolicy
		pauses  bool
		want    bool
	}{
		{"a new policy", nil, false, true},
		{"a new policy that does not inject", nil, true, false},
		{"injection goes on", policy(false, metav1.ConditionTrue), false, true},
		{"injection that has trouble goes on", policy(false, metav1.ConditionFalse), false, false},
		{"injection begins", policy(true, metav1.ConditionFalse), false, true},
		{"injection ends", policy(false, metav1.ConditionTrue), true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			proposed := newPolicy("logs")
			proposed.Spec.Injection.Paused = tc.pauses
			if tc.current != nil {
				tc.current.Status.DeepCopyInto(&proposed.Status)
			}
			foresee(tc.current, proposed)
			if got := meta.IsStatusConditionTrue(proposed.Status.Conditions, v1alpha1.ConditionInjecting); got != tc.want {
				t.Errorf("new pods get the sidecars: %t, want %t", got, tc.want)
			}
		})
	}
}
