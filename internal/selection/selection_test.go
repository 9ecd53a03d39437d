package selection_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"

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
			if got := selects(s, tc.namespace, tc.pod); got != tc.want {
				t.Errorf("selected: %t, want %t", got, tc.want)
			}
		})
	}
	if len(some.PodSelector.MatchExpressions) > 0 || len(some.NamespaceSelector.MatchExpressions) > 0 {
		t.Error("the policy's own selectors were changed")
	}
}

func selects(s selection.Selector, namespace, pod labels.Set) bool {
	pods := s.In(namespace)
	return pods != nil && pods.Matches(pod)
}

// Owners have the last word: the rows are what a namespace says, the columns what a pod says.
func TestOwnersOptOutAndIn(t *testing.T) {
	values := []string{"-", "true", "false", "maybe"} // "-" is without the label
	for mode, want := range map[v1alpha1.SelectionMode]map[string]string{
		"":                       {"-": "yes yes no yes", "true": "yes yes no yes", "false": "no no no no", "maybe": "yes yes no yes"},
		v1alpha1.SelectOptOut:    {"-": "yes yes no yes", "true": "yes yes no yes", "false": "no no no no", "maybe": "yes yes no yes"},
		v1alpha1.SelectOptIn:     {"-": "no yes no no", "true": "yes yes no yes", "false": "no no no no", "maybe": "no yes no no"},
		v1alpha1.SelectMandatory: {"-": "yes yes yes yes", "true": "yes yes yes yes", "false": "yes yes yes yes", "maybe": "yes yes yes yes"},
	} {
		policy := &v1alpha1.PodSelection{Mode: mode, NamespaceSelector: matching("logs", "on"), PodSelector: matching("tier", "web")}
		s, err := selection.New(policy, "sidecars")
		if err != nil {
			t.Fatal(err)
		}
		said := func(key, value, inject string) labels.Set {
			set := labels.Set{key: value, corev1.LabelMetadataName: "shop"}
			if inject != "-" {
				set[v1alpha1.InjectLabel] = inject
			}
			return set
		}
		for _, namespace := range values {
			var row []string
			for _, pod := range values {
				got := "no"
				if selects(s, said("logs", "on", namespace), said("tier", "web", pod)) {
					got = "yes"
					if !s.Anywhere(said("tier", "web", pod)) {
						t.Errorf("mode %q: a pod that says %s is selected, and Anywhere() is false", mode, pod)
					}
				}
				row = append(row, got)
				if selects(s, said("logs", "off", namespace), said("tier", "web", pod)) || selects(s, said("logs", "on", namespace), said("tier", "db", pod)) {
					t.Errorf("mode %q: a label brings in a pod that the selectors don't match", mode)
				}
			}
			if diff := cmp.Diff(want[namespace], strings.Join(row, " ")); diff != "" {
				t.Errorf("mode %q, namespace says %s, pods say %v (-want +got):\n%s", mode, namespace, values, diff)
			}
		}
	}
}

// The pairs go to the API server, which asks once for each that a pod matches: it must ask once for
// the pods that In() selects, and never for others.
func TestPairsAreWhatIsSelectedOnce(t *testing.T) {
	value := rapid.SampledFrom([]string{"", "true", "false", "on", "kube-system", "sidecars", selection.OperatorName})
	key := rapid.SampledFrom([]string{v1alpha1.InjectLabel, corev1.LabelMetadataName, "app.kubernetes.io/name", v1alpha1.PrefetchLabel, "logs"})
	set := rapid.MapOfN(key, value, 0, 4)
	selector := rapid.Custom(func(t *rapid.T) *metav1.LabelSelector {
		if rapid.Bool().Draw(t, "none") {
			return nil
		}
		return &metav1.LabelSelector{MatchLabels: rapid.MapOfN(key, value, 0, 1).Draw(t, "matchLabels")}
	})
	matches := func(t *rapid.T, s *metav1.LabelSelector, l labels.Set) bool {
		parsed, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		return parsed.Matches(l)
	}
	asked := 0
	rapid.Check(t, func(t *rapid.T) {
		policy := &v1alpha1.PodSelection{NamespaceSelector: selector.Draw(t, "namespaceSelector"), PodSelector: selector.Draw(t, "podSelector"),
			Mode: rapid.SampledFrom([]v1alpha1.SelectionMode{v1alpha1.SelectOptOut, v1alpha1.SelectOptIn, v1alpha1.SelectMandatory}).Draw(t, "mode")}
		namespace, pod := labels.Set(set.Draw(t, "namespace")), labels.Set(set.Draw(t, "pod"))
		if rapid.Bool().Draw(t, "labelled") {
			pod = labels.Merge(pod, labels.Set{v1alpha1.RevisionLabel("logs"): "5d9c1f3b2a"})
		}
		calls := 0
		registration := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{v1alpha1.PolicyLabel: "logs"}}}
		for _, pair := range selection.Pairs(policy, "sidecars") {
			labelled, others := pair.Split(v1alpha1.RevisionLabel("logs"))
			for _, part := range []selection.Pair{labelled, others} {
				if matches(t, part.Namespaces, namespace) && matches(t, part.Pods, pod) {
					calls++
				}
				registration.Webhooks = append(registration.Webhooks, admissionregistrationv1.MutatingWebhook{
					NamespaceSelector: part.Namespaces, ObjectSelector: part.Pods})
			}
		}
		s, err := selection.New(policy, "sidecars")
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		if selects(s, namespace, pod) {
			want = 1
		}
		registered, err := (&selection.Cache{}).OfRegistration(registration)
		if err != nil {
			t.Fatal(err)
		}
		if got := selects(registered, namespace, pod); got != (want == 1) {
			t.Fatalf("selected by what is registered: %t, by the policy: %t", got, !got)
		}
		asked += calls
		if calls != want {
			t.Fatalf("the API server asks %d times, want %d", calls, want)
		}
	})
	if asked == 0 {
		t.Error("no drawn pod was ever selected")
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
