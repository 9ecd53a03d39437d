// Package fleet says what is: the state of every pod that a policy selects, by
// workload. It is pure: it reads pods and returns values.
package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/image"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// Workload is the top controller of a pod, or the bare pod itself.
type Workload struct {
	Kind, Namespace, Name string
}

// String is the workload as people write it: Deployment/shop/cart.
func (w Workload) String() string { return w.Kind + "/" + w.Namespace + "/" + w.Name }

// NamespaceOf is the namespace of a workload that is written like Deployment/shop/cart.
func NamespaceOf(workload string) string {
	_, rest, _ := strings.Cut(workload, "/")
	namespace, _, _ := strings.Cut(rest, "/")
	return namespace
}

// Member is a pod of the fleet with its workload.
type Member struct {
	// Pod is only read; it may come from a cache.
	Pod      *corev1.Pod
	Workload Workload
	// Top refers to the workload; nil for a bare pod. It is only read.
	Top *metav1.OwnerReference
	// NamespaceLabels are those of the pod's namespace.
	NamespaceLabels map[string]string
	// Forbidden is what the namespace does not allow of the target in any pod; nil where there is no such thing.
	Forbidden *inject.Conflict
	// Owner is what replaces the pod when it goes.
	Owner Owner
	// Node is where the pod runs.
	Node Node
	// Exempt: the pod's team asked to be left alone, until ExemptUntil; zero is without an end.
	Exempt      bool
	ExemptUntil time.Time
	// ExemptProblem says why the end can't be read; empty where it can.
	ExemptProblem string
	// Refusal is set while the API server's last refusal to update the pod is fresh.
	Refusal *Refusal
}

// Owner is the direct owner of a pod.
type Owner struct {
	// UID is empty for a bare pod.
	UID string
	// Unmanaged: nobody makes the pod anew, or it would begin its work again.
	Unmanaged bool
	// Settled: the owner has all the replicas that it wants, and they are what it would make
	// now. It is not in the middle of a roll-out of its own.
	Settled bool
	// Wanted is how many pods the owner should have, Lacks how many fewer it says that it has.
	// Wanted is negative where it is not known.
	Wanted, Lacks int32
}

// Node is what is known of a pod's node.
type Node struct {
	// Labels are the node's.
	Labels map[string]string
	// Kubelet is its version where it is known to be too old to restart a native sidecar
	// for a new image; else empty.
	OldKubelet string
	// NoResize says why the resources of containers can't be changed there; empty where they can.
	NoResize string
	// Down: its kubelet is not ready, or does not answer. UpSince is when it last became ready; zero where that is not known.
	Down    bool
	UpSince time.Time
}

// Refusal is an update of a pod that the API server did not take.
type Refusal struct {
	// Message is the API server's.
	Message string
	// Until is when it is tried again.
	Until time.Time
}

// View is one policy's point of view.
type View struct {
	// Policy is the name of the policy.
	Policy string
	// Target is the revision that pods should get.
	Target *revision.Revision
	// Revisions are all that the policy has.
	Revisions []revision.Revision
	// Health holds the settings of every policy by name: a pod in the middle of another
	// policy's upgrade is judged by that policy's.
	Health map[string]*v1alpha1.HealthSpec
	// RestartedAt is the author's restartedAt, Contents the configuration that sidecars read, by
	// namespace: what is restarted when the target has a later restartedAt than the pod was given.
	RestartedAt *metav1.Time
	Contents    map[string]Content
	// Watching: the target is being rolled out, and pods that were upgraded to it are held to
	// HealthSpec's MaxRestarts, GuardApp and MaxSidecarDowntimeSeconds, where they got it after WatchedSince.
	Watching     bool
	WatchedSince time.Time
	// GuardTime is for how long after the upgrade of a pod its app is guarded; see RolloutSpec.GuardTime. Zero is for as long as
	// the roll-out goes on.
	GuardTime time.Duration
	// TakesOut: pods that carry containers which the target has no more are to be recreated, whatever the method.
	TakesOut bool
	// Since is when the policy was created.
	Since time.Time
	// Records remembers what the records on pods say, from one judgement to the next. May be nil.
	Records *Records
	// Now is the time of the judgement.
	Now time.Time
}

