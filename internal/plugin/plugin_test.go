package plugin

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

var now = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// cluster is an API server that holds these objects, and answers as the functions say.
func cluster(t *testing.T, funcs interceptor.Funcs, objects ...client.Object) client.WithWatch {
	t.Helper()
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	if funcs.Create == nil {
		funcs.Create = allowAll
	}
	byName := func(o client.Object) []string { return []string{o.GetName()} }
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(funcs).
		WithIndex(&v1alpha1.SidecarPolicy{}, "metadata.name", byName).Build()
}

// allowAll answers questions about rights, which nobody stores.
func allowAll(ctx context.Context, c client.WithWatch, object client.Object, opts ...client.CreateOption) error {
	switch review := object.(type) {
	case *authorizationv1.SelfSubjectAccessReview:
		review.Status.Allowed = true
	case *authorizationv1.SubjectAccessReview:
		review.Status.Allowed = true
	default:
		return c.Create(ctx, object, opts...)
	}
	return nil
}

// result is what a command said, and how it ended.
type result struct {
	out, err string
	code     int
}

// run runs a command against an API server.
func run(t *testing.T, c client.WithWatch, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, err bytes.Buffer
	a := &app{IOStreams: genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: &out, ErrOut: &err},
		flags: genericclioptions.NewConfigFlags(true), clock: testclock.NewFakePassiveClock(now),
		open: func() (client.WithWatch, error) { return c, nil },
		ask:  func() (string, error) { return "v1.37.2", nil }}
	code := a.run(ctx, args)
	return result{out.String(), err.String(), code}
}

// wants says whether a command ended so, with these words in what it said.
func (r result) wants(t *testing.T, code int, words ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("ended with %d, want %d: %s%s", r.code, code, r.out, r.err)
	}
	for _, w := range words {
		if !strings.Contains(r.out+r.err, w) {
			t.Errorf("says %q, want %q in it", r.out+r.err, w)
		}
	}
}

// newPolicy selects the pods of the app of its name.
func newPolicy(name string) *v1alpha1.SidecarPolicy {
	p := &v1alpha1.SidecarPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Generation: 1}}
	p.Spec.Selector.PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	p.Spec.Template = builders.Template("agent", "agent:1").Obj()
	p.Status.ObservedGeneration = 1
	return p
}

func forbidden(resource string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("not for you"))
}

func newNamespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func TestExplainNamesThePoliciesThereAre(t *testing.T) {
	c := cluster(t, interceptor.Funcs{}, newNamespace("shop"), builders.Pod("shop", "cart-1").Obj(), newPolicy("logs"))
	run(t, c, "explain", "shop/cart-1", "--policy", "lgos").wants(t, exitError, `there is no policy "lgos": write one of logs`)
	run(t, c, "explain", "shop/cart-1", "--policy", "logs").wants(t, exitOK, "logs lacks it (NotSelected)")
}

// Whoever may read one policy need not be allowed to list all.
func TestExplainReadsThePolicyThatIsAskedAbout(t *testing.T) {
	c := cluster(t, interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
		if _, policies := list.(*v1alpha1.SidecarPolicyList); policies {
			return forbidden("sidecarpolicies")
		}
		return c.List(ctx, list, opts...)
	}}, newNamespace("shop"), builders.Pod("shop", "cart-1").Obj(), newPolicy("logs"))
	run(t, c, "explain", "shop/cart-1", "--policy", "logs").wants(t, exitOK, "logs lacks it (NotSelected)")
}

func TestExplainSaysWhatBecomesOfADeselectedPod(t *testing.T) {
	policy := newPolicy("logs")
	pod := builders.Pod("shop", "cart-1").Injected("logs", builders.Template("agent", "agent:1").Revision(1)).Obj()
	c := cluster(t, interceptor.Funcs{}, newNamespace("shop"), pod, policy)
	run(t, c, "explain", "shop/cart-1").wants(t, exitOK, "logs: has it (Deselected)", "leaves it as it is", "recreate it to take the sidecars out")
	policy.Spec.OnRemoval = v1alpha1.RemovalRecreate
	c = cluster(t, interceptor.Funcs{}, newNamespace("shop"), pod, policy)
	run(t, c, "explain", "shop/cart-1").wants(t, exitOK, "has it evicted, as spec.onRemoval is Recreate", "kubectl sidecar status logs")
}

