package controllers

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
)

// intermediate are the kinds that stand between a pod and its workload: a
// ReplicaSet belongs to a Deployment or a Rollout, a Job to a CronJob.
var intermediate = []schema.GroupVersionKind{
	{Group: "apps", Version: "v1", Kind: "ReplicaSet"},
	{Group: "batch", Version: "v1", Kind: "Job"},
}

// workloads finds the workloads of pods. It remembers answers for one pass.
type workloads struct {
	reader client.Reader
	memo   map[types.UID]fleet.Workload
}

func newWorkloads(reader client.Reader) *workloads {
	return &workloads{reader: reader, memo: map[types.UID]fleet.Workload{}}
}

func (w *workloads) of(ctx context.Context, pod *corev1.Pod) (fleet.Workload, error) {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return fleet.Workload{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name}, nil
	}
	if workload, known := w.memo[owner.UID]; known {
		return workload, nil
	}
	workload, err := w.top(ctx, pod.Namespace, owner)
	if err == nil {
		w.memo[owner.UID] = workload
	}
	return workload, err
}

// top follows an owner to the workload. An intermediate one that is gone stands for itself.
func (w *workloads) top(ctx context.Context, namespace string, owner *metav1.OwnerReference) (fleet.Workload, error) {
	self := fleet.Workload{Kind: owner.Kind, Namespace: namespace, Name: owner.Name}
	for _, gvk := range intermediate {
		if owner.Kind != gvk.Kind || !strings.HasPrefix(owner.APIVersion, gvk.Group+"/") {
			continue
		}
		object := &metav1.PartialObjectMetadata{}
		object.SetGroupVersionKind(gvk)
		err := w.reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: owner.Name}, object)
		if client.IgnoreNotFound(err) != nil {
			return self, fmt.Errorf("reading %s: %w", self, err)
		}
		if above := metav1.GetControllerOf(object); err == nil && above != nil {
			return fleet.Workload{Kind: above.Kind, Namespace: namespace, Name: above.Name}, nil
		}
	}
	return self, nil
}
