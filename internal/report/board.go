package report

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Board is where policies say what they see, and where reports are made from. It holds nothing that the
// next pass over a policy would not say again.
type Board struct {
	mu       sync.Mutex
	policies map[string]map[types.NamespacedName]Entry
	left     map[types.NamespacedName]time.Time
	changed  func(types.NamespacedName)
}

// Watch tells of every report of which an entry changes, and of all there are now.
func (b *Board) Watch(changed func(types.NamespacedName)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed = changed
	for _, entries := range b.policies {
		for key := range entries {
			changed(key)
		}
	}
}

// Post replaces all that a policy has to say.
func (b *Board) Post(policy string, entries map[types.NamespacedName]Entry, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.policies == nil {
		b.policies, b.left = map[string]map[types.NamespacedName]Entry{}, map[types.NamespacedName]time.Time{}
	}
	before := b.policies[policy]
	b.policies[policy] = entries
	for key := range before {
		if _, stays := entries[key]; !stays {
			b.left[key] = now
			b.tell(key)
		}
	}
	for key, entry := range entries {
		delete(b.left, key)
		if old, known := before[key]; !known || !alike(&old, &entry) {
			b.tell(key)
		}
	}
}

// alike says whether two entries come to the same report, written at the same time.
func alike(a, b *Entry) bool {
	return a.Workload.UID == b.Workload.UID && a.Updating == b.Updating && sameParts(a.Report, b.Report)
}

// Withdraw drops all that a policy had to say, because it is gone.
func (b *Board) Withdraw(policy string, now time.Time) {
	b.Post(policy, nil, now)
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.policies, policy)
}

func (b *Board) tell(key types.NamespacedName) {
	if b.changed != nil {
		b.changed(key)
	}
}

// Of are the entries of one report, in the order of the policies. Where there are none, left is when the
// last of them went; zero where there never was one.
func (b *Board) Of(key types.NamespacedName) (entries []Entry, left time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, of := range b.policies {
		if entry, ok := of[key]; ok {
			entries = append(entries, entry)
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Report.Policy, b.Report.Policy) })
	return entries, b.left[key]
}

// Forget drops what is remembered of a report that is gone.
func (b *Board) Forget(key types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.left, key)
}

// Knows says whether a policy has said what it sees.
func (b *Board) Knows(policy string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, known := b.policies[policy]
	return known
}
