// Package selection decides which pods a policy selects. The admission
// registration and the reconcilers use the same selectors, so that they can't disagree.
package selection

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// OperatorName is the value of the label app.kubernetes.io/name of the operator's own pods.
const OperatorName = "sidecar-operator"

const nameLabel = "app.kubernetes.io/name"

// The values of v1alpha1.InjectLabel.
const (
	optedOut = "false"
	optedIn  = "true"
)

// Pair is a selector of namespaces, and one of the pods in them.
type Pair struct{ Namespaces, Pods *metav1.LabelSelector }

// Pairs are what a policy selects: the pods that match one of them. No pod matches two, so that
// admission is asked once. None of them has kube-system, the operator's own namespace and pods,
// the pods that it makes to prefetch images, and those whose owner has opted out where owners may.
func Pairs(selection *v1alpha1.PodSelection, operatorNamespace string) []Pair {
	namespaces := with(selection.NamespaceSelector,
		notIn(corev1.LabelMetadataName, metav1.NamespaceSystem, operatorNamespace))
	pods := with(selection.PodSelector,
		notIn(nameLabel, OperatorName),
		having(v1alpha1.PrefetchLabel, metav1.LabelSelectorOpDoesNotExist))
	switch selection.Mode {
	case v1alpha1.SelectMandatory:
		return []Pair{{namespaces, pods}}
	case v1alpha1.SelectOptIn:
		return []Pair{
			{with(namespaces, in(v1alpha1.InjectLabel, optedIn)), with(pods, notIn(v1alpha1.InjectLabel, optedOut))},
			{with(namespaces, notIn(v1alpha1.InjectLabel, optedIn, optedOut)), with(pods, in(v1alpha1.InjectLabel, optedIn))},
		}
	}
	return []Pair{{with(namespaces, notIn(v1alpha1.InjectLabel, optedOut)), with(pods, notIn(v1alpha1.InjectLabel, optedOut))}}
}

// Split divides the pods of a pair into those that carry a label, whatever its value, and the others: an API server tells them
// apart by a selector for next to nothing, and by an expression in about half a millisecond.
func (p Pair) Split(label string) (carrying, lacking Pair) {
	return Pair{p.Namespaces, with(p.Pods, having(label, metav1.LabelSelectorOpExists))},
		Pair{p.Namespaces, with(p.Pods, having(label, metav1.LabelSelectorOpDoesNotExist))}
}

// joined are the pairs that were split by a label.
func joined(parts []Pair, label string) []Pair {
	var pairs []Pair
	for _, part := range parts {
		last := len(part.Pods.MatchExpressions) - 1
		if last >= 0 && part.Pods.MatchExpressions[last].Key == label {
			if part.Pods.MatchExpressions[last].Operator == metav1.LabelSelectorOpExists {
				continue
			}
			part.Pods = part.Pods.DeepCopy()
			part.Pods.MatchExpressions = part.Pods.MatchExpressions[:last]
		}
		pairs = append(pairs, part)
	}
	return pairs
}

// with is a copy of a selector, nil matching everything, with more requirements.
func with(selector *metav1.LabelSelector, requirements ...metav1.LabelSelectorRequirement) *metav1.LabelSelector {
	result := &metav1.LabelSelector{}
	if selector != nil {
		result = selector.DeepCopy()
	}
	result.MatchExpressions = append(result.MatchExpressions, requirements...)
	return result
}

func having(key string, operator metav1.LabelSelectorOperator) metav1.LabelSelectorRequirement {
	return metav1.LabelSelectorRequirement{Key: key, Operator: operator}
}

func in(key string, values ...string) metav1.LabelSelectorRequirement {
	return metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpIn, Values: values}
}

// notIn is also fulfilled without the key.
func notIn(key string, values ...string) metav1.LabelSelectorRequirement {
	return metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpNotIn, Values: values}
}

// Selector matches the pods of one policy.
type Selector []pair

type pair struct{ namespaces, pods labels.Selector }

// New reads a policy's selection. The error says which selector is wrong.
func New(selection *v1alpha1.PodSelection, operatorNamespace string) (Selector, error) {
	return read(Pairs(selection, operatorNamespace))
}

func read(pairs []Pair) (Selector, error) {
	var s Selector
	for _, p := range pairs {
		namespaces, err := metav1.LabelSelectorAsSelector(p.Namespaces)
		if err != nil {
			return nil, fmt.Errorf("spec.selector.namespaceSelector: %w", err)
		}
		pods, err := metav1.LabelSelectorAsSelector(p.Pods)
		if err != nil {
			return nil, fmt.Errorf("spec.selector.podSelector: %w", err)
		}
		s = append(s, pair{namespaces, pods})
	}
	return s, nil
}

// In matches the labels of the pods that are selected in a namespace with these labels; nil where
// none can be.
func (s Selector) In(namespace labels.Set) labels.Selector {
	for _, p := range s {
		if p.namespaces.Matches(namespace) {
			return p.pods
		}
	}
	return nil
}

// Anywhere says whether a pod with these labels is selected in any namespace that could be.
func (s Selector) Anywhere(pod labels.Set) bool {
	return slices.ContainsFunc(s, func(p pair) bool { return p.pods.Matches(pod) })
}

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
