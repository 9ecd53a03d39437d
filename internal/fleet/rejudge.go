package fleet

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// Judgement is what the pods of a fleet are from one point of view.
type Judgement struct {
	// Pods are in the order of namespace and name.
	Pods []PodState
	view View
}

// Rejudge says what Judge says. What the last judgement of the policy found of pods that have not
// changed since is taken over where time plays no part in it: most of a fleet, in most passes. The last
// one may be nil, and may be of another view. Its memory is used where the fleet has the same pods: it must
// not be looked at any more.
func Rejudge(last *Judgement, members []Member, view *View) *Judgement {
	view.Records.turn(view.Now)
	ordered := inOrder(members)
	j := &Judgement{Pods: last.room(ordered), view: *view}
	var before []PodState
	if last != nil && last.view.alike(view) {
		before = last.Pods
	}
	stale, sizes := staleness{view: view, memo: map[string]string{}}, newSizes(view)
	for i, member := range ordered {
		for len(before) > 0 && before[0].Pod != member.Pod && CompareNames(before[0].Pod, member.Pod) < 0 {
			before = before[1:] // gone
		}
		if len(before) > 0 && before[0].standsFor(member) {
			j.Pods[i] = before[0]
			j.Pods[i].Member = *member
			continue
		}
		j.Pods[i] = judgeMember(member, view, stale, sizes)
	}
	return j
}

// room is where the states of the members go: to where they were, if all have the same place as before.
func (j *Judgement) room(members []*Member) []PodState {
	if j == nil || len(j.Pods) != len(members) {
		return make([]PodState, len(members))
	}
	for i, m := range members {
		if was := j.Pods[i].Pod; was != m.Pod && was.UID != m.Pod.UID {
			return make([]PodState, len(members))
		}
	}
	return j.Pods
}

// alike says whether a pod is the same in both views, where time plays no part.
func (v *View) alike(o *View) bool {
	return v.watchesLike(o) && v.Policy == o.Policy && v.Since.Equal(o.Since) && v.Target.Hash == o.Target.Hash && v.TakesOut == o.TakesOut &&
		v.RestartedAt.Equal(o.RestartedAt) && maps.Equal(v.Contents, o.Contents) &&
		slices.EqualFunc(v.Revisions, o.Revisions, func(a, b revision.Revision) bool { return a.Hash == b.Hash }) &&
		equality.Semantic.DeepEqual(v.Health, o.Health)
}

func (v *View) watchesLike(o *View) bool {
	return v.Watching == o.Watching && v.WatchedSince.Equal(o.WatchedSince) && v.GuardTime == o.GuardTime
}

// standsFor says whether the member is still what was found: it is the same pod, as its owner, its namespace and its
// node are, and no moment was named at which time alone changes it.
func (p *PodState) standsFor(m *Member) bool {
	samePod := p.Pod == m.Pod || (p.Pod.UID == m.Pod.UID && p.Pod.ResourceVersion == m.Pod.ResourceVersion)
	same := samePod && p.Owner.Settled == m.Owner.Settled && p.Node.alike(&m.Node) && ptr.Equal(p.Forbidden, m.Forbidden)
	return same && p.Recheck.IsZero() && p.Verdict.Recheck.IsZero()
}

// alike says whether a pod is judged alike on both nodes.
func (n *Node) alike(o *Node) bool {
	return n.OldKubelet == o.OldKubelet && n.NoResize == o.NoResize && n.Down == o.Down && n.UpSince.Equal(o.UpSince) && n.Labels[corev1.LabelOSStable] == o.Labels[corev1.LabelOSStable]
}
