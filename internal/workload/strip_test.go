package workload_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/internal/workload"
)

func TestStrip(t *testing.T) {
	full := metadata("Deployment", "cart", map[string]string{"team": "cart", corev1.LastAppliedConfigAnnotation: "{}"}, ref("redis.example/v1", "Cluster", "redis"))
	full.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	kept := metadata("Deployment", "cart", map[string]string{"team": "cart"}, ref("redis.example/v1", "Cluster", "redis"))
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "cart"}}
	template := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:1"}}}}
	four := ptr.To[int32](4)
	for _, tc := range []struct {
		name         string
		object, want any
	}{
		{"a Deployment", &appsv1.Deployment{
			ObjectMeta: *full.DeepCopy(),
			Spec:       appsv1.DeploymentSpec{Replicas: four, Selector: selector, Template: template},
			Status: appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 4, UpdatedReplicas: 3,
				Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentAvailable}}},
		}, &appsv1.Deployment{
			ObjectMeta: kept,
			Spec:       appsv1.DeploymentSpec{Replicas: four},
			Status:     appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 4, UpdatedReplicas: 3},
		}},
		{"a ReplicaSet", &appsv1.ReplicaSet{
			ObjectMeta: *full.DeepCopy(),
			Spec:       appsv1.ReplicaSetSpec{Replicas: four, Selector: selector, Template: template},
			Status: appsv1.ReplicaSetStatus{ObservedGeneration: 1, Replicas: 4,
				Conditions: []appsv1.ReplicaSetCondition{{Type: appsv1.ReplicaSetReplicaFailure}}},
		}, &appsv1.ReplicaSet{
			ObjectMeta: kept,
			Spec:       appsv1.ReplicaSetSpec{Replicas: four},
			Status:     appsv1.ReplicaSetStatus{ObservedGeneration: 1, Replicas: 4},
		}},
		{"a StatefulSet", &appsv1.StatefulSet{
			ObjectMeta: *full.DeepCopy(),
			Spec: appsv1.StatefulSetSpec{Replicas: four, Selector: selector, Template: template,
				VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{}}},
			Status: appsv1.StatefulSetStatus{ObservedGeneration: 1, Replicas: 4, Conditions: []appsv1.StatefulSetCondition{{}}},
		}, &appsv1.StatefulSet{
			ObjectMeta: kept,
			Spec:       appsv1.StatefulSetSpec{Replicas: four},
			Status:     appsv1.StatefulSetStatus{ObservedGeneration: 1, Replicas: 4},
		}},
		{"a DaemonSet", &appsv1.DaemonSet{
			ObjectMeta: *full.DeepCopy(),
			Spec:       appsv1.DaemonSetSpec{Selector: selector, Template: template},
			Status:     appsv1.DaemonSetStatus{DesiredNumberScheduled: 4, Conditions: []appsv1.DaemonSetCondition{{}}},
		}, &appsv1.DaemonSet{
			ObjectMeta: kept,
			Status:     appsv1.DaemonSetStatus{DesiredNumberScheduled: 4},
		}},
		{"a Job, of which the cache has the metadata", &metav1.PartialObjectMetadata{ObjectMeta: *full.DeepCopy()}, &metav1.PartialObjectMetadata{ObjectMeta: kept}},
		{"what is no object is left as it is", cache.DeletedFinalStateUnknown{Key: "shop/cart"}, cache.DeletedFinalStateUnknown{Key: "shop/cart"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := workload.Strip(tc.object)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
