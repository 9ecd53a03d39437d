package admission_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	webhook "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/admission"
)

// brokenReader knows a policy and its namespace, and breaks when more is asked of it.
type brokenReader struct {
	client.Reader
	failurePolicy v1alpha1.InjectionFailurePolicy
	panics        bool
}

func (r *brokenReader) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	switch list := list.(type) {
	case *v1alpha1.SidecarPolicyList:
		policy := v1alpha1.SidecarPolicy{}
		policy.Name, policy.Status.TargetRevision = "broken", "r"
		policy.Spec.Injection.FailurePolicy = r.failurePolicy
		list.Items = []v1alpha1.SidecarPolicy{policy}
	case *admissionregistrationv1.MutatingWebhookConfigurationList:
		registration := admissionregistrationv1.MutatingWebhookConfiguration{Webhooks: []admissionregistrationv1.MutatingWebhook{
			{NamespaceSelector: &metav1.LabelSelector{}, ObjectSelector: &metav1.LabelSelector{}}}}
		registration.Labels = map[string]string{v1alpha1.PolicyLabel: "broken"}
		list.Items = []admissionregistrationv1.MutatingWebhookConfiguration{registration}
	}
	return nil
}

func (r *brokenReader) Get(_ context.Context, _ client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	switch {
	case !isA[*appsv1.ControllerRevision](object):
		return nil
	case r.panics:
		panic("index out of range")
	}
	return errors.New("the cache is gone")
}

func isA[T client.Object](object client.Object) bool {
	_, is := object.(T)
	return is
}

// log is what was logged.
var log strings.Builder

// TestMain sets the logger: it can be set once in a process.
func TestMain(m *testing.M) {
	ctrl.SetLogger(funcr.New(func(prefix, args string) { log.WriteString(prefix + " " + args + "\n") }, funcr.Options{Verbosity: 10}))
	os.Exit(m.Run())
}

// A pod is refused only where its policy's author asked for that, whatever breaks. In the log there is what broke, and
// nothing of the pod.
func TestPromise2WhatBreaksRefusesNoPodUnlessItsAuthorAskedForThat(t *testing.T) {
	const secret = "hunter2"
	pod := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"schedulingGates":[{"name":"hold.fleet.sidecar.dev/broken"}],"containers":[{"name":"app","env":[{"name":"PASSWORD","value":"` + secret + `"}]}]}}`
	for _, tc := range []struct {
		name   string
		reader brokenReader
		pod    string
		logged string
	}{
		{"a reader that fails", brokenReader{}, pod, "the cache is gone"},
		{"a panic", brokenReader{panics: true}, pod, "panic: index out of range"},
		{"a pod that can't be read", brokenReader{}, strings.Replace(pod, `"`+secret+`"`, `["`+secret+`"]`, 1), "decoding the pod"},
		{"a pod that is no JSON", brokenReader{}, strings.Replace(pod, `"`+secret+`"`, secret, 1), "decoding the pod"},
	} {
		for _, failurePolicy := range []v1alpha1.InjectionFailurePolicy{v1alpha1.FailurePolicyIgnore, v1alpha1.FailurePolicyFail, v1alpha1.FailurePolicyHold} {
			t.Run(tc.name+"/"+string(failurePolicy), func(t *testing.T) {
				log.Reset()
				tc.reader.failurePolicy = failurePolicy
				injector := &admission.Injector{Reader: &tc.reader, Live: &tc.reader}
				response := injector.Handle(t.Context(), webhook.Request{AdmissionRequest: admissionv1.AdmissionRequest{
					Namespace: "shop", Name: "web", Object: runtime.RawExtension{Raw: []byte(tc.pod)}, Operation: admissionv1.Create}}, failurePolicy)
				if want := failurePolicy != v1alpha1.FailurePolicyFail; response.Allowed != want {
					t.Errorf("allowed: %t, want %t: %v", response.Allowed, want, response.Result)
				}
				if len(response.Patches)+len(response.Patch) > 0 {
					t.Errorf("the pod is changed: %v", response.Patches)
				}
				if response.Allowed && len(response.Warnings) == 0 {
					t.Error("nobody is told")
				}
				if !strings.Contains(log.String(), tc.logged) {
					t.Errorf("the log does not say %q:\n%s", tc.logged, log.String())
				}
				if !strings.Contains(log.String(), `"namespace"="shop" "pod"="web"`) {
					t.Errorf("the log does not name the pod:\n%s", log.String())
				}
				if strings.Contains(log.String(), secret) {
					t.Errorf("the log has the pod's env:\n%s", log.String())
				}
			})
		}
	}
}
