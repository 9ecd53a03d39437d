package render

import "time"

// Tempo tells how long a roll-out still takes from how fast it was while it was watched. The zero
// value has seen nothing yet.
type Tempo struct {
	target  string
	since   time.Time
	updated int32
}

// Note takes a look at a roll-out, and fills in how long it still takes where that can be told: once
// pods have moved while it was watched. Soaks that are still to come are counted; approvals, windows
// and budgets that others use up can't be.
func (t *Tempo) Note(s *Status, now time.Time) {
	if s.Target != t.target || s.Pods.Updated < t.updated {
		*t = Tempo{target: s.Target, since: now, updated: s.Pods.Updated}
	}
	moved, passed := s.Pods.Updated-t.updated, now.Sub(t.since)
	if s.Done || len(s.Steps) == 0 || moved == 0 || passed <= 0 {
		return
	}
	perPod := passed / time.Duration(moved)
	left := int64((perPod*time.Duration(max(0, s.Pods.Injected-s.Pods.Updated)) + s.soaks).Seconds())
	s.Left = &left
}
