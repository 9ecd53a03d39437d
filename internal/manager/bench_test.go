package manager

import (
	"context"
	"net/http"
	"reflect"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	testclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/controllers"
	"github.com/sidecar-dev/sidecar-operator/internal/certs"
	"github.com/sidecar-dev/sidecar-operator/internal/report"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/cputime"
)

const (
	policy    = "agent"
	namespace = "sidecar-operator-system"
	secret    = "webhook-cert"
)

var request = ctrl.Request{NamespacedName: client.ObjectKey{Name: policy}}

// BenchmarkReconcile is a whole pass of the manager over 10,000 pods of 500 Deployments, in which
// nothing changed since the last one: from its caches, and without an API server to write to.
func BenchmarkReconcile(b *testing.B) {
	world := settledWorld(b)
	world.add(world.apps(b, 10_000, 500)...)
	world.report(b)
	r := world.reconciler(world.cached(b))
	pass := func() {
		_, err := r.Reconcile(b.Context(), request)
		must(b, err)
	}
	pass() // reads the records
	b.ReportAllocs()
	started := cputime.Now()
	for b.Loop() {
		pass()
	}
	b.ReportMetric(float64((cputime.Now()-started).Microseconds())/1000/float64(b.N), "CPU-ms/op")
}

// world is what an API server would hold.
type world struct {
	scheme  *runtime.Scheme
	clock   *testclock.FakeClock
	objects map[reflect.Type][]client.Object
}

// settledWorld has a policy that was rolled out twice, and no pods.
func settledWorld(b *testing.B) *world {
	b.Helper()
	w := &world{scheme: runtime.NewScheme(), clock: testclock.NewFakeClock(builders.Epoch.Add(time.Hour)), objects: map[reflect.Type][]client.Object{}}
	must(b, clientgoscheme.AddToScheme(w.scheme))
	must(b, v1alpha1.AddToScheme(w.scheme))
	certificate := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: secret}}
	_, err := certs.Schedule{}.Renew(certificate, "127.0.0.1", true, w.clock.Now())
	must(b, err)
	object := &v1alpha1.SidecarPolicy{ObjectMeta: metav1.ObjectMeta{Name: policy, UID: "policy"}}
	object.Spec.Template = builders.Template(policy, "registry.example/agent:v1").Probe().Obj()
	server := fake.NewClientBuilder().WithScheme(w.scheme).WithObjects(certificate, object).WithStatusSubresource(object).Build()
	for _, image := range []string{"registry.example/agent:v1", "registry.example/agent:v2"} {
		must(b, server.Get(b.Context(), client.ObjectKey{Name: policy}, object))
		object.Spec.Template.Sidecars[0].Image = image
		must(b, server.Update(b.Context(), object))
		r := w.reconciler(server, noPods{})
		for range 5 {
			_, err := r.Reconcile(b.Context(), request)
			must(b, err)
		}
	}
	for _, list := range []client.ObjectList{&v1alpha1.SidecarPolicyList{}, &appsv1.ControllerRevisionList{}, &corev1.SecretList{}, &admissionregistrationv1.MutatingWebhookConfigurationList{}} {
		must(b, server.List(b.Context(), list))
		items := reflect.ValueOf(list).Elem().FieldByName("Items")
		for i := range items.Len() {
			w.add(items.Index(i).Addr().Interface().(client.Object))
		}
	}
	return w
}

func (w *world) add(objects ...client.Object) {
	for _, object := range objects {
		kind := reflect.TypeOf(object)
		w.objects[kind] = append(w.objects[kind], object)
	}
}

// apps are Deployments, ReplicaSets and pods of the policy's two revisions, with their namespaces
// and nodes.
func (w *world) apps(b *testing.B, pods, apps int) []client.Object {
	b.Helper()
	var revisions []*revision.Revision
	for _, object := range w.objects[reflect.TypeFor[*appsv1.ControllerRevision]()] {
		decoded, err := revision.Decode(object.(*appsv1.ControllerRevision))
		must(b, err)
		revisions = append(revisions, &decoded)
	}
	if len(revisions) != 2 {
		b.Fatalf("the policy has %d revisions, want 2", len(revisions))
	}
	if revisions[0].Number > revisions[1].Number {
		revisions[0], revisions[1] = revisions[1], revisions[0]
	}
	objects := []client.Object{&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}}
	seen := map[string]bool{}
	for _, app := range builders.NewApps(pods, apps, policy, revisions...) {
		if !seen[app.Deployment.Namespace] {
			seen[app.Deployment.Namespace] = true
			objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: app.Deployment.Namespace}})
		}
		objects = append(objects, app.Deployment, app.ReplicaSet)
		for _, pod := range app.Pods {
			objects = append(objects, pod)
		}
	}
	return objects
}

