package admissionpolicy

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/internal/selection"
)

// An API server takes a second or two to act on a MutatingAdmissionPolicy that was written, and
// has no status to say that it does. So it is asked: the dry run of a pod that a binding of its own
// selects comes back with the digest of what is in force. That binding is written after the others, and
// selects by the digest; an API server that knows it, knows them.

// checkKey is a label of the pod that asks, and an annotation of the answer.
const checkKey = "fleet.sidecar.dev/registration"

const checkPrefix = "check."

// Rank sorts the names of bindings in the order in which they are removed: as long as the API server answers
// CheckPod, it may act on the others.
func Rank(binding string) int {
	if strings.HasPrefix(binding, checkPrefix) {
		return 1
	}
	return 0
}

// checkedBy selects the pod that asks for a digest.
func checkedBy(digest, namespace string) selection.Pair {
	return selection.Pair{
		Namespaces: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
		Pods:       &metav1.LabelSelector{MatchLabels: map[string]string{checkKey: digest}},
	}
}

// answer is the first half of a choice: the answer for a pod that asks.
func answer(namespace string) string {
	return fmt.Sprintf(`request.namespace == %s ? [JSONPatch{op: "add", path: "/metadata/annotations", value: {%q: variables.digest}}]`,
		quote(namespace), checkKey)
}

// CheckPod is a pod to create as a dry run: its answer says whether a registration is in force. It
// may be created where Pod Security is restricted.
func CheckPod(namespace, digest string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "registration-check-", Namespace: namespace, Labels: map[string]string{checkKey: digest}},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: ptr.To(false),
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To[int64](65532),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{Name: "check", Image: "check", SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}}},
		},
	}
}

// InForce says whether the answer to CheckPod is that the API server acts on what has this digest.
func InForce(answer *corev1.Pod, digest string) bool { return answer.Annotations[checkKey] == digest }
