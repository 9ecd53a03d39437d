package admission_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	webhook "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/admission"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/selection"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// registered is a policy for every pod, with all that it takes to inject it.
type registered struct {
	policy       *v1alpha1.SidecarPolicy
	revision     *appsv1.ControllerRevision
	registration *admissionregistrationv1.MutatingWebhookConfiguration
}

func register(t *testing.T, name string) registered {
	t.Helper()
	template := builders.Template(name, "registry.example/"+name+":v1")
	r := template.Revision(1)
	stored, err := revision.Encode(name, "operator", *r)
	if err != nil {
		t.Fatal(err)
	}
	stored.UID = types.UID(name)
	policy := &v1alpha1.SidecarPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.SidecarPolicySpec{Template: template.Obj()}}
	policy.Status.TargetRevision, policy.Status.StableRevision = r.Hash, r.Hash
	registration := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{
		Name: admission.RegistrationName(name), UID: types.UID(name), Labels: map[string]string{v1alpha1.PolicyLabel: name}}}
	for _, pair := range selection.Pairs(&policy.Spec.Selector, "operator") {
		labelled, others := pair.Split(v1alpha1.RevisionLabel(name))
		for _, part := range []selection.Pair{labelled, others} {
			registration.Webhooks = append(registration.Webhooks, admissionregistrationv1.MutatingWebhook{
				NamespaceSelector: part.Namespaces, ObjectSelector: part.Pods})
		}
	}
	return registered{policy, stored, registration}
}

func reader(t *testing.T, objects ...client.Object) client.Reader {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(shop).WithObjects(objects...).Build()
}

// The API server asks about a pod because of a policy. A cache that knows of another one alone, of a part, or of nothing, is behind.
func TestReadsLiveWhatTheCacheHasYetToHear(t *testing.T) {
	ambassador, logs := register(t, "ambassador"), register(t, "logs")
	notAccepted := logs.policy.DeepCopy()
	notAccepted.Status = v1alpha1.SidecarPolicyStatus{}
	all := []client.Object{ambassador.policy, ambassador.revision, ambassador.registration, logs.policy, logs.revision, logs.registration}
	for _, tc := range []struct {
		name  string
		cache []client.Object
		// carries is what an answer before this one brought.
		carries *revision.Revision
		want    []string
	}{
		{"the cache knows all", all, nil, []string{"ambassador", "logs"}},
		{"nothing", nil, nil, []string{"ambassador", "logs"}},
		{"a policy without its registration", []client.Object{logs.policy, logs.revision}, nil, []string{"ambassador", "logs"}},
		{"a registration without its policy", []client.Object{logs.registration}, nil, []string{"ambassador", "logs"}},
		{"a policy without what was accepted", []client.Object{logs.registration, notAccepted}, nil, []string{"ambassador", "logs"}},
		{"a policy without its revision", []client.Object{logs.registration, logs.policy}, nil, []string{"logs"}},
		{"one of two: the API server asks for the other", all[:3], nil, []string{"ambassador"}},
		{"the one that the pod carries, asked for the other", all[:3],
			builders.Template("ambassador", "registry.example/ambassador:v1").Revision(1), []string{"logs"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pod := builders.Pod("shop", "cart")
			if tc.carries != nil {
				pod = pod.Injected("ambassador", tc.carries)
			}
			raw, err := json.Marshal(pod.Obj())
			if err != nil {
				t.Fatal(err)
			}
			injector := &admission.Injector{Reader: reader(t, tc.cache...), Live: reader(t, all...), Namespace: "operator"}
			response := injector.Handle(t.Context(), webhook.Request{AdmissionRequest: admissionv1.AdmissionRequest{
				Namespace: "shop", Object: runtime.RawExtension{Raw: raw}, Operation: admissionv1.Create}}, v1alpha1.FailurePolicyIgnore)
			if !response.Allowed || len(response.Warnings) > 0 {
				t.Fatalf("allowed: %t, warnings %q", response.Allowed, response.Warnings)
			}
			patch, err := json.Marshal(response.Patches)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"ambassador", "logs"} {
				if got, want := strings.Contains(string(patch), "registry.example/"+name), slices.Contains(tc.want, name); got != want {
					t.Errorf("brings the sidecar of %s: %t, want %t: %s", name, got, want, patch)
				}
			}
		})
	}
}
