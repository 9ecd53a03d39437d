package workload_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
	"github.com/sidecar-dev/sidecar-operator/internal/workload"
)

const revisionAnnotation = "deployment.kubernetes.io/revision"

// ref is an owner whose UID is its kind and name.
func ref(apiVersion, kind, name string) *metav1.OwnerReference {
	return &metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name,
		UID: types.UID(kind + "/" + name), Controller: ptr.To(true)}
}

func metadata(kind, name string, annotations map[string]string, owners ...*metav1.OwnerReference) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(kind + "/" + name), Generation: 1, Annotations: annotations}
	for _, owner := range owners {
		m.OwnerReferences = append(m.OwnerReferences, *owner)
	}
	return m
}

func revision(number string) map[string]string { return map[string]string{revisionAnnotation: number} }

// deployment has four replicas of revision 2.
func deployment(changes ...func(*appsv1.Deployment)) *appsv1.Deployment {
	d := &appsv1.Deployment{
		ObjectMeta: metadata("Deployment", "cart", map[string]string{revisionAnnotation: "2", "team": "cart"}),
		Spec:       appsv1.DeploymentSpec{Replicas: ptr.To[int32](4)},
		Status:     appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 4, UpdatedReplicas: 4},
	}
	for _, change := range changes {
		change(d)
	}
	return d
}

// replicaSet is one of revision 2, and has three of four replicas.
func replicaSet(owner *metav1.OwnerReference, changes ...func(*appsv1.ReplicaSet)) *appsv1.ReplicaSet {
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metadata("ReplicaSet", "cart-2", revision("2")),
		Spec:       appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](4)},
		Status:     appsv1.ReplicaSetStatus{Replicas: 3},
	}
	if owner != nil {
		rs.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	for _, change := range changes {
		change(rs)
	}
	return rs
}

// reader has what a cache would.
func reader(t *testing.T, objects []client.Object, funcs interceptor.Funcs) client.Client {
	t.Helper()
	for _, object := range objects {
		if _, err := workload.Strip(object); err != nil {
			t.Fatal(err)
		}
	}
	return fake.NewClientBuilder().WithObjects(objects...).WithInterceptorFuncs(funcs).Build()
}

func ownedBy(owner *metav1.OwnerReference) *corev1.Pod {
	return builders.Pod("shop", "cart-2-x").With(func(p *corev1.Pod) {
		if owner != nil {
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "no controller"}, *owner}
		}
	}).Obj()
}

