package controllers

import (
	"context"
	"strings"
	"sync"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/analysis"
)

// measurements are those that are being made beside the passes, since an answer may take a
// minute, and the answers that no pass has seen yet. A manager that starts without them asks
// again. It is safe for concurrent use.
type measurements struct {
	// answered wakes the policy that an answer is for. Where it is nil, nobody is woken.
	answered chan event.TypedGenericEvent[*v1alpha1.SidecarPolicy]

	mu    sync.Mutex
	asked map[string]bool
	done  map[string][]analysis.Measurement
}

// take hands over what was answered for a policy.
func (m *measurements) take(policy string) []analysis.Measurement {
	m.mu.Lock()
	defer m.mu.Unlock()
	done := m.done[policy]
	delete(m.done, policy)
	return done
}

// begin says whether nobody is asking this already.
func (m *measurements) begin(key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked[key] {
		return false
	}
	if m.asked == nil {
		m.asked, m.done = map[string]bool{}, map[string][]analysis.Measurement{}
	}
	m.asked[key] = true
	return true
}

func (m *measurements) end(key string, policy *v1alpha1.SidecarPolicy, answer analysis.Measurement) {
	m.mu.Lock()
	delete(m.asked, key)
	m.done[policy.Name] = append(m.done[policy.Name], answer)
	m.mu.Unlock()
	if m.answered != nil {
		m.answered <- event.TypedGenericEvent[*v1alpha1.SidecarPolicy]{Object: policy}
	}
}

// measure asks what is due and not being asked already.
func (r *SidecarPolicyReconciler) measure(ctx context.Context, p *pass) {
	due := &p.plan.Summary.Analysis
	for _, query := range due.Due {
		key := strings.Join([]string{p.policy.Name, due.Vars.Revision, due.Vars.Step, query.Name}, "/")
		if !r.measurements.begin(key) {
			continue
		}
		go func() {
			// The answer outlives the pass; the query's own timeout ends it.
			answer := analysis.Client{}.Measure(context.WithoutCancel(ctx), query, due.Vars, r.Clock.Now())
			ctrl.LoggerFrom(ctx).Info("measured", "query", query.Name, "result", answer.Result, "message", answer.Message)
			r.measurements.end(key, p.policy, answer)
		}()
	}
}
