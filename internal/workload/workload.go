// Package workload finds the owners of a pod: the top controller, which its team thinks of
// as the app, and the direct owner, which replaces the pod when it goes.
package workload

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// +kubebuilder:rbac:groups=apps,resources=deployments;replicasets;statefulsets;daemonsets,verbs=list;watch
// +kubebuilder:rbac:groups=batch,resources=jobs;cronjobs,verbs=list;watch

// Unknown is a number of replicas that nothing tells.
const Unknown int32 = -1

// revisionAnnotation is on a Deployment and its ReplicaSets: the Deployment's is that of
// its newest ReplicaSet, also after a rollback.
const revisionAnnotation = "deployment.kubernetes.io/revision"

// Info is what is known about the owners of a pod. It is shared with the cache, and only read.
type Info struct {
	// Owner is the top controller: the Deployment of a ReplicaSet, the CronJob of a Job.
	// Nil for a bare pod. An owner that is gone stands for itself.
	Owner *metav1.OwnerReference
	// Annotations are Owner's; nil where it is gone, or of a kind that is not read.
	Annotations map[string]string
	// Wanted is how many replicas the pod's direct owner should have, Has how many its
	// controller has counted; Unknown where it is gone, a Job, or of a kind that is not read.
	Wanted, Has int32
	// Current: nothing says that the direct owner would not replace the pod by one of the
	// same template. It is false where the owner is going or gone, for a ReplicaSet that is
	// scaled to 0 or is not the newest of its Deployment, and in the middle of the
	// Deployment's own roll-out. A bare pod has no owner that could say so.
	Current bool
}

// Resolver finds owners and remembers its answers. It is made for one pass, and not
// safe for concurrent use.
type Resolver struct {
	reader client.Reader
	memo   map[types.UID]Info
	// last is the answer before, which pods in their order mostly want again.
	last    Info
	lastUID types.UID
}

// NewResolver reads owners from a cache.
func NewResolver(reader client.Reader) *Resolver {
	return &Resolver{reader: reader, memo: map[types.UID]Info{}}
}

// Of tells about the owners of a pod in a namespace.
func (r *Resolver) Of(ctx context.Context, namespace string, pod *corev1.Pod) (Info, error) {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		return unread(nil), nil
	}
	if owner.UID == r.lastUID {
		return r.last, nil
	}
	info, known := r.memo[owner.UID]
	if !known {
		var err error
		if info, err = r.resolve(ctx, namespace, owner); err != nil {
			return Info{}, err
		}
		r.memo[owner.UID] = info
	}
	r.last, r.lastUID = info, owner.UID
	return info, nil
}

// unread is all that is known of an owner of another kind than ours.
func unread(owner *metav1.OwnerReference) Info {
	return Info{Owner: owner, Wanted: Unknown, Has: Unknown, Current: true}
}

func (r *Resolver) resolve(ctx context.Context, namespace string, direct *metav1.OwnerReference) (Info, error) {
	info, object, err := r.read(ctx, namespace, direct)
	if err != nil || object == nil {
		return info, err
	}
	info.Wanted, info.Has = replicas(object)
	above := metav1.GetControllerOf(object)
	if above == nil || !intermediate(direct) {
		return info, nil
	}
	top, owner, err := r.read(ctx, namespace, above)
	if err != nil {
		return Info{}, err
	}
	info.Owner, info.Annotations = top.Owner, top.Annotations
	info.Current = info.Current && top.Current && newest(object, owner)
	return info, nil
}

// read tells about one owner by itself; the object is nil where it is gone, or of a kind
// that is not read.
func (r *Resolver) read(ctx context.Context, namespace string, owner *metav1.OwnerReference) (Info, client.Object, error) {
	info, object := unread(owner), objectOf(owner)
	if object == nil {
		return info, nil, nil
	}
	err := r.reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: owner.Name}, object,
		client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency) // nothing here writes owners
	if client.IgnoreNotFound(err) != nil {
		return Info{}, nil, fmt.Errorf("reading %s %s/%s: %w", owner.Kind, namespace, owner.Name, err)
	}
	if err != nil || object.GetUID() != owner.UID { // another may have its name by now
		info.Current = false
		return info, nil, nil
	}
	info.Annotations = object.GetAnnotations()
	info.Current = object.GetDeletionTimestamp() == nil && !scaledToZero(object)
	return info, object, nil
}

// objectOf is what an owner is read into; nil where it is of a kind that is not read.
func objectOf(owner *metav1.OwnerReference) client.Object {
	switch schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind).GroupKind() {
	case schema.GroupKind{Group: "apps", Kind: "ReplicaSet"}:
		return &appsv1.ReplicaSet{}
	case schema.GroupKind{Group: "apps", Kind: "Deployment"}:
		return &appsv1.Deployment{}
	case schema.GroupKind{Group: "apps", Kind: "StatefulSet"}:
		return &appsv1.StatefulSet{}
	case schema.GroupKind{Group: "apps", Kind: "DaemonSet"}:
		return &appsv1.DaemonSet{}
	case schema.GroupKind{Group: "batch", Kind: "Job"}, schema.GroupKind{Group: "batch", Kind: "CronJob"}:
		metadata := &metav1.PartialObjectMetadata{}
		metadata.SetGroupVersionKind(schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: owner.Kind})
		return metadata
	}
	return nil
}

// intermediate says whether an owner only stands between a pod and its workload: a
// ReplicaSet belongs to a Deployment or a Rollout, a Job to a CronJob. What else owns
// a workload is no part of the app.
func intermediate(owner *metav1.OwnerReference) bool {
	return owner.Kind == "ReplicaSet" || owner.Kind == "Job"
}

// replicas are how many an owner wants and has.
func replicas(owner client.Object) (wanted, has int32) {
	switch o := owner.(type) {
	case *appsv1.ReplicaSet:
		return ptr.Deref(o.Spec.Replicas, 1), o.Status.Replicas
	case *appsv1.StatefulSet:
		return ptr.Deref(o.Spec.Replicas, 1), o.Status.Replicas
	case *appsv1.DaemonSet:
		return o.Status.DesiredNumberScheduled, o.Status.CurrentNumberScheduled
	}
	return Unknown, Unknown
}

func scaledToZero(owner client.Object) bool {
	rs, ok := owner.(*appsv1.ReplicaSet)
	return ok && ptr.Deref(rs.Spec.Replicas, 1) == 0
}

// newest says whether a Deployment is at rest at a ReplicaSet. Of other owners nobody
// knows which one it would be.
func newest(owned, owner client.Object) bool {
	d, ok := owner.(*appsv1.Deployment)
	if !ok {
		return true
	}
	revision := d.Annotations[revisionAnnotation]
	return d.Status.ObservedGeneration >= d.Generation &&
		d.Status.UpdatedReplicas >= max(ptr.Deref(d.Spec.Replicas, 1), d.Status.Replicas) &&
		revision != "" && owned.GetAnnotations()[revisionAnnotation] == revision
}
