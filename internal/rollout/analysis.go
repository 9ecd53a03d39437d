package rollout

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/analysis"
)

// Analysis is what is to be measured now.
type Analysis struct {
	// Due are the queries, Vars what their templates know.
	Due  []analysis.Query
	Vars analysis.Vars
}

// Queries are the policy's in the analysis' own words.
func Queries(spec *v1alpha1.RolloutSpec) []analysis.Query {
	queries := make([]analysis.Query, len(spec.Analysis))
	for i, q := range spec.Analysis {
		queries[i] = analysis.Query{
			Name:              q.Name,
			Prometheus:        analysis.PrometheusQuery{Address: q.Prometheus.Address, Query: q.Prometheus.Query},
			SuccessCondition:  q.SuccessCondition,
			FailureCondition:  q.FailureCondition,
			InitialDelay:      duration(q.InitialDelay),
			Interval:          duration(q.Interval),
			Timeout:           time.Duration(ptr.Deref(q.TimeoutSeconds, 0)) * time.Second,
			Count:             ptr.Deref(q.Count, 0),
			FailureLimit:      ptr.Deref(q.FailureLimit, 0),
			InconclusiveLimit: q.InconclusiveLimit,
		}
	}
	return queries
}

func duration(d *metav1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return d.Duration
}

// analyse judges the step by the policy's queries, and says whether it may end. What is to be
// remembered goes into the step.
func analyse(in *Input, s *Summary, step *v1alpha1.Step, at *v1alpha1.StepStatus) bool {
	if len(in.Spec.Analysis) == 0 {
		at.Analysis = nil
		return true
	}
	s.Analysis.Vars = analysis.Vars{Policy: in.Policy, Revision: in.Target.Hash, Step: step.Name, Namespaces: namespacesOf(in)}
	states := statesOf(at)
	for _, m := range in.Measurements {
		states = analysis.Record(states, m)
	}
	judged := analysis.Judge(Queries(in.Spec), states, s.Analysis.Vars, at.UpdatedAt.Add(step.SoakTime()), in.Now)
	at.Analysis = statusOf(judged.States)
	s.Analysis.Due, s.MeasureAt = judged.Due, judged.Next
	switch judged.Outcome {
	case analysis.Passed:
		return true
	case analysis.Failed:
		s.FailedRevision, s.FailureMessage = in.Target.Hash, Cut("analysis failed: "+judged.Message)
	default:
		s.Analyzing = judged.Message
	}
	return false
}

// namespacesOf are those of the pods that run the target.
func namespacesOf(in *Input) []string {
	seen := map[string]bool{}
	var names []string
	for i := range in.Pods {
		pod := &in.Pods[i]
		if pod.OnTarget && !seen[pod.Pod.Namespace] {
			seen[pod.Pod.Namespace] = true
			names = append(names, pod.Pod.Namespace)
		}
	}
	slices.Sort(names)
	return names
}

func statesOf(at *v1alpha1.StepStatus) []analysis.State {
	states := make([]analysis.State, len(at.Analysis))
	for i, a := range at.Analysis {
		states[i] = analysis.State{
			Name: a.Name, Subject: a.Subject, StartedAt: a.StartedAt.Time,
			Successful: a.Successful, Failed: a.Failed, Inconclusive: a.Inconclusive, InconclusiveInARow: a.InconclusiveInARow,
			LastAt: ptr.Deref(a.LastAt, metav1.Time{}).Time, LastValue: a.LastValue, Message: a.Message,
		}
	}
	return states
}

func statusOf(states []analysis.State) []v1alpha1.AnalysisStatus {
	list := make([]v1alpha1.AnalysisStatus, len(states))
	for i, s := range states {
		list[i] = v1alpha1.AnalysisStatus{
			Name: s.Name, Subject: s.Subject, StartedAt: metav1.NewTime(s.StartedAt),
			Successful: s.Successful, Failed: s.Failed, Inconclusive: s.Inconclusive, InconclusiveInARow: s.InconclusiveInARow,
			LastValue: s.LastValue, Message: s.Message,
		}
		if !s.LastAt.IsZero() {
			list[i].LastAt = &metav1.Time{Time: s.LastAt}
		}
	}
	return list
}
