// Package workload finds the top controller of a pod: what its owner thinks of as the app.
package workload

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// +kubebuilder:rbac:groups=apps,resources=replicasets,verbs=list;watch
// +kubebuilder:rbac:groups=batch,resources=jobs,verbs=list;watch

// intermediate are the kinds that stand between a pod and its workload: a
// ReplicaSet belongs to a Deployment or a Rollout, a Job to a CronJob.
var intermediate = []schema.GroupVersionKind{
	{Group: "apps", Version: "v1", Kind: "ReplicaSet"},
	{Group: "batch", Version: "v1", Kind: "Job"},
}

// Resolver finds workloads and remembers its answers. It is made for one pass, and not
// safe for concurrent use.
type Resolver struct {
	reader client.Reader
	memo   map[types.UID]*metav1.OwnerReference
}

// NewResolver reads owners from a cache.
func NewResolver(reader client.Reader) *Resolver {
	return &Resolver{reader: reader, memo: map[types.UID]*metav1.OwnerReference{}}
}

// Of is the workload of a pod in a namespace; nil for a bare pod. An owner that is
// gone stands for itself.
func (r *Resolver) Of(ctx context.Context, namespace string, pod *corev1.Pod) (*metav1.OwnerReference, error) {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		return nil, nil
	}
	if top, known := r.memo[owner.UID]; known {
		return top, nil
	}
	top, err := r.above(ctx, namespace, owner)
	if err == nil {
		r.memo[owner.UID] = top
	}
	return top, err
}

func (r *Resolver) above(ctx context.Context, namespace string, owner *metav1.OwnerReference) (*metav1.OwnerReference, error) {
	for _, gvk := range intermediate {
		if owner.Kind != gvk.Kind || !strings.HasPrefix(owner.APIVersion, gvk.Group+"/") {
			continue
		}
		object := &metav1.PartialObjectMetadata{}
		object.SetGroupVersionKind(gvk)
		err := r.reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: owner.Name}, object)
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("reading %s %s/%s: %w", owner.Kind, namespace, owner.Name, err)
		}
		if above := metav1.GetControllerOf(object); err == nil && above != nil {
			return above, nil
		}
	}
	return owner, nil
}