// Whoever writes a command wrongly is told how it is written.
func TestErrorsSayWhatToWrite(t *testing.T) {
	c := cluster(t, interceptor.Funcs{}, newPolicy("logs"))
	for _, tc := range []struct {
		args string
		says string
	}{
		{"status logs mesh", "name one policy, or none to see all: kubectl sidecar status [POLICY]"},
		{"explain", "name one pod, as POD, pod/POD or NAMESPACE/POD: kubectl sidecar explain POD"},
		{"explain pod cart-1", "name one pod, as POD, pod/POD or NAMESPACE/POD: kubectl sidecar explain POD"},
		{"diff", "name one policy, and two revisions at most: kubectl sidecar diff POLICY [REVISION] [REVISION]"},
		{"diff logs 1 2 3", "name one policy, and two revisions at most"},
		{"history", "name one policy: kubectl sidecar history POLICY"},
		{"doctor logs", "it takes no arguments: kubectl sidecar doctor"},
		{"plan", "say which file has the policy, - for the standard input: kubectl sidecar plan -f FILE"},
		{"plan p.yaml", "write -f p.yaml: kubectl sidecar plan -f FILE"},
		{"plan -f p.yaml other.yaml", "write -f other.yaml"},
		{"status --wach", "unknown flag: --wach: see kubectl sidecar status --help"},
		{"explain cart-1 -o xml", "write one of json, yaml, wide"},
	} {
		run(t, c, strings.Fields(tc.args)...).wants(t, exitError, tc.says)
	}
}

func TestWideIsTakenEverywhere(t *testing.T) {
	c := cluster(t, dryRuns, newNamespace("shop"), builders.Pod("shop", "cart-1").Obj(), newPolicy("logs"))
	file := fileOf(t, newPolicy("mesh"))
	for _, args := range [][]string{{"status"}, {"status", "logs"}, {"history", "logs"}, {"diff", "logs"}, {"plan", "-f", file}, {"explain", "shop/cart-1"}, {"doctor"}} {
		if r := run(t, c, append(args, "-o", "wide")...); strings.Contains(r.err, "-o wide") {
			t.Errorf("%v: %s", args, r.err)
		}
	}
}

func TestDryRunWithoutAValueIsTheClients(t *testing.T) {
	c := cluster(t, interceptor.Funcs{}, newPolicy("logs"))
	run(t, c, "pause", "logs", "--dry-run").wants(t, exitOK, "paused the roll-out of policy logs (client dry run: nothing was changed)")
	run(t, c, "pause", "--dry-run", "logs").wants(t, exitOK, "(client dry run: nothing was changed)")
	p := &v1alpha1.SidecarPolicy{}
	if err := c.Get(t.Context(), client.ObjectKey{Name: "logs"}, p); err != nil || p.Spec.Rollout.Paused {
		t.Errorf("paused: %t, %v", p.Spec.Rollout.Paused, err)
	}
}

func TestUnreachable(t *testing.T) {
	kubeconfig := textFile(t, "")
	for name, server := range map[string]string{"nobody listens": "http://127.0.0.1:1", "there is no such host": "http://nowhere.invalid:6443"} {
		for _, args := range [][]string{{"status"}, {"explain", "cart-1"}, {"doctor"}, {"status", "logs", "--watch"}} {
			var out, errs bytes.Buffer
			streams := genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: &out, ErrOut: &errs}
			code := Run(t.Context(), append(args, "--kubeconfig", kubeconfig, "--server", server), streams, testclock.NewFakePassiveClock(now))
			result{out.String(), errs.String(), code}.wants(t, exitError, "the API server can't be reached: see whether it runs")
			if t.Failed() {
				t.Fatalf("%s: %v", name, args)
			}
		}
	}
}
