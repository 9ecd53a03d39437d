package controllers

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
)

// A pod that refuses an upgrade is tried again after refusalBackoff, doubled each
// time up to maxRefusalBackoff.
const (
	refusalBackoff    = 10 * time.Second
	maxRefusalBackoff = 10 * time.Minute
)

// refusals remembers which pods refused their last upgrade, so that others are tried
// before them. It is a memory of when to try again and no more: a manager that starts
// without it tries at once. It is safe for concurrent use.
type refusals struct {
	mu     sync.Mutex
	byName map[string]*policyRefusals
}

func (r *refusals) of(policy string) *policyRefusals {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byName == nil {
		r.byName = map[string]*policyRefusals{}
	}
	if r.byName[policy] == nil {
		r.byName[policy] = &policyRefusals{pods: map[types.UID]refusal{}}
	}
	return r.byName[policy]
}

func (r *refusals) forget(policy string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byName, policy)
}

type refusal struct {
	fleet.Refusal
	backoff time.Duration
}

type policyRefusals struct {
	mu   sync.Mutex
	pods map[types.UID]refusal
}

// fresh is the pod's last refusal; nil when it has none.
func (r *policyRefusals) fresh(pod *corev1.Pod) *fleet.Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	found, ok := r.pods[pod.UID]
	if !ok {
		return nil
	}
	refusal := found.Refusal // of its own, so that pods without one cost nothing
	return &refusal
}

func (r *policyRefusals) add(pod *corev1.Pod, err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	backoff := refusalBackoff
	if before, ok := r.pods[pod.UID]; ok {
		backoff = min(2*before.backoff, maxRefusalBackoff)
	}
	r.pods[pod.UID] = refusal{Refusal: fleet.Refusal{Message: err.Error(), Until: now.Add(backoff)}, backoff: backoff}
}

func (r *policyRefusals) clear(pod *corev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pods, pod.UID)
}

// keepOnly forgets pods that are no longer in the fleet.
func (r *policyRefusals) keepOnly(fleets ...[]fleet.Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pods) == 0 {
		return
	}
	kept := map[types.UID]refusal{}
	for _, members := range fleets {
		for i := range members {
			if found, ok := r.pods[members[i].Pod.UID]; ok {
				kept[members[i].Pod.UID] = found
			}
		}
	}
	r.pods = kept
}