// PodState is what one pod of the fleet is, from one policy's point of view.
type PodState struct {
	Member
	// Injected: the pod carries the policy's sidecars. Where it doesn't, only
	// Conflicts, Missed, Busy and Available have a meaning.
	Injected bool
	// Held: the pod is not scheduled before it has the policy's sidecars; see v1alpha1.HoldGate.
	Held bool
	// Missed says when the pod missed the sidecars; empty where it has them or can't have them.
	Missed string
	// Label is the revision that the pod's label names, Born the one that it was created with, Given
	// the one whose images it was given last.
	Label, Born, Given string
	// Conflicts say why the sidecars can't be in the pod.
	Conflicts []inject.Conflict
	// Images are the containers of which the image is not the target's.
	Images []ImageChange
	// Resizes are the containers of which the resources are to become the target's, Unresized
	// those of which they should and can't; Stale says why.
	Resizes, Unresized []Resize
	// Stale says which fixed parts differ from the target's; empty when none does.
	Stale string
	// Surplus are the containers that the policy put into the pod and that the target has no more; TakeOut: the pod is to be recreated
	// to lose them.
	Surplus []string
	TakeOut bool
	// Drifted: an image is not the one that the pod was given.
	Drifted bool
	// OnTarget: the pod was given the target, at its creation or by an upgrade.
	OnTarget bool
	// Relabel: only the revision label is not the target's.
	Relabel bool
	// Verdict judges the policy's sidecars in the pod.
	Verdict Verdict
	// Gate is the policy's readiness gate.
	Gate Gate
	// Downtime is how long a sidecar was down for the upgrade to the target; zero while
	// that is not known.
	Downtime time.Duration
	// UpgradedAt is when the pod was last upgraded in place; zero where it never was.
	UpgradedAt time.Time
	// WasFailing: the pod's sidecars failed before its upgrade to the target already, on the stable revision.
	WasFailing bool
	// Excused: the pod is not ready, and another policy's upgrade may be the cause.
	Excused bool
	// Available: the pod is Ready, and no policy's upgrade of it is unsettled.
	Available bool
	// Busy: another policy's upgrade of the pod is under way. Recheck is when time
	// alone changes that; zero where only a change of the pod does.
	Busy    bool
	Recheck time.Time
}

// ImageChange is one container of a pod that lacks the target's image.
type ImageChange struct {
	// Container is the name of the container.
	Container string
	// Native: it is an init container; Index is its place among them, or among
	// the containers.
	Native bool
	Index  int
	// Image is the target's, Running the one that the container was started with.
	Image, Running string
	// ContainerID is what runs now; empty when nothing does.
	ContainerID string
}

// Changes says whether a container of the pod can be brought nearer to the target in place.
func (p *PodState) Changes() bool { return len(p.Images)+len(p.Resizes) > 0 }

// Restarts says whether bringing the pod nearer to the target restarts a container.
func (p *PodState) Restarts() bool {
	return len(p.Images) > 0 || slices.ContainsFunc(p.Resizes, func(r Resize) bool { return r.Restarts })
}

// Outdated says whether the pod can be brought nearer to the target by a PATCH.
func (p *PodState) Outdated() bool { return p.Changes() || p.Relabel }

// Underway says whether an upgrade of the pod has begun and is not judged yet.
func (p *PodState) Underway() bool { return p.Verdict.State == Updating || p.Gate.Draining() }

// Updated says whether the pod runs the target revision, all of it, and is healthy on it.
func (p *PodState) Updated() bool {
	return p.Injected && !p.Outdated() && p.Stale == "" && p.Verdict.State == Settled
}

// Judge says what each pod is, in the order of namespace and name.
func Judge(members []Member, view *View) []PodState {
	return Rejudge(nil, members, view).Pods
}

// inOrder sorts pointers, since states are large.
func inOrder(members []Member) []*Member {
	ordered := make([]*Member, len(members))
	for i := range members {
		ordered[i] = &members[i]
	}
	slices.SortFunc(ordered, func(a, b *Member) int { return CompareNames(a.Pod, b.Pod) })
	return ordered
}

// CompareNames orders pods by namespace and name.
func CompareNames(a, b *corev1.Pod) int {
	if a.Namespace != b.Namespace {
		return strings.Compare(a.Namespace, b.Namespace)
	}
	return strings.Compare(a.Name, b.Name)
}

func judgeMember(member *Member, view *View, stale staleness, sizes sizes) PodState {
	pod := member.Pod
	injected := view.Records.injection(pod, view.Policy)
	state := PodState{Member: *member, Injected: injected != nil && inject.Carries(pod, injected),
		Held: v1alpha1.HoldGateIndex(pod, view.Policy) >= 0}
	state.Busy, state.Recheck = busy(pod, view, view.Policy)
	state.Gate = gateOf(pod, view.Policy)
	state.Available = Ready(pod) && !state.Busy && !state.Gate.Draining()
	if state.Injected {
		state.judgeSidecars(injected, view, stale, sizes)
	} else {
		_, state.Conflicts = inject.Render(pod, view.Policy, view.Target)
		if member.Forbidden != nil {
			state.Conflicts = append(state.Conflicts, *member.Forbidden)
		}
		state.Missed = missed(&state, view)
	}
	return state
}

