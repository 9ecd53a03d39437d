// Package selection decides which pods a policy selects. The admission
// registration and the reconcilers use the same selectors, so that they can't disagree.
package selection

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// OperatorName is the value of the label app.kubernetes.io/name of the operator's own pods.
const OperatorName = "sidecar-operator"

const nameLabel = "app.kubernetes.io/name"

// NamespaceSelector is the policy's namespace selector without kube-system and the
// operator's own namespace.
func NamespaceSelector(selection *v1alpha1.PodSelection, operatorNamespace string) *metav1.LabelSelector {
	return excluding(selection.NamespaceSelector, corev1.LabelMetadataName,
		metav1.NamespaceSystem, operatorNamespace)
}

// PodSelector is the policy's pod selector without the operator's own pods and those that
// it makes to prefetch images.
func PodSelector(selection *v1alpha1.PodSelection) *metav1.LabelSelector {
	selector := excluding(selection.PodSelector, nameLabel, OperatorName)
	selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{
		Key: v1alpha1.PrefetchLabel, Operator: metav1.LabelSelectorOpDoesNotExist,
	})
	return selector
}

func excluding(selector *metav1.LabelSelector, key string, values ...string) *metav1.LabelSelector {
	result := &metav1.LabelSelector{}
	if selector != nil {
		result = selector.DeepCopy()
	}
	result.MatchExpressions = append(result.MatchExpressions, metav1.LabelSelectorRequirement{
		Key: key, Operator: metav1.LabelSelectorOpNotIn, Values: values,
	})
	return result
}

// Selector matches the pods of one policy.
type Selector struct {
	namespaces, pods labels.Selector
}

// New reads a policy's selection. The error says which selector is wrong.
func New(selection *v1alpha1.PodSelection, operatorNamespace string) (Selector, error) {
	namespaces, err := metav1.LabelSelectorAsSelector(NamespaceSelector(selection, operatorNamespace))
	if err != nil {
		return Selector{}, fmt.Errorf("spec.selector.namespaceSelector: %w", err)
	}
	pods, err := metav1.LabelSelectorAsSelector(PodSelector(selection))
	if err != nil {
		return Selector{}, fmt.Errorf("spec.selector.podSelector: %w", err)
	}
	return Selector{namespaces: namespaces, pods: pods}, nil
}

// Namespaces matches the labels of namespaces.
func (s Selector) Namespaces() labels.Selector { return s.namespaces }

// Pods matches the labels of pods.
func (s Selector) Pods() labels.Selector { return s.pods }

// Injectable says whether a pod can be given sidecars at all. A mirror pod
// stands for a static pod of a node, which only that node's files can change.
func Injectable(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return !mirror
}

// Active says whether a pod belongs to the fleet now: it can be given sidecars, has not
// finished and is not being deleted.
func Active(pod *corev1.Pod) bool {
	return Injectable(pod) && pod.DeletionTimestamp == nil &&
		pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}
