package plugin

import (
	"context"
	"fmt"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

func newRegistration(policy, namespace string) *admissionregistrationv1.MutatingWebhookConfiguration {
	return &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "sidecar-operator-" + policy, Labels: map[string]string{v1alpha1.PolicyLabel: policy}},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{Name: "inject.fleet.sidecar.dev",
			ClientConfig: admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{Namespace: namespace, Name: webhookService}}}},
	}
}

func TestDoctorDoesNotTakeUnreadPoliciesForGone(t *testing.T) {
	policies := func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
		if _, found := list.(*v1alpha1.SidecarPolicyList); found {
			return forbidden("sidecarpolicies")
		}
		return c.List(ctx, list, opts...)
	}
	c := cluster(t, interceptor.Funcs{List: policies}, newPolicy("logs"), newRegistration("logs", "somewhere"))
	r := run(t, c, "doctor")
	r.wants(t, exitError, "not checked, as SidecarPolicies could not be read")
	if strings.Contains(r.out, "kubectl delete") {
		t.Errorf("says to delete the registration of a policy that is there:\n%s", r.out)
	}
}

func TestDoctorAsksForPodsByThePage(t *testing.T) {
	const pages = 3
	asked := 0
	pods := func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
		page, found := list.(*metav1.PartialObjectMetadataList)
		if !found {
			return c.List(ctx, list, opts...)
		}
		options := (&client.ListOptions{}).ApplyOptions(opts)
		want := ""
		if asked > 0 {
			want = fmt.Sprint(asked)
		}
		if options.Limit != pageSize || options.Continue != want {
			t.Errorf("asks for %d pods after %q, want %d after %q", options.Limit, options.Continue, pageSize, want)
		}
		asked++
		page.Items = []metav1.PartialObjectMetadata{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint(asked), Labels: map[string]string{"app": "both"}}}}
		if page.Continue = fmt.Sprint(asked); asked == pages {
			page.Continue = ""
		}
		return nil
	}
	one, other := newPolicy("one"), newPolicy("other")
	one.Spec.Selector.PodSelector.MatchLabels["app"], other.Spec.Selector.PodSelector.MatchLabels["app"] = "both", "both"
	c := cluster(t, interceptor.Funcs{List: pods}, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, one, other)
	run(t, c, "doctor").wants(t, exitError, "policies one and other both select 3 pods")
	if asked != pages {
		t.Errorf("asked for %d pages, want %d", asked, pages)
	}
}

// The roles of the operator have another name where OLM installed it; and a role that is there may be bound to nobody.
func TestDoctorAsksWhatTheOperatorMayDo(t *testing.T) {
	var denied func(*authorizationv1.SubjectAccessReview) error
	reviews := func(ctx context.Context, c client.WithWatch, object client.Object, opts ...client.CreateOption) error {
		review, found := object.(*authorizationv1.SubjectAccessReview)
		if !found {
			return allowAll(ctx, c, object, opts...)
		}
		if want := "system:serviceaccount:operators:sidecar-operator-controller-manager"; review.Spec.User != want || len(review.Spec.Groups) != 3 {
			t.Errorf("asks about %s in %v, want %s", review.Spec.User, review.Spec.Groups, want)
		}
		review.Status.Allowed = true
		return denied(review)
	}
	c := cluster(t, interceptor.Funcs{Create: reviews}, newDeployment("operators"))

	denied = func(*authorizationv1.SubjectAccessReview) error { return nil }
	run(t, c, "doctor").wants(t, exitError, "access         system:serviceaccount:operators:sidecar-operator-controller-manager may do all that the operator does")
	denied = func(r *authorizationv1.SubjectAccessReview) error {
		r.Status.Allowed = r.Spec.ResourceAttributes.Subresource != "eviction" && r.Spec.ResourceAttributes.Namespace == ""
		return nil
	}
	run(t, c, "doctor").wants(t, exitError, "broken   access", "create pods/eviction", "in namespace operators", "see whether its roles are there and bound to it")
	denied = func(*authorizationv1.SubjectAccessReview) error { return forbidden("subjectaccessreviews") }
	run(t, c, "doctor").wants(t, exitError, "warning  access         not checked, as what the operator's service account may do could not be read", "subjectaccessreviews is forbidden")
}
