package plugin

import (
	"context"
	"reflect"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

func newDeployment(namespace string) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "sidecar-operator-controller-manager", Labels: operatorLabels}}
	d.Spec.Template.Spec.ServiceAccountName = "sidecar-operator-controller-manager"
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "manager", Image: "ghcr.io/sidecar-dev/sidecar-operator:v0.1.0"}}
	return d
}

func TestHome(t *testing.T) {
	url := newRegistration("logs", "")
	url.Webhooks[0].ClientConfig = admissionregistrationv1.WebhookClientConfig{}
	all := []client.Object{newRegistration("logs", "registered"), newRegistration("mesh", "registered"), newDeployment("deployed")}
	for _, tc := range []struct {
		name      string
		named     string
		objects   []client.Object
		forbidden []client.ObjectList
		want, err string
	}{
		{name: "it is named", named: "named", objects: all, want: "named"},
		{name: "it is registered", objects: all, want: "registered"},
		{name: "nobody may read registrations", objects: all, forbidden: []client.ObjectList{&admissionregistrationv1.MutatingWebhookConfigurationList{}}, want: "deployed"},
		{name: "nobody may read anything", objects: all, want: defaultNamespace,
			forbidden: []client.ObjectList{&admissionregistrationv1.MutatingWebhookConfigurationList{}, &appsv1.DeploymentList{}}},
		{name: "it is reached by a URL", objects: []client.Object{url, newDeployment("deployed")}, want: "deployed"},
		{name: "nothing is found", want: defaultNamespace},
		{name: "one of several is the default", objects: []client.Object{newDeployment("other"), newDeployment(defaultNamespace)}, want: defaultNamespace},
		{name: "several", objects: []client.Object{newDeployment("other"), newDeployment("another")}, err: "choose one of another, other by --operator-namespace"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := cluster(t, interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
				for _, not := range tc.forbidden {
					if reflect.TypeOf(not) == reflect.TypeOf(list) {
						return forbidden("that")
					}
				}
				return c.List(ctx, list, opts...)
			}}, tc.objects...)
			a := &app{namespace: tc.named}
			got, err := a.home(t.Context(), c)
			if got != tc.want || (tc.err == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("home() = %q, %v, want %q, %q", got, err, tc.want, tc.err)
			}
		})
	}
}

// The history is where the operator is. Judged without it, every pod would carry a revision that nobody knows.
func TestNothingIsJudgedWithoutTheHistory(t *testing.T) {
	r := builders.Template("agent", "agent:1").Revision(1)
	stored, err := revision.Encode("logs", "elsewhere", *r)
	if err != nil {
		t.Fatal(err)
	}
	policy := newPolicy("logs")
	policy.Status.TargetRevision, policy.Status.StableRevision = r.Hash, r.Hash
	pod := builders.Pod("shop", "cart-1").Label("app", "logs").Injected("logs", r).Obj()
	objects := []client.Object{newNamespace("shop"), newNamespace("elsewhere"), stored, policy, pod}
	changed := newPolicy("logs")
	changed.Spec.Template = builders.Template("agent", "agent:2").Obj()
	commands := [][]string{{"explain", "shop/cart-1"}, {"plan", "-f", fileOf(t, changed)}, {"history", "logs"}, {"diff", "logs", "1", "1"}, {"undo", "logs", "--to-revision", r.Hash}}
	for _, args := range commands {
		run(t, cluster(t, dryRuns, objects...), args...).wants(t, exitError, "no revision of it is in namespace sidecar-operator-system: say where the operator is installed by --operator-namespace")
	}
	found := append(objects, newRegistration("logs", "elsewhere"))
	for _, args := range commands {
		if r := run(t, cluster(t, dryRuns, found...), args...); strings.Contains(r.err, "--operator-namespace") {
			t.Errorf("%v: %s", args, r.err)
		}
	}
}
