// Package metrics holds the operator's own metrics. Their labels are bounded:
// policies and reasons, never pods.
package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

var (
	pods = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sidecar_operator_pods",
		Help: "Pods of a policy's fleet by state. A pod can be in several states.",
	}, []string{"policy", "state"})

	injections = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sidecar_operator_injections_total",
		Help: "Pod creations seen for a policy, by what came of them: injected, unchanged or skipped, with the reason.",
	}, []string{"policy", "result", "reason"})

	writes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sidecar_operator_pod_writes_total",
		Help: "Writes of running pods (upgrade, evict, drain, undrain, and try: a dry run), by what the API server answered: accepted, conflict, gone, refused or unavailable.",
	}, []string{"policy", "action", "result"})
)

func init() {
	metrics.Registry.MustRegister(pods, injections, writes)
}

// InjectionResult is what came of a pod creation.
type InjectionResult string

// The results of an injection.
const (
	Injected  InjectionResult = "injected"
	Unchanged InjectionResult = "unchanged"
	Skipped   InjectionResult = "skipped"
)

// ObserveInjection counts one pod creation.
func ObserveInjection(policy string, result InjectionResult, reason v1alpha1.Reason) {
	injections.WithLabelValues(policy, string(result), string(reason)).Inc()
}

// ObserveWrite counts one answer to a write of a running pod.
func ObserveWrite(policy, action, result string) {
	writes.WithLabelValues(policy, action, result).Inc()
}

// SetPods publishes the counts of a policy's fleet.
func SetPods(policy string, c *v1alpha1.PodCounts) {
	for state, count := range map[string]int32{
		"selected": c.Selected, "injected": c.Injected, "updated": c.Updated, "ready": c.Ready,
		"unavailable": c.Unavailable, "failed": c.Failed, "missing": c.Missing,
		"drifted": c.Drifted, "stale": c.Stale, "conflicting": c.Conflicting, "exempt": c.Exempt,
	} {
		pods.WithLabelValues(policy, state).Set(float64(count))
	}
}

// Forget removes everything about a policy that is gone.
func Forget(policy string) {
	match := prometheus.Labels{"policy": policy}
	pods.DeletePartialMatch(match)
	injections.DeletePartialMatch(match)
	writes.DeletePartialMatch(match)
}
