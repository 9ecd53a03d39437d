package fleet

import (
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// keepRecords is how long Records remembers what nobody asks for, at least. Of pods of which nothing
// changes, nobody asks.
const keepRecords = time.Minute

// Records reads the records that pods carry, and remembers what it has read: otherwise a pass over
// a fleet in which nothing changed would do little else than parse JSON. What a text says never
// changes, so the memory can't be wrong; it goes with the pods, some time after nobody asks any more.
//
// Nil reads and remembers nothing. It is not safe for concurrent use.
type Records struct {
	injections memory[v1alpha1.InjectionRecord]
	upgrades   memory[v1alpha1.UpgradeRecord]
	keys       map[string]recordKeys
	last       v1alpha1.UpgradeRecord
	turnedAt   time.Time
}

// recordKeys are the names of a policy's label and annotations, which are not put together for every pod.
type recordKeys struct{ revision, injected, upgrade string }

func (r *Records) keysOf(policy string) recordKeys {
	if r == nil {
		return recordKeys{v1alpha1.RevisionLabel(policy), v1alpha1.InjectedAnnotation(policy), v1alpha1.UpgradeAnnotation(policy)}
	}
	keys, known := r.keys[policy]
	if !known {
		keys = (*Records)(nil).keysOf(policy)
		if r.keys == nil {
			r.keys = map[string]recordKeys{}
		}
		r.keys[policy] = keys
	}
	return keys
}

// revision is the value of a policy's label.
func (r *Records) revision(pod *corev1.Pod, policy string) string {
	return pod.Labels[r.keysOf(policy).revision]
}

// injection is what a policy plugged into a pod; nil where that is nothing, or can't be read.
func (r *Records) injection(pod *corev1.Pod, policy string) *v1alpha1.InjectionRecord {
	text, found := pod.Annotations[r.keysOf(policy).injected]
	if !found {
		return nil
	}
	parse := func() (*v1alpha1.InjectionRecord, error) {
		return v1alpha1.ParseInjectionRecord(pod.Annotations, policy)
	}
	if r == nil {
		return unlessBroken(parse())
	}
	return r.injections.recall(text, parse)
}

// upgrade is a policy's last upgrade of a pod in place; nil where there was none, or it can't be read.
func (r *Records) upgrade(pod *corev1.Pod, policy string) *v1alpha1.UpgradeRecord {
	text, found := pod.Annotations[r.keysOf(policy).upgrade]
	if !found {
		return nil
	}
	parse := func() (*v1alpha1.UpgradeRecord, error) { return v1alpha1.ParseUpgradeRecord(pod.Annotations, policy) }
	if r == nil {
		return unlessBroken(parse())
	}
	return r.upgrades.recall(text, func() (*v1alpha1.UpgradeRecord, error) {
		record, err := parse()
		if err == nil {
			r.share(record)
		}
		return record, err
	})
}

// share takes from the record read before what is the same in this one: pods of one roll-out differ in little more
// than the containerIDs, and maps are most of a record.
func (r *Records) share(record *v1alpha1.UpgradeRecord) {
	if r.last.Revision == record.Revision {
		record.Revision = r.last.Revision
	}
	if maps.Equal(r.last.Ran, record.Ran) {
		record.Ran = r.last.Ran
	}
	if maps.Equal(r.last.Restarts, record.Restarts) {
		record.Restarts = r.last.Restarts
	}
	r.last = *record
}

// turn lets go of what was not asked for since the turn before the last one.
func (r *Records) turn(now time.Time) {
	if r == nil || now.Sub(r.turnedAt) < keepRecords {
		return
	}
	r.turnedAt, r.keys = now, nil
	r.injections.turn()
	r.upgrades.turn()
}

// memory maps texts to what they say, in two generations. What it returns is shared, and only read.
type memory[T any] struct{ recent, older map[string]*T }

func (m *memory[T]) recall(text string, parse func() (*T, error)) *T {
	if record, known := m.recent[text]; known {
		return record
	}
	record, known := m.older[text]
	if !known {
		record = unlessBroken(parse())
	}
	if m.recent == nil {
		m.recent = map[string]*T{}
	}
	m.recent[text] = record
	return record
}

func (m *memory[T]) turn() { m.recent, m.older = nil, m.recent }

func unlessBroken[T any](record *T, err error) *T {
	if err != nil {
		return nil
	}
	return record
}