// report writes into the policy what a pass says of the fleet.
func (w *world) report(b *testing.B) {
	b.Helper()
	cached, pods := w.cached(b)
	c := &statusReader{Client: cached}
	_, err := w.reconciler(c, pods).Reconcile(b.Context(), request)
	must(b, err)
	w.objects[reflect.TypeOf(c.status.written)] = []client.Object{c.status.written}
}

// statusReader takes the status that is written.
type statusReader struct {
	client.Client
	status writtenStatus
}

func (r *statusReader) Status() client.SubResourceWriter { return &r.status }

type writtenStatus struct {
	client.SubResourceWriter
	written client.Object
}

func (s *writtenStatus) Update(_ context.Context, object client.Object, _ ...client.SubResourceUpdateOption) error {
	s.written = object
	return nil
}

// noPods is a fleet without any.
type noPods struct{}

func (noPods) InNamespace(context.Context, string) ([]*corev1.Pod, error) { return nil, nil }
func (noPods) Carrying(context.Context, string) ([]*corev1.Pod, error)    { return nil, nil }
func (noPods) Prefetching(context.Context, string) ([]*corev1.Pod, error) { return nil, nil }

func (w *world) reconciler(c client.Client, pods controllers.PodReader) *controllers.SidecarPolicyReconciler {
	return &controllers.SidecarPolicyReconciler{
		Client: c, Live: c, Pods: pods, Recorder: events.NewFakeRecorder(100), Clock: w.clock, Namespace: namespace,
		Webhook:       controllers.WebhookEndpoint{Host: "127.0.0.1", Port: 1, Secret: secret},
		ServerVersion: func() (string, error) { return "v1.37.2", nil },
		Prefetcher:    &controllers.Prefetcher{Client: c, Pods: pods},
		Reports:       &report.Board{},
	}
}

// cached are the manager's client and pods, with caches as the manager has them.
func (w *world) cached(b *testing.B) (client.Client, controllers.PodReader) {
	b.Helper()
	config := &rest.Config{Host: "http://127.0.0.1:1"} // nobody is there: whoever writes, fails
	mapper := testrestmapper.TestOnlyStaticRESTMapper(w.scheme)
	options := cacheOptions(&Options{Namespace: namespace, Webhook: controllers.WebhookEndpoint{Secret: secret}})
	options.Scheme, options.Mapper, options.HTTPClient = w.scheme, mapper, http.DefaultClient
	options.NewInformer = func(_ toolscache.ListerWatcher, kind runtime.Object, resync time.Duration, indexers toolscache.Indexers) toolscache.SharedIndexInformer {
		return toolscache.NewSharedIndexInformer(stored(w.objects[reflect.TypeOf(kind)]), kind, resync, indexers)
	}
	informers, err := cache.New(config, options)
	must(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- informers.Start(ctx) }()
	b.Cleanup(func() {
		cancel()
		must(b, <-done)
	})
	c, err := client.New(config, client.Options{Scheme: w.scheme, Mapper: mapper, HTTPClient: http.DefaultClient,
		Cache: &client.CacheOptions{Reader: informers, EnableReadYourWritesConsistency: ptr.To(true)}})
	must(b, err)
	pods, err := controllers.NewCachedPods(ctx, c, informers)
	must(b, err)
	return c, pods
}

// stored lists objects, of which none ever changes.
type stored []client.Object

func (s stored) List(metav1.ListOptions) (runtime.Object, error) {
	list := &metav1.List{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
	for _, object := range s {
		list.Items = append(list.Items, runtime.RawExtension{Object: object.DeepCopyObject()})
	}
	return list, nil
}

func (stored) Watch(metav1.ListOptions) (watch.Interface, error) { return watch.NewFake(), nil }

// IsWatchListSemanticsUnSupported has the reflector list.
func (stored) IsWatchListSemanticsUnSupported() bool { return true }

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
