package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
)

// Patch is the JSON patch (RFC 6902) that carries out the upgrade: images,
// label and record together. It replaces images of containers that it has tested the names
// of, and nothing else of the pod's spec. It names the resourceVersion, so that
// a pod which has changed since is answered with a conflict.
func (u *Upgrade) Patch(policy string, now time.Time) []jsonpatch.Operation {
	ops := []jsonpatch.Operation{
		jsonpatch.NewOperation("replace", "/metadata/resourceVersion", u.Pod.Pod.ResourceVersion),
	}
	for _, image := range u.Pod.Images {
		path := containerPath(image.Native, image.Index)
		ops = append(ops,
			jsonpatch.NewOperation("test", path+"/name", image.Container),
			jsonpatch.NewOperation("replace", path+"/image", image.Image))
	}
	if u.Label {
		ops = append(ops, jsonpatch.NewOperation("add", pointer("labels", v1alpha1.RevisionLabel(policy)), u.Revision))
	}
	return append(ops, jsonpatch.NewOperation("add",
		pointer("annotations", v1alpha1.UpgradeAnnotation(policy)), u.record(policy, now).Encode()))
}

// ResizePatch is the JSON patch of the pod's resize subresource that an upgrade ends with; nil
// where there is nothing to resize. The subresource drops labels and annotations, so the record
// has to be on the pod before. It names no resourceVersion, which the kubelet's answer to
// the first patch may have changed, but tests that it is the same pod, and replaces quantities
// of containers that it has tested the names of, and nothing else.
func (u *Upgrade) ResizePatch() []jsonpatch.Operation {
	if len(u.Pod.Resizes) == 0 {
		return nil
	}
	ops := []jsonpatch.Operation{jsonpatch.NewOperation("test", "/metadata/uid", u.Pod.Pod.UID)}
	for _, resize := range u.Pod.Resizes {
		path := containerPath(resize.Native, resize.Index)
		ops = append(ops, jsonpatch.NewOperation("test", path+"/name", resize.Container))
		for _, change := range resize.Changes {
			ops = append(ops, jsonpatch.NewOperation("replace", fmt.Sprintf("%s/resources/%s/%s", path, change.List, change.Name), change.Want.String()))
		}
	}
	return ops
}

func containerPath(native bool, index int) string {
	if native {
		return fmt.Sprintf("/spec/initContainers/%d", index)
	}
	return fmt.Sprintf("/spec/containers/%d", index)
}

func pointer(field, key string) string {
	return "/metadata/" + field + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}

// record is what the upgrade is judged by later.
func (u *Upgrade) record(policy string, now time.Time) v1alpha1.UpgradeRecord {
	record := v1alpha1.UpgradeRecord{Revision: u.Revision, At: metav1.NewTime(now), Before: map[string]string{}, Ran: map[string]string{},
		Resizes: map[string]corev1.ResourceRequirements{}}
	for _, image := range u.Pod.Images {
		record.Before[image.Container], record.Ran[image.Container] = image.ContainerID, image.Running
	}
	for _, resize := range slices.Concat(u.Pod.Resizes, u.Pod.Unresized) {
		record.Resizes[resize.Container] = resize.Had
	}
	record.Crashing, record.WasFailing = fleet.Crashing(u.Pod.Pod, now), u.WasFailing
	record.WasReady = fleet.Sound(u.Pod.Pod, policy) && len(record.Crashing) == 0
	record.Restarts = fleet.Restarts(u.Pod.Pod)
	before, err := v1alpha1.ParseUpgradeRecord(u.Pod.Pod.Annotations, policy)
	if err == nil && before != nil && u.Pod.Verdict.State != fleet.Settled {
		inherit(&record, before)
	}
	for _, resize := range u.Pod.Resizes {
		if _, known := record.Before[resize.Container]; resize.Restarts && !known {
			record.Before[resize.Container], record.Ran[resize.Container] = resize.ContainerID, resize.Image
		}
	}
	return record
}

// inherit gives an upgrade the duties of an unsettled one that it takes over from: the
// containers that were still to be judged, and the pod's readiness. One that changes the label
// alone, or sends a resize once more, restarts nothing, and has no time of its own.
func inherit(record, before *v1alpha1.UpgradeRecord) {
	again := before.Revision == record.Revision && equality.Semantic.DeepEqual(record.Resizes, before.Resizes)
	if len(record.Before) == 0 && (len(record.Resizes) == 0 || again) {
		record.At = before.At
	}
	inheritContainers(record, before)
	record.WasReady = record.WasReady || before.WasReady
	record.Crashing, record.WasFailing = before.Crashing, record.WasFailing || before.WasFailing
}

func inheritContainers(record, before *v1alpha1.UpgradeRecord) {
	for container, had := range before.Resizes {
		if _, anew := record.Resizes[container]; !anew {
			record.Resizes[container] = had
		}
	}
	for container, id := range before.Before {
		if _, anew := record.Before[container]; !anew {
			record.Before[container], record.Ran[container] = id, before.Ran[container]
		}
	}
}