func TestOf(t *testing.T) {
	const unknown = workload.Unknown
	var (
		cart, cart2      = ref("apps/v1", "Deployment", "cart"), ref("apps/v1", "ReplicaSet", "cart-2")
		canary           = ref("argoproj.io/v1alpha1", "Rollout", "cart")
		db, agent        = ref("apps/v1", "StatefulSet", "db"), ref("apps/v1", "DaemonSet", "agent")
		nightly, tonight = ref("batch/v1", "CronJob", "nightly"), ref("batch/v1", "Job", "nightly-1")
		redis            = ref("redis.example/v1", "Cluster", "redis")
	)
	gone := metav1.NewTime(builders.Epoch)
	for _, tc := range []struct {
		name    string
		owner   *metav1.OwnerReference
		objects []client.Object
		want    workload.Info
	}{
		{"a bare pod", nil, nil, workload.Info{Wanted: unknown, Has: unknown, Current: true}},
		{"of a kind that is not read", redis, nil, workload.Info{Owner: redis, Wanted: unknown, Has: unknown, Current: true}},
		{"of another group's ReplicaSet", ref("cart.example/v1", "ReplicaSet", "cart-2"), []client.Object{replicaSet(cart)},
			workload.Info{Owner: ref("cart.example/v1", "ReplicaSet", "cart-2"), Wanted: unknown, Has: unknown, Current: true}},

		{"a ReplicaSet of its own", cart2, []client.Object{replicaSet(nil)},
			workload.Info{Owner: cart2, Annotations: revision("2"), Wanted: 4, Has: 3, Current: true}},
		{"a ReplicaSet without a number of replicas", cart2, []client.Object{replicaSet(nil, func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = nil })},
			workload.Info{Owner: cart2, Annotations: revision("2"), Wanted: 1, Has: 3, Current: true}},
		{"a StatefulSet", db, []client.Object{&appsv1.StatefulSet{ObjectMeta: metadata("StatefulSet", "db", revision("a")),
			Spec: appsv1.StatefulSetSpec{Replicas: ptr.To[int32](3)}, Status: appsv1.StatefulSetStatus{Replicas: 2}}},
			workload.Info{Owner: db, Annotations: revision("a"), Wanted: 3, Has: 2, Current: true}},
		{"a DaemonSet", agent, []client.Object{&appsv1.DaemonSet{ObjectMeta: metadata("DaemonSet", "agent", revision("a")),
			Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: 7, CurrentNumberScheduled: 6}}},
			workload.Info{Owner: agent, Annotations: revision("a"), Wanted: 7, Has: 6, Current: true}},
		{"what owns a StatefulSet is no part of the app", db, []client.Object{&appsv1.StatefulSet{ObjectMeta: metadata("StatefulSet", "db", nil, redis)}},
			workload.Info{Owner: db, Wanted: 1, Current: true}},
		{"a Job", tonight, []client.Object{&batchv1.Job{ObjectMeta: metadata("Job", "nightly-1", revision("a"))}},
			workload.Info{Owner: tonight, Annotations: revision("a"), Wanted: unknown, Has: unknown, Current: true}},
		{"a Job of a CronJob", tonight, []client.Object{&batchv1.Job{ObjectMeta: metadata("Job", "nightly-1", revision("a"), nightly)},
			&batchv1.CronJob{ObjectMeta: metadata("CronJob", "nightly", revision("b"))}},
			workload.Info{Owner: nightly, Annotations: revision("b"), Wanted: unknown, Has: unknown, Current: true}},
		{"a ReplicaSet of a Rollout", cart2, []client.Object{replicaSet(canary)},
			workload.Info{Owner: canary, Wanted: 4, Has: 3, Current: true}},

		{"the owner is gone", cart2, nil, workload.Info{Owner: cart2, Wanted: unknown, Has: unknown}},
		{"another has the owner's name", cart2, []client.Object{replicaSet(cart, func(rs *appsv1.ReplicaSet) { rs.UID = "other" })},
			workload.Info{Owner: cart2, Wanted: unknown, Has: unknown}},
		{"the Deployment is gone", cart2, []client.Object{replicaSet(cart)}, workload.Info{Owner: cart, Wanted: 4, Has: 3}},
		{"the owner is going", cart2, []client.Object{replicaSet(nil, func(rs *appsv1.ReplicaSet) { rs.DeletionTimestamp, rs.Finalizers = &gone, []string{"orphan"} })},
			workload.Info{Owner: cart2, Annotations: revision("2"), Wanted: 4, Has: 3}},
		{"a ReplicaSet of a Rollout that is scaled to 0", cart2, []client.Object{replicaSet(canary, func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = new(int32) })},
			workload.Info{Owner: canary, Wanted: 0, Has: 3}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resolver := workload.NewResolver(reader(t, tc.objects, interceptor.Funcs{}))
			got, err := resolver.Of(context.Background(), "shop", ownedBy(tc.owner))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOnlyTheNewestReplicaSetOfADeploymentAtRestIsCurrent(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*appsv1.Deployment)
		with   func(*appsv1.ReplicaSet)
		want   bool
	}{
		{"at rest", nil, nil, true},
		{"not all are ready", func(d *appsv1.Deployment) { d.Status.UnavailableReplicas = 2 }, nil, true},
		{"an older ReplicaSet", nil, func(rs *appsv1.ReplicaSet) { rs.Annotations = revision("1") }, false},
		{"a newer one, of which the Deployment does not know yet", nil, func(rs *appsv1.ReplicaSet) { rs.Annotations = revision("3") }, false},
		{"nothing says which is the newest", func(d *appsv1.Deployment) { delete(d.Annotations, revisionAnnotation) },
			func(rs *appsv1.ReplicaSet) { rs.Annotations = nil }, false},
		{"scaled to 0", func(d *appsv1.Deployment) {
			d.Spec.Replicas, d.Status = new(int32), appsv1.DeploymentStatus{ObservedGeneration: 1}
		},
			func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = new(int32) }, false},
		{"the Deployment was changed", func(d *appsv1.Deployment) { d.Generation = 2 }, nil, false},
		{"its roll-out has begun", func(d *appsv1.Deployment) { d.Status.Replicas, d.Status.UpdatedReplicas = 5, 1 }, nil, false},
		{"old replicas are left", func(d *appsv1.Deployment) { d.Status.Replicas = 5 }, nil, false},
		{"a replica is not created yet", func(d *appsv1.Deployment) { d.Status.Replicas, d.Status.UpdatedReplicas = 3, 3 }, nil, false},
		{"paused with a new template", func(d *appsv1.Deployment) { d.Status.UpdatedReplicas = 0 }, nil, false},
		{"the Deployment is going", func(d *appsv1.Deployment) {
			now := metav1.NewTime(builders.Epoch)
			d.DeletionTimestamp, d.Finalizers = &now, []string{"foregroundDeletion"}
		}, nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, rs := deployment(), replicaSet(ref("apps/v1", "Deployment", "cart"))
			if tc.change != nil {
				tc.change(d)
			}
			if tc.with != nil {
				tc.with(rs)
			}
			resolver := workload.NewResolver(reader(t, []client.Object{d, rs}, interceptor.Funcs{}))
			got, err := resolver.Of(context.Background(), "shop", ownedBy(ref("apps/v1", "ReplicaSet", "cart-2")))
			if err != nil {
				t.Fatal(err)
			}
			want := workload.Info{Owner: ref("apps/v1", "Deployment", "cart"), Annotations: d.Annotations,
				Wanted: *rs.Spec.Replicas, Has: 3, Current: tc.want}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnOwnerIsReadOnce(t *testing.T) {
	var reads []string
	count := interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, opts ...client.GetOption) error {
		reads = append(reads, key.Name)
		return c.Get(ctx, key, object, opts...)
	}}
	objects := []client.Object{deployment(), replicaSet(ref("apps/v1", "Deployment", "cart"))}
	resolver := workload.NewResolver(reader(t, objects, count))
	for range 3 {
		if _, err := resolver.Of(context.Background(), "shop", ownedBy(ref("apps/v1", "ReplicaSet", "cart-2"))); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"cart-2", "cart"}, reads); diff != "" {
		t.Error(diff)
	}
}

func TestAnErrorNamesTheOwnerAndIsNotRemembered(t *testing.T) {
	for _, broken := range []string{"cart-2", "cart"} {
		t.Run(broken, func(t *testing.T) {
			refuse := true
			funcs := interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, opts ...client.GetOption) error {
				if refuse && key.Name == broken {
					return errors.New("the cache is not there yet")
				}
				return c.Get(ctx, key, object, opts...)
			}}
			resolver := workload.NewResolver(reader(t, []client.Object{deployment(), replicaSet(ref("apps/v1", "Deployment", "cart"))}, funcs))
			pod := ownedBy(ref("apps/v1", "ReplicaSet", "cart-2"))
			if _, err := resolver.Of(context.Background(), "shop", pod); err == nil || !strings.Contains(err.Error(), " shop/"+broken+": the cache") {
				t.Errorf("got: %v", err)
			}
			refuse = false
			if got, err := resolver.Of(context.Background(), "shop", pod); err != nil || !got.Current {
				t.Errorf("the second time: %+v, %v", got, err)
			}
		})
	}
}
