package rollout

import (
	"fmt"
	"strings"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
)

// Patch is the one JSON patch (RFC 6902) that carries out the upgrade: images,
// label and record together. It replaces images of containers that it has tested the names
// of, and nothing else of the pod's spec. It names the resourceVersion, so that
// a pod which has changed since is answered with a conflict.
func (u *Upgrade) Patch(policy string, now time.Time) []jsonpatch.Operation {
	ops := []jsonpatch.Operation{
		jsonpatch.NewOperation("replace", "/metadata/resourceVersion", u.Pod.Pod.ResourceVersion),
	}
	for _, image := range u.Pod.Images {
		path := fmt.Sprintf("/spec/containers/%d", image.Index)
		if image.Native {
			path = fmt.Sprintf("/spec/initContainers/%d", image.Index)
		}
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

func pointer(field, key string) string {
	return "/metadata/" + field + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}

// record is what the upgrade is judged by later.
func (u *Upgrade) record(policy string, now time.Time) v1alpha1.UpgradeRecord {
	record := v1alpha1.UpgradeRecord{Revision: u.Revision, At: metav1.NewTime(now), Before: map[string]string{}, Ran: map[string]string{}}
	for _, image := range u.Pod.Images {
		record.Before[image.Container], record.Ran[image.Container] = image.ContainerID, image.Running
	}
	record.WasReady = fleet.Sound(u.Pod.Pod, policy)
	record.Restarts = fleet.Restarts(u.Pod.Pod)
	before, err := v1alpha1.ParseUpgradeRecord(u.Pod.Pod.Annotations, policy)
	if err == nil && before != nil && u.Pod.Verdict.State != fleet.Settled {
		inherit(&record, before)
	}
	return record
}

// inherit gives an upgrade the duties of an unsettled one that it takes over from: the
// containers that were still to be judged, and the pod's readiness. One that changes the label
// alone restarts nothing, and has no time of its own.
func inherit(record, before *v1alpha1.UpgradeRecord) {
	if len(record.Before) == 0 {
		record.At = before.At
	}
	for container, id := range before.Before {
		if _, anew := record.Before[container]; !anew {
			record.Before[container], record.Ran[container] = id, before.Ran[container]
		}
	}
	record.WasReady = record.WasReady || before.WasReady
}
