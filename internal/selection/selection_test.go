package selection_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/selection"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

func matching(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func TestPromise2NeverSelectsTheSystemOrTheOperatorItself(t *testing.T) {
	everything := &v1alpha1.PodSelection{}
	some := &v1alpha1.PodSelection{NamespaceSelector: matching("logs", "on"), PodSelector: matching("tier", "web")}
	for _, tc := range []struct {
		name           string
		selection      *v1alpha1.PodSelection
		namespace, pod labels.Set
		want           bool
	}{
		{"everything", everything, labels.Set{corev1.LabelMetadataName: "shop"}, nil, true},
		{"kube-system", everything, labels.Set{corev1.LabelMetadataName: "kube-system"}, nil, false},
		{"the operator's namespace", everything, labels.Set{corev1.LabelMetadataName: "sidecars"}, nil, false},
		{"the operator's pods elsewhere", everything, labels.Set{corev1.LabelMetadataName: "shop"},
			labels.Set{"app.kubernetes.io/name": selection.OperatorName}, false},
		{"a prefetch pod", everything, labels.Set{corev1.LabelMetadataName: "shop"},
			labels.Set{v1alpha1.PrefetchLabel: "5d9c1f3b2a"}, false},
		{"both match", some, labels.Set{corev1.LabelMetadataName: "shop", "logs": "on"}, labels.Set{"tier": "web"}, true},
		{"the namespace does not", some, labels.Set{corev1.LabelMetadataName: "shop"}, labels.Set{"tier": "web"}, false},
		{"the pod does not", some, labels.Set{corev1.LabelMetadataName: "shop", "logs": "on"}, labels.Set{"tier": "db"}, false},
		{"kube-system, even if it says so", some, labels.Set{corev1.LabelMetadataName: "kube-system", "logs": "on"}, labels.Set{"tier": "web"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := selection.New(tc.selection, "sidecars")
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Namespaces().Matches(tc.namespace) && s.Pods().Matches(tc.pod); got != tc.want {
				t.Errorf("selected: %t, want %t", got, tc.want)
			}
		})
	}
	if len(some.PodSelector.MatchExpressions) > 0 || len(some.NamespaceSelector.MatchExpressions) > 0 {
		t.Error("the policy's own selectors were changed")
	}
}

func TestActive(t *testing.T) {
	for _, tc := range []struct {
		name string
		pod  *builders.PodBuilder
		want bool
	}{
		{"running", builders.Pod("shop", "cart"), true},
		{"pending", builders.Pod("shop", "cart").With(func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }), true},
		{"succeeded", builders.Pod("shop", "cart").With(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), false},
		{"failed", builders.Pod("shop", "cart").With(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), false},
		{"being deleted", builders.Pod("shop", "cart").With(func(p *corev1.Pod) {
			now := metav1.NewTime(builders.Epoch)
			p.DeletionTimestamp = &now
		}), false},
		{"a mirror pod", builders.Pod("shop", "cart").Annotation(corev1.MirrorPodAnnotationKey, "x"), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := selection.Active(tc.pod.Obj()); got != tc.want {
				t.Errorf("Active() = %t, want %t", got, tc.want)
			}
		})
	}
}
