// Package metrics holds the operator's own metrics. Their labels are bounded:
// policies, reasons and other words of the API, never pods, workloads or namespaces.
// docs/metrics.md describes them all.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

var (
	pods = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sidecar_operator_pods",
		Help: "Pods of a policy's fleet by state. A pod can be in several states.",
	}, []string{"policy", "state"})

	conditions = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sidecar_operator_policy_condition",
		Help: "1 for the status that a condition of a policy has.",
	}, []string{"policy", "type", "status"})

	phases = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sidecar_operator_rollout_phase",
		Help: "1 for the phase that the roll-out of a policy is in, 0 for the others.",
	}, []string{"policy", "phase"})

	steps = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sidecar_operator_rollout_step",
		Help: "The step that the roll-out of a policy has reached, from 1; 0 while nothing is rolled out by steps.",
	}, []string{"policy"})

	budgets = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sidecar_operator_budget_use_ratio",
		Help: "Unavailable pods as a part of what a budget allows, in the group (of all workloads, say) that uses the most. Above 1 other things than roll-outs have taken pods down.",
	}, []string{"policy", "per"})

	upgrades = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "sidecar_operator_upgrade_duration_seconds",
		Help:    "Time from the PATCH of a pod until its sidecars were healthy on the new revision, without minReadySeconds. The kubelet tells it to the second.",
		Buckets: []float64{1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 300, 600},
	}, []string{"policy"})

	failures = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sidecar_operator_upgrade_failures_total",
		Help: "Pods that failed on the revision that they were given, by reason.",
	}, []string{"policy", "reason"})

	injections = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sidecar_operator_injections_total",
		Help: "Pod creations seen for a policy, by what came of them: injected, unchanged or skipped, with the reason.",
	}, []string{"policy", "result", "reason"})

	admissions = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "sidecar_operator_admission_duration_seconds",
		Help:    "Time to answer the API server for a pod that a policy selects, without the network.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, .5, 1, 5},
	}, []string{"policy"})

	writes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sidecar_operator_pod_writes_total",
		Help: "Writes of running pods (upgrade, evict, replace, release, unplug, drain, undrain, and try: a dry run), by what the API server answered: accepted, conflict, gone, refused or unavailable.",
	}, []string{"policy", "action", "result"})

	certificate = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sidecar_operator_certificate_expiry_timestamp_seconds",
		Help: "When the webhook's certificate that this replica serves expires, in seconds since 1970.",
	})
)

// ofPolicies are those with a label for the policy.
var ofPolicies = []interface {
	prometheus.Collector
	DeletePartialMatch(prometheus.Labels) int
}{pods, conditions, phases, steps, budgets, upgrades, failures, injections, admissions, writes}

func init() {
	for _, m := range ofPolicies {
		metrics.Registry.MustRegister(m)
	}
	metrics.Registry.MustRegister(certificate)
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

// ObserveAdmission notes how long one answer to the API server took.
func ObserveAdmission(policy string, took time.Duration) {
	admissions.WithLabelValues(policy).Observe(took.Seconds())
}

// ObserveWrite counts one answer to a write of a running pod.
func ObserveWrite(policy, action, result string) {
	writes.WithLabelValues(policy, action, result).Inc()
}

// ObserveUpgrade notes how long a pod took to get healthy after its PATCH.
func ObserveUpgrade(policy string, took time.Duration) {
	upgrades.WithLabelValues(policy).Observe(max(0, took.Seconds()))
}

// ObserveFailure counts a pod that failed.
func ObserveFailure(policy string, reason v1alpha1.Reason) {
	failures.WithLabelValues(policy, string(reason)).Inc()
}

// SetBudgetUse publishes how much of its budget the fullest group of each scope uses.
func SetBudgetUse(policy string, use map[v1alpha1.BudgetScope]float64) {
	for per, ratio := range use {
		budgets.WithLabelValues(policy, string(per)).Set(ratio)
	}
}

// SetCertificateExpiry publishes until when the webhook can be reached.
func SetCertificateExpiry(at time.Time) { certificate.Set(float64(at.Unix())) }

// SetStatus publishes what the status of a policy says.
func SetStatus(policy string, status *v1alpha1.SidecarPolicyStatus) {
	if status.Pods != nil {
		setPods(policy, status.Pods)
	}
	for _, c := range status.Conditions {
		for _, value := range []metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown} {
			conditions.WithLabelValues(policy, c.Type, string(value)).Set(one(c.Status == value))
		}
	}
	for _, phase := range v1alpha1.Phases {
		phases.WithLabelValues(policy, string(phase)).Set(one(status.Phase == phase))
	}
	step := 0
	if status.Step != nil && status.Step.Index != nil {
		step = int(*status.Step.Index) + 1
	}
	steps.WithLabelValues(policy).Set(float64(step))
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func setPods(policy string, c *v1alpha1.PodCounts) {
	for state, count := range map[string]int32{
		"selected": c.Selected, "injected": c.Injected, "updated": c.Updated, "ready": c.Ready,
		"unavailable": c.Unavailable, "failed": c.Failed, "missing": c.Missing, "held": c.Held,
		"drifted": c.Drifted, "stale": c.Stale, "conflicting": c.Conflicting, "exempt": c.Exempt,
		"deselected": c.Deselected,
	} {
		pods.WithLabelValues(policy, state).Set(float64(count))
	}
}

// Forget removes everything about a policy that is gone.
func Forget(policy string) {
	for _, m := range ofPolicies {
		m.DeletePartialMatch(prometheus.Labels{"policy": policy})
	}
}
