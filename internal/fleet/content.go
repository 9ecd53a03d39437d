package fleet

import (
	"maps"
	"time"
)

// Content is what is remembered of the configuration that sidecars of one namespace read.
type Content struct {
	// Hash is of the content.
	Hash string `json:"hash"`
	// ChangedAt is when a change of it was noticed; zero where none ever was.
	ChangedAt time.Time `json:"changedAt,omitzero"`
}

// NoteContent compares the content seen in namespaces with what is remembered. A namespace that is
// seen for the first time has not changed: its pods read what is there. One that is not seen any
// more stays remembered, as its objects may be on their way back.
func NoteContent(known map[string]Content, seen map[string]string, now time.Time) (remembered map[string]Content, changed bool) {
	remembered = maps.Clone(known)
	if remembered == nil {
		remembered = map[string]Content{}
	}
	for namespace, hash := range seen {
		before, met := known[namespace]
		switch {
		case !met:
			remembered[namespace] = Content{Hash: hash}
		case before.Hash != hash:
			remembered[namespace] = Content{Hash: hash, ChangedAt: now}
		default:
			continue
		}
		changed = true
	}
	return remembered, changed
}

// LastChange is the latest change of any content; zero where there was none.
func LastChange(contents map[string]Content) time.Time {
	var last time.Time
	for _, content := range contents {
		if content.ChangedAt.After(last) {
			last = content.ChangedAt
		}
	}
	return last
}
