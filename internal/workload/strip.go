package workload

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
)

// Strip is a cache transform: of an owner it keeps the metadata and the numbers of
// replicas. A cluster has ten old ReplicaSets for each Deployment, and a pod template is
// most of each.
func Strip(object any) (any, error) {
	switch o := object.(type) {
	case *appsv1.Deployment:
		o.Spec = appsv1.DeploymentSpec{Replicas: o.Spec.Replicas}
		o.Status.Conditions = nil
	case *appsv1.ReplicaSet:
		o.Spec = appsv1.ReplicaSetSpec{Replicas: o.Spec.Replicas}
		o.Status.Conditions = nil
	case *appsv1.StatefulSet:
		o.Spec = appsv1.StatefulSetSpec{Replicas: o.Spec.Replicas}
		o.Status.Conditions = nil
	case *appsv1.DaemonSet:
		o.Spec = appsv1.DaemonSetSpec{}
		o.Status.Conditions = nil
	}
	if accessor, err := meta.Accessor(object); err == nil { // a Job and a CronJob are metadata already
		accessor.SetManagedFields(nil)
		delete(accessor.GetAnnotations(), corev1.LastAppliedConfigAnnotation)
	}
	return object, nil
}
