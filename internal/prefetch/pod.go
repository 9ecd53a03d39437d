package prefetch

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// IdleArgument makes the operator's program exit at once, with success.
const IdleArgument = "prefetch-done"

// container is the name of the only container of a prefetch pod.
const container = "idle"

// deadlineMargin lets the operator see how a prefetch ended before the kubelet ends it.
const deadlineMargin = 60

// keepAway are the annotations by which injectors are told to leave a pod alone, and the
// cluster autoscaler not to wait for it.
var keepAway = map[string]string{
	"sidecar.istio.io/inject":                        "false",
	"linkerd.io/inject":                              "disabled",
	"cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
}

// credentials are what a pod pulls images with: secrets of its namespace.
func credentials(pod *corev1.Pod) string {
	names := make([]string, 0, len(pod.Spec.ImagePullSecrets)+1)
	for _, secret := range pod.Spec.ImagePullSecrets {
		names = append(names, secret.Name)
	}
	slices.Sort(names)
	return pod.Namespace + "/" + strings.Join(slices.Compact(names), ",")
}

// key names the prefetch pod that serves a pod: the same for all pods on a node that need the same
// images with the same credentials. It depends on nothing else, so that an operator that starts
// anew finds the pod of the one before it.
func (v *View) key(pod *corev1.Pod, images []Image) types.NamespacedName {
	parts := []string{v.in.Owner.Name, v.in.Revision, pod.Spec.NodeName, credentials(pod)}
	for _, image := range sorted(images) {
		parts = append(parts, image.Ref+" "+string(image.Policy))
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return types.NamespacedName{Namespace: pod.Namespace, Name: "sidecar-prefetch-" + hex.EncodeToString(sum[:])[:16]}
}

// render makes the prefetch pod for a pod of the fleet. It bypasses the scheduler, fits on
// every node, is allowed under the Pod Security level restricted, and needs no rights.
func (v *View) render(pod *corev1.Pod, images []Image) *corev1.Pod {
	key := v.key(pod, images)
	volumes, mounts := imageVolumes(sorted(images))
	// Not the controller: a PodDisruptionBudget that covers the pod would look for the scale of it.
	owner := v.in.Owner
	owner.Controller, owner.BlockOwnerDeletion = nil, nil
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name,
			Labels: map[string]string{
				v1alpha1.PolicyLabel:   v.in.Owner.Name,
				v1alpha1.PrefetchLabel: v.in.Revision,
			},
			Annotations:     maps.Clone(keepAway),
			OwnerReferences: []metav1.OwnerReference{owner},
		},
		Spec: corev1.PodSpec{
			NodeName:         pod.Spec.NodeName,
			ImagePullSecrets: pod.Spec.ImagePullSecrets,
			// With the app's own account nobody adds pull secrets that the app's pod does not have.
			ServiceAccountName:            pod.Spec.ServiceAccountName,
			AutomountServiceAccountToken:  ptr.To(false),
			EnableServiceLinks:            ptr.To(false),
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: ptr.To[int64](0),
			ActiveDeadlineSeconds:         ptr.To(int64(v.in.Deadline.Seconds()) + deadlineMargin),
			Tolerations:                   []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Volumes:                       volumes,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   ptr.To(true),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: container, Image: v.in.IdleImage, ImagePullPolicy: corev1.PullIfNotPresent,
				Args: []string{IdleArgument}, VolumeMounts: mounts, Resources: idleResources(),
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: ptr.To(false),
					ReadOnlyRootFilesystem:   ptr.To(true),
					Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}

// idleResources fit on a node that is full, and satisfy a quota that wants every container to
// say what it needs.
func idleResources() corev1.ResourceRequirements {
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("0"),
			corev1.ResourceMemory: resource.MustParse("0"),
		},
		Limits: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("100m"),
			corev1.ResourceMemory: resource.MustParse("64Mi"),
		},
	}
}

func imageVolumes(images []Image) ([]corev1.Volume, []corev1.VolumeMount) {
	volumes := make([]corev1.Volume, len(images))
	mounts := make([]corev1.VolumeMount, len(images))
	for i, image := range images {
		name := fmt.Sprintf("image-%d", i)
		volumes[i] = corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			Image: &corev1.ImageVolumeSource{Reference: image.Ref, PullPolicy: image.Policy},
		}}
		// The kubelet reports a volume that it can't get only for a container that mounts it.
		mounts[i] = corev1.VolumeMount{Name: name, MountPath: "/" + name}
	}
	return volumes, mounts
}