// missed says when a pod missed the sidecars.
func missed(state *PodState, view *View) string {
	switch {
	case len(state.Conflicts) > 0:
		return ""
	case state.Held:
		return "waits for the sidecars, since it was created while the operator could not be reached; it is replaced by one that has them"
	case state.Pod.CreationTimestamp.Time.Before(view.Since):
		return "created before the policy, and gets the sidecars when it is recreated"
	}
	return "created without the sidecars, since the operator could not be reached, injection was paused, limits of its namespace left no room, or the labels came later; gets them when it is recreated"
}

// judgeSidecars judges what the pod carries against what it should.
func (p *PodState) judgeSidecars(injected *v1alpha1.InjectionRecord, view *View, stale staleness, sizes sizes) {
	pod := p.Pod
	held := view.Records.upgrade(pod, view.Policy)
	upgrade := excused(pod, held, view)
	p.Excused = upgrade != held
	if upgrade != nil {
		p.UpgradedAt, p.WasFailing = upgrade.At.Time, upgrade.WasFailing && upgrade.Revision == view.Target.Hash
	}
	label := view.Records.revision(pod, view.Policy)
	p.Label, p.Born, p.Given = label, injected.Revision, given(label, upgrade)

	p.Images = withRunning(imageChanges(pod, injected.Sidecars, &view.Target.Template), upgrade)
	p.Stale = stale.of(injected.Revision)
	p.findSurplus(injected, view)
	p.restart(injected.Sidecars, p.Given, view)
	p.keepFromOldKubelet()
	p.resize(sizes.due(pod, injected, p.Given, upgrade))
	p.Relabel = p.Stale == "" && !p.Changes() && label != view.Target.Hash
	p.OnTarget = len(p.Images) == 0 && (label == view.Target.Hash || p.Given == view.Target.Hash)
	p.Drifted = drifted(pod, injected.Sidecars, p.Given, view.Revisions)
	p.Verdict = judge(pod, view.Policy, injected.Containers(), upgrade, view)
	p.judgeByNode(injected.Containers(), upgrade, view)
	p.Downtime = downtime(pod, upgrade, view.Target.Hash)
	if view.Watching {
		p.Verdict = watch(p, injected.Sidecars, upgrade, view)
	}
	p.Available = p.Available && p.Verdict.State == Settled
}

// oldestKubelet is the first version of which a kubelet restarts a native sidecar for a new image.
const oldestKubelet = "1.32"

// keepFromOldKubelet: there a new image of a native sidecar needs a new pod.
func (p *PodState) keepFromOldKubelet() {
	native := slices.ContainsFunc(p.Images, func(c ImageChange) bool { return c.Native })
	if p.Node.OldKubelet == "" || !native {
		return
	}
	p.Images = nil
	p.addStale(fmt.Sprintf("image (its node's kubelet %s is older than %s)", p.Node.OldKubelet, oldestKubelet))
}

// addStale notes one more part that only a new pod brings.
func (p *PodState) addStale(part string) {
	if p.Stale != "" {
		part = p.Stale + ", " + part
	}
	p.Stale = part
}

// GivenTo is the revision of a policy whose images a pod was given last; empty where it carries none.
func GivenTo(pod *corev1.Pod, policy string) string {
	label := pod.Labels[v1alpha1.RevisionLabel(policy)]
	record, err := v1alpha1.ParseUpgradeRecord(pod.Annotations, policy)
	if err != nil {
		return label
	}
	return given(label, record)
}

// given is the name of the revision whose images the pod was given last.
func given(label string, upgrade *v1alpha1.UpgradeRecord) string {
	if upgrade != nil {
		return upgrade.Revision
	}
	return label
}

func (v *View) health(policy string) *v1alpha1.HealthSpec {
	if health := v.Health[policy]; health != nil {
		return health
	}
	return &v1alpha1.HealthSpec{}
}

// busy says whether a policy other than the given one is in the middle of upgrading the
// pod, and when to look again.
func busy(pod *corev1.Pod, view *View, except string) (found bool, recheck time.Time) {
	found = drained(pod, except)
	for key := range pod.Labels {
		policy, ours := strings.CutPrefix(key, v1alpha1.RevisionLabelPrefix)
		if !ours || policy == except {
			continue
		}
		upgrade := view.Records.upgrade(pod, policy)
		if upgrade == nil {
			continue
		}
		verdict := judge(pod, policy, nil, upgrade, view)
		if verdict.State != Updating {
			continue
		}
		found = true
		if recheck.IsZero() || verdict.Recheck.Before(recheck) {
			recheck = verdict.Recheck
		}
	}
	return found, recheck
}

