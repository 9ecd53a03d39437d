// Package report says how the sidecars of each workload do: what the controller that writes
// SidecarReports needs to know, and when a report is worth a write.
package report

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// maxImages is how many running images of a sidecar are listed.
const maxImages = 8

// maxName is the longest name that an object can have.
const maxName = 253

// KeyOf is where the report of a workload is.
func KeyOf(w fleet.Workload) types.NamespacedName {
	name := strings.ToLower(w.Kind) + "-" + w.Name
	if len(name) > maxName {
		sum := fnv.New64a()
		_, _ = sum.Write([]byte(name)) // never fails
		name = fmt.Sprintf("%s-%x", strings.TrimRight(name[:maxName-17], "-."), sum.Sum64())
	}
	return types.NamespacedName{Namespace: w.Namespace, Name: name}
}

// Entry is what one policy has to say about one workload.
type Entry struct {
	// Workload is the owner of the report.
	Workload metav1.OwnerReference
	// Born is when the first of its pods that the policy selects was created.
	Born time.Time
	// Updating says whether a roll-out over its pods has begun and is not over, whatever the worst of them is.
	Updating bool
	// Report lacks only Since.
	Report v1alpha1.ReportedPolicy
}

// Entries are what a policy has to say, by the report that it belongs into. Pods come from fleet.Judge.
func Entries(policy string, target *revision.Revision, pods []fleet.PodState) map[types.NamespacedName]Entry {
	tallies := map[fleet.Workload]*tally{}
	var last *tally
	for i := range pods {
		pod := &pods[i]
		if last == nil || last.workload != pod.Workload {
			last = tallies[pod.Workload]
		}
		if last == nil {
			last = newTally(pod, &target.Template)
			tallies[pod.Workload] = last
		}
		last.count(pod)
	}
	entries := make(map[types.NamespacedName]Entry, len(tallies))
	for workload, t := range tallies {
		entries[KeyOf(workload)] = Entry{Workload: t.owner, Born: t.born, Updating: t.updating(), Report: t.report(policy, target.Hash)}
	}
	return entries
}

// tally counts the pods of one workload.
type tally struct {
	workload fleet.Workload
	owner    metav1.OwnerReference
	born     time.Time
	template *v1alpha1.SidecarTemplate
	counts   v1alpha1.ReportCounts
	// running counts the images of each sidecar of the template.
	running []map[string]int32
	// outdated pods can be moved in place, moving are those that are, moved have the target; stale
	// ones lack what only a new pod brings.
	outdated, moving, moved, stale int
	reason                         v1alpha1.Reason
	message                        string
	changed                        time.Time
}

func newTally(pod *fleet.PodState, template *v1alpha1.SidecarTemplate) *tally {
	t := &tally{workload: pod.Workload, template: template, owner: ownerOf(&pod.Member), running: make([]map[string]int32, len(template.Sidecars))}
	for i := range t.running {
		t.running[i] = map[string]int32{}
	}
	return t
}

// ownerOf is the workload; a bare pod is its own.
func ownerOf(member *fleet.Member) metav1.OwnerReference {
	if top := member.Top; top != nil {
		return metav1.OwnerReference{APIVersion: top.APIVersion, Kind: top.Kind, Name: top.Name, UID: top.UID}
	}
	return metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: member.Pod.Name, UID: member.Pod.UID}
}

func (t *tally) count(pod *fleet.PodState) {
	t.counts.Selected++
	if born := pod.Pod.CreationTimestamp.Time; t.born.IsZero() || born.Before(t.born) {
		t.born = born
	}
	t.blame(pod)
	if !pod.Injected {
		t.counts.Missing++
		return
	}
	failed := rollout.FailedOnTarget(pod) || pod.Refusal != nil
	t.counts.Updated += one(pod.Updated())
	t.counts.Ready += one(pod.Available)
	t.counts.Failed += one(failed)
	t.place(pod)
	if pod.UpgradedAt.After(t.changed) {
		t.changed = pod.UpgradedAt
	}
	for i := range t.template.Sidecars {
		if image := imageOf(pod, &t.template.Sidecars[i].Container); image != "" {
			t.running[i][image]++
		}
	}
}

func one(is bool) int32 {
	if is {
		return 1
	}
	return 0
}

// place counts how far the pod is on its way.
func (t *tally) place(pod *fleet.PodState) {
	switch {
	case pod.Underway():
		t.moving++
	case pod.Outdated():
		t.outdated++
	case pod.Stale != "":
		t.stale++
	case pod.OnTarget:
		t.moved++
	}
}

// blame keeps the worst trouble, of pods with the same that of the first.
func (t *tally) blame(pod *fleet.PodState) {
	reason, message := rollout.Trouble(pod)
	if reason != "" && (t.reason == "" || rollout.Severity(reason) < rollout.Severity(t.reason)) {
		t.reason, t.message = reason, rollout.Cut("pod "+pod.Pod.Name+": "+message)
	}
}

// imageOf is what the sidecar runs in a pod; empty where the pod does not have it.
func imageOf(pod *fleet.PodState, sidecar *corev1.Container) string {
	for i := range pod.Images {
		if pod.Images[i].Container == sidecar.Name {
			return pod.Images[i].Running
		}
	}
	for _, list := range [][]corev1.Container{pod.Pod.Spec.InitContainers, pod.Pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == sidecar.Name {
				return sidecar.Image
			}
		}
	}
	return ""
}

func (t *tally) report(policy, wanted string) v1alpha1.ReportedPolicy {
	r := v1alpha1.ReportedPolicy{Policy: policy, State: t.state(), Reason: t.reason, Message: t.message, Revision: wanted, Pods: t.counts}
	if !t.changed.IsZero() {
		r.LastChangeTime = &metav1.Time{Time: t.changed}
	}
	for i := range t.template.Sidecars {
		sidecar := &t.template.Sidecars[i]
		r.Sidecars = append(r.Sidecars, v1alpha1.ReportedSidecar{Name: sidecar.Name, Wanted: sidecar.Image, Running: ranked(t.running[i])})
	}
	return r
}

func (t *tally) state() v1alpha1.ReportState {
	switch {
	case t.counts.Failed > 0:
		return v1alpha1.ReportFailed
	case t.counts.Missing > 0:
		return v1alpha1.ReportMissing
	case t.updating():
		return v1alpha1.ReportUpdating
	case t.outdated > 0:
		return v1alpha1.ReportWaiting
	case t.stale > 0:
		return v1alpha1.ReportStale
	}
	return v1alpha1.ReportCurrent
}

func (t *tally) updating() bool { return t.moving > 0 || (t.outdated > 0 && t.moved > 0) }

func ranked(running map[string]int32) []v1alpha1.RunningImage {
	var images []v1alpha1.RunningImage
	for image, pods := range running {
		images = append(images, v1alpha1.RunningImage{Image: image, Pods: pods})
	}
	slices.SortFunc(images, func(a, b v1alpha1.RunningImage) int {
		return cmp.Or(cmp.Compare(b.Pods, a.Pods), cmp.Compare(a.Image, b.Image))
	})
	return images[:min(len(images), maxImages)]
}
