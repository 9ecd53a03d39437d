package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// How much garbage may gather between two collections, where GOGC does not say otherwise. Nearly all of a large heap is
// the cache of pods, which is not garbage: to let it double would cost memory and win little CPU. A small heap would be
// collected every few dozen pods that are created, at the cost of the answers that the API server waits for.
const (
	gcPercent  = 25
	minGarbage = 20 << 20
)

// paceCollections lets so much garbage gather, from now on and after each collection.
func paceCollections() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	debug.SetGCPercent(percentOf(live[0].Value.Uint64()))
	// What nobody refers to is cleaned up after the next collection.
	runtime.AddCleanup(new(*byte), func(struct{}) { paceCollections() }, struct{}{})
}

// percentOf is the GOGC for a heap of which so many bytes are in use.
func percentOf(live uint64) int {
	const most = 1000 // also while nothing is in use yet
	if live < minGarbage*100/most {
		return most
	}
	return max(gcPercent, int(minGarbage*100/live))
}