// excused is the record without the duty to get the pod Ready, while another policy's later
// upgrade may be what keeps it from that. Once that has failed too, nobody knows whose doing it
// is, and nobody is excused.
func excused(pod *corev1.Pod, record *v1alpha1.UpgradeRecord, view *View) *v1alpha1.UpgradeRecord {
	if record == nil || !record.WasReady || Sound(pod, view.Policy) {
		return record
	}
	for _, policy := range v1alpha1.PoliciesOf(pod.Labels) {
		other := view.Records.upgrade(pod, policy)
		if policy == view.Policy || other == nil || !other.At.After(record.At.Time) {
			continue
		}
		if judge(pod, policy, nil, other, view).State == Updating {
			freed := *record
			freed.WasReady = false
			return &freed
		}
	}
	return record
}

// staleness compares the revision that a pod was created with to the target, once
// for each revision.
type staleness struct {
	view *View
	memo map[string]string
}

func (s staleness) of(born string) string {
	answer, known := s.memo[born]
	if !known {
		answer = s.compare(born)
		s.memo[born] = answer
	}
	return answer
}

func (s staleness) compare(born string) string {
	if born == s.view.Target.Hash {
		return ""
	}
	from := revision.Get(s.view.Revisions, born)
	if from == nil {
		return "revision " + born + ", which the pod was created with, is gone"
	}
	return strings.Join(revision.Compare(&from.Template, &s.view.Target.Template).Fixed, ", ")
}

// findSurplus finds the containers that the policy put into the pod, and that the target has no more.
func (p *PodState) findSurplus(injected *v1alpha1.InjectionRecord, view *View) {
	if p.Stale == "" {
		return // as nearly all pods
	}
	template := &view.Target.Template
	for _, name := range injected.Containers() {
		if !slices.ContainsFunc(template.Sidecars, func(s v1alpha1.Sidecar) bool { return s.Name == name }) &&
			!slices.ContainsFunc(template.InitContainers, func(c v1alpha1.InitContainer) bool { return c.Name == name }) {
			p.Surplus = append(p.Surplus, name)
		}
	}
	p.TakeOut = view.TakesOut && len(p.Surplus) > 0
}

// imageChanges lists the sidecars in the pod whose image is not the template's.
func imageChanges(pod *corev1.Pod, sidecars []string, template *v1alpha1.SidecarTemplate) []ImageChange {
	var changes []ImageChange
	for i := range template.Sidecars {
		sidecar := &template.Sidecars[i]
		if !slices.Contains(sidecars, sidecar.Name) {
			continue
		}
		container, native, index := find(pod, sidecar.Name)
		if container == nil || image.Same(container.Image, sidecar.Image) {
			continue
		}
		changes = append(changes, ImageChange{Container: sidecar.Name, Native: native, Index: index,
			Image: sidecar.Image, Running: container.Image, ContainerID: containerID(pod, sidecar.Name)})
	}
	return changes
}

// withRunning corrects what runs where the kubelet has not acted on the last upgrade yet.
func withRunning(changes []ImageChange, upgrade *v1alpha1.UpgradeRecord) []ImageChange {
	for i := range changes {
		c := &changes[i]
		if upgrade == nil || upgrade.Ran[c.Container] == "" || upgrade.Before[c.Container] != c.ContainerID {
			continue
		}
		c.Running = upgrade.Ran[c.Container]
	}
	return changes
}

func drifted(pod *corev1.Pod, sidecars []string, hash string, revisions []revision.Revision) bool {
	r := revision.Get(revisions, hash)
	return r != nil && len(imageChanges(pod, sidecars, &r.Template)) > 0
}

// find returns a pod's container of that name, whether it is an init container, and its index.
func find(pod *corev1.Pod, name string) (*corev1.Container, bool, int) {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i], true, i
		}
	}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i], false, i
		}
	}
	return nil, false, 0
}

func containerID(pod *corev1.Pod, name string) string {
	if status := statusOf(pod, name); status != nil {
		return status.ContainerID
	}
	return ""
}

// statusOf is the status of a pod's container of that name; nil where it has none.
func statusOf(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	for i := range pod.Status.InitContainerStatuses {
		if pod.Status.InitContainerStatuses[i].Name == name {
			return &pod.Status.InitContainerStatuses[i]
		}
	}
	for i := range pod.Status.ContainerStatuses {
		if pod.Status.ContainerStatuses[i].Name == name {
			return &pod.Status.ContainerStatuses[i]
		}
	}
	return nil
}
