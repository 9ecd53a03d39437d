package controllers_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/events"
	testclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/controllers"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// agent is the sidecar of the policies here.
const agent = "agent"

// world is one test's own policy, namespace, clock and operator.
type world struct {
	// name is the policy's and the namespace's.
	name       string
	clock      *testclock.FakeClock
	reconciler *controllers.SidecarPolicyReconciler
	events     *events.FakeRecorder
	kubelet    *kubelet

	// deaf: the API server does not reach the webhook, and dry runs of pods come back as they were sent.
	deaf bool

	mu sync.Mutex
	// writes are what the operator wrote, like "patch Pod web-1".
	writes []string
	// fail, where set, may answer a request of the operator in the API server's place.
	fail func(verb string, object runtime.Object) error
}

var worlds int

// newWorld makes a world with a policy that is not looked at yet.
func newWorld(changes ...func(*v1alpha1.SidecarPolicy)) *world {
	GinkgoHelper()
	worlds++
	w := &world{
		name:   fmt.Sprintf("world-%d", worlds),
		clock:  testclock.NewFakeClock(time.Now().Truncate(time.Second)),
		events: events.NewFakeRecorder(1000),
	}
	w.kubelet = &kubelet{clock: w.clock, images: map[string]string{}}
	w.restartOperator()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.name, Labels: map[string]string{"world": w.name}}}
	Expect(server.Client.Create(ctx, namespace)).To(Succeed())
	policy := harness.Policy(w.name, w.name, "agent:v1")
	policy.Spec.Template.Sidecars[0].Name = agent
	for _, change := range changes {
		change(policy)
	}
	Expect(server.Client.Create(ctx, policy)).To(Succeed())
	DeferCleanup(w.remove)
	return w
}

// newReadyWorld makes a world with a policy that is Ready, and no pods.
func newReadyWorld(changes ...func(*v1alpha1.SidecarPolicy)) *world {
	GinkgoHelper()
	w := newWorld(changes...)
	w.settle()
	Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete), w.describe())
	w.forgetWrites()
	return w
}

// restartOperator replaces the operator by one that remembers nothing.
func (w *world) restartOperator() {
	w.reconciler = &controllers.SidecarPolicyReconciler{
		Client: w.client(), Pods: worldPods{controllers.ListedPods{Reader: w.client()}, w.name}, Live: server.Client, Recorder: w.events, Clock: w.clock, Namespace: operatorNamespace,
		// Nobody listens there: pods are injected by newPod, as the webhook would.
		Webhook:       controllers.WebhookEndpoint{Host: "127.0.0.1", Port: 1, Secret: certificate},
		ServerVersion: func() (string, error) { return "v1.37.2", nil },
	}
}

// worldPods looks in the world's own namespace alone for pods that carry sidecars or wait for them: those of the tests before would be
// listed in each pass.
type worldPods struct {
	controllers.ListedPods
	namespace string
}

func (p worldPods) Carrying(ctx context.Context, policy string) ([]*corev1.Pod, error) {
	pods, err := p.InNamespace(ctx, p.namespace)
	return slices.DeleteFunc(pods, func(pod *corev1.Pod) bool {
		return !slices.Contains(append(v1alpha1.PoliciesOf(pod.Labels), v1alpha1.HeldBy(pod)...), policy)
	}), err
}

// remove takes out what would act on other tests. There is no garbage collector here.
func (w *world) remove() {
	GinkgoHelper()
	w.fail = nil
	policy := &v1alpha1.SidecarPolicy{}
	policy.Name = w.name
	registration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	registration.Name = "sidecar-operator-" + w.name
	compiled := &admissionregistrationv1.MutatingAdmissionPolicy{}
	compiled.Name = registration.Name
	objects := []client.Object{policy, registration, compiled}
	for _, binding := range w.bindings() {
		objects = append(objects, &binding)
	}
	for _, object := range objects {
		Expect(client.IgnoreNotFound(server.Client.Delete(ctx, object))).To(Succeed())
	}
	giveUp := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
	Expect(client.IgnoreNotFound(server.Client.Patch(ctx, policy, giveUp))).To(Succeed())
	w.pass()
}

// client is the operator's: it reads pods as its cache would hold them, notes writes and
// lets requests fail.
func (w *world) client() client.Client {
	return interceptor.NewClient(server.Client, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, opts ...client.GetOption) error {
			return w.answer("get", object, func() error { return c.Get(ctx, key, object, opts...) })
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			return w.answer("list", list, func() error { return strip(list, c.List(ctx, list, opts...)) })
		},
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, opts ...client.CreateOption) error {
			verb := "create"
			if len((&client.CreateOptions{}).ApplyOptions(opts).DryRun) > 0 {
				verb = "dry-run"
			}
			return w.answer(verb, object, func() error {
				if pod, ok := object.(*corev1.Pod); ok && pod.Namespace == w.name && !w.deaf {
					w.inject(pod)
				}
				return c.Create(ctx, object, opts...)
			})
		},
		Update: func(ctx context.Context, c client.WithWatch, object client.Object, opts ...client.UpdateOption) error {
			return w.answer("update", object, func() error { return c.Update(ctx, object, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, opts ...client.PatchOption) error {
			verb := "patch"
			if len((&client.PatchOptions{}).ApplyOptions(opts).DryRun) > 0 {
				verb = "dry-run"
			}
			return w.answer(verb, object, func() error { return c.Patch(ctx, object, patch, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, object client.Object, opts ...client.DeleteOption) error {
			return w.answer("delete", object, func() error { return c.Delete(ctx, object, opts...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, object client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			verb := "patch-" + sub
			if len((&client.SubResourcePatchOptions{}).ApplyOptions(opts).DryRun) > 0 {
				verb = "dry-run"
			}
			return w.answer(verb, object, func() error { return c.SubResource(sub).Patch(ctx, object, patch, opts...) })
		},
		SubResourceCreate: func(ctx context.Context, c client.Client, sub string, object, created client.Object, opts ...client.SubResourceCreateOption) error {
			return w.answer("create-"+sub, object, func() error { return c.SubResource(sub).Create(ctx, object, created, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, object client.Object, opts ...client.SubResourceUpdateOption) error {
			return w.answer("update-"+sub, object, func() error { return c.SubResource(sub).Update(ctx, object, opts...) })
		},
	})
}

// stripper is one for all, as in a manager: whoever changes a pod of one test changes another's.
var stripper controllers.PodStripper

// strip gives listed pods the shape that they have in the cache.
func strip(list client.ObjectList, err error) error {
	if pods, ok := list.(*corev1.PodList); ok && err == nil {
		for i := range pods.Items {
			if _, err := stripper.Strip(&pods.Items[i]); err != nil {
				return err
			}
		}
	}
	return err
}

func (w *world) answer(verb string, object runtime.Object, do func() error) error {
	if w.fail != nil {
		if err := w.fail(verb, object); err != nil {
			return err
		}
	}
	if !slices.Contains([]string{"get", "list", "dry-run"}, verb) {
		kind, err := apiutil.GVKForObject(object, server.Client.Scheme())
		if err != nil {
			return err
		}
		w.mu.Lock()
		w.writes = append(w.writes, fmt.Sprintf("%s %s %s", verb, kind.Kind, object.(client.Object).GetName()))
		w.mu.Unlock()
	}
	return do()
}

func (w *world) forgetWrites() { w.writes = nil }

// patches names the pods that the operator has patched, sorted, each as often as that.
func (w *world) patches() []string {
	var pods []string
	for _, write := range w.writes {
		if pod, ok := strings.CutPrefix(write, "patch Pod "); ok {
			pods = append(pods, pod)
		}
	}
	slices.Sort(pods)
	return pods
}

func (w *world) request() ctrl.Request {
	return ctrl.Request{NamespacedName: types.NamespacedName{Name: w.name}}
}

// pass makes one pass, which must succeed.
func (w *world) pass() ctrl.Result {
	GinkgoHelper()
	result, err := w.reconciler.Reconcile(ctx, w.request())
	Expect(err).NotTo(HaveOccurred())
	return result
}

// settle makes passes until one has nothing to write, as the manager would when its own
// writes come back to it.
func (w *world) settle() {
	GinkgoHelper()
	for range 20 {
		before := len(w.writes)
		w.pass()
		if len(w.writes) == before {
			return
		}
	}
	Fail("the operator does not come to rest; its last writes: " + strings.Join(w.writes[max(0, len(w.writes)-5):], ", "))
}

func (w *world) policy() *v1alpha1.SidecarPolicy {
	GinkgoHelper()
	policy := &v1alpha1.SidecarPolicy{}
	Expect(server.Client.Get(ctx, client.ObjectKey{Name: w.name}, policy)).To(Succeed())
	return policy
}

func (w *world) status() *v1alpha1.SidecarPolicyStatus {
	GinkgoHelper()
	return &w.policy().Status
}

func (w *world) describe() string { return harness.Describe(w.policy()) }

// condition is one of the policy's; the test fails where it is not about the current spec.
func (w *world) condition(kind string) metav1.Condition {
	GinkgoHelper()
	policy := w.policy()
	condition := meta.FindStatusCondition(policy.Status.Conditions, kind)
	Expect(condition).NotTo(BeNil(), "no condition %s: %s", kind, harness.Describe(policy))
	Expect(condition.ObservedGeneration).To(Equal(policy.Generation), "observedGeneration of %s", kind)
	return *condition
}

func (w *world) edit(change func(*v1alpha1.SidecarPolicy)) {
	GinkgoHelper()
	Expect(harness.Edit(ctx, server.Client, w.name, change)).To(Succeed())
}

// annotate is what a person or the kubectl plugin does.
func (w *world) annotate(key, value string) {
	GinkgoHelper()
	w.edit(func(p *v1alpha1.SidecarPolicy) { metav1.SetMetaDataAnnotation(&p.ObjectMeta, key, value) })
}

func (w *world) setImage(image string) {
	GinkgoHelper()
	w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Template.Sidecars[0].Image = image })
}

// nextEvent is the oldest event that was not looked at yet; empty when there is none.
func (w *world) nextEvent() string {
	select {
	case e := <-w.events.Events:
		return e
	default:
		return ""
	}
}

func (w *world) allEvents() []string {
	var all []string
	for e := w.nextEvent(); e != ""; e = w.nextEvent() {
		all = append(all, e)
	}
	return all
}

func (w *world) revisions() []appsv1.ControllerRevision {
	GinkgoHelper()
	list := &appsv1.ControllerRevisionList{}
	Expect(server.Client.List(ctx, list, client.InNamespace(operatorNamespace), client.MatchingLabels{v1alpha1.PolicyLabel: w.name})).To(Succeed())
	return list.Items
}

// registration is the policy's; nil when there is none.
func (w *world) registration() *admissionregistrationv1.MutatingWebhookConfiguration {
	GinkgoHelper()
	registration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	err := server.Client.Get(ctx, client.ObjectKey{Name: "sidecar-operator-" + w.name}, registration)
	Expect(client.IgnoreNotFound(err)).To(Succeed())
	if err != nil {
		return nil
	}
	return registration
}

// newFleet creates pods of Deployments, injected, running and ready.
func (w *world) newFleet(deployments, replicas int) {
	GinkgoHelper()
	for d := range deployments {
		owner := w.newReplicaSet(fmt.Sprintf("web%d", d))
		for r := range replicas {
			w.newPod(fmt.Sprintf("%s-%d", owner.Name, r), ownedBy(owner))
		}
	}
	w.kubelet.sync(w.pods())
	w.settle()
	Expect(w.status().Pods.Updated).To(BeEquivalentTo(deployments*replicas), w.describe())
	w.forgetWrites()
}

func (w *world) newReplicaSet(deployment string) *appsv1.ReplicaSet {
	GinkgoHelper()
	labels := map[string]string{"app": deployment}
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.name, Name: deployment, OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: "Deployment", Name: deployment, UID: types.UID(w.name + deployment), Controller: ptr.To(true),
		}}},
		Spec: appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:v1"}}},
		}},
	}
	Expect(server.Client.Create(ctx, rs)).To(Succeed())
	return rs
}

func (w *world) replicaSet(name string) *appsv1.ReplicaSet {
	GinkgoHelper()
	rs := &appsv1.ReplicaSet{}
	Expect(server.Client.Get(ctx, client.ObjectKey{Namespace: w.name, Name: name}, rs)).To(Succeed())
	return rs
}

// setReplicas is what the ReplicaSet's controller counts.
func (w *world) setReplicas(name string, count int32) {
	GinkgoHelper()
	rs := w.replicaSet(name)
	rs.Status.Replicas = count
	Expect(server.Client.Status().Update(ctx, rs)).To(Succeed())
}

func ownedBy(owner *appsv1.ReplicaSet) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
	}
}

func withLabel(key, value string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Labels[key] = value }
}

// plainPod is a pod that the policy selects, before its creation.
func (w *world) plainPod(name string, changes ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.name, Name: name, Labels: map[string]string{harness.FleetLabel: w.name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:v1"}}},
	}
	for _, change := range changes {
		change(pod)
	}
	return pod
}

// newPod creates a pod as it would come out of the webhook.
func (w *world) newPod(name string, changes ...func(*corev1.Pod)) *corev1.Pod {
	GinkgoHelper()
	pod := w.plainPod(name, changes...)
	Expect(w.inject(pod)).To(BeEmpty())
	Expect(server.Client.Create(ctx, pod)).To(Succeed())
	return pod
}

// inject is what the webhook would do.
func (w *world) inject(pod *corev1.Pod) []inject.Conflict {
	GinkgoHelper()
	policy := w.policy()
	stored := &appsv1.ControllerRevision{}
	key := client.ObjectKey{Namespace: operatorNamespace, Name: revision.ObjectName(w.name, rollout.RevisionFor(policy, rollout.Place{}))}
	Expect(server.Client.Get(ctx, key, stored)).To(Succeed())
	r, err := revision.Decode(stored)
	Expect(err).NotTo(HaveOccurred())
	additions, conflicts := inject.Render(pod, w.name, &r)
	if policy.Spec.Rollout.Drain.Seconds > 0 {
		additions.AddDrainGate(pod, w.name)
	}
	additions.Apply(pod)
	return conflicts
}

func (w *world) pods() []corev1.Pod {
	GinkgoHelper()
	list := &corev1.PodList{}
	Expect(server.Client.List(ctx, list, client.InNamespace(w.name))).To(Succeed())
	return list.Items
}

func (w *world) pod(name string) *corev1.Pod {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Expect(server.Client.Get(ctx, client.ObjectKey{Namespace: w.name, Name: name}, pod)).To(Succeed())
	return pod
}

// images are those of the sidecar, by pod.
func (w *world) images() map[string]string {
	GinkgoHelper()
	images := map[string]string{}
	for _, pod := range w.pods() {
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			if c.Name == agent {
				images[pod.Name] = c.Image
			}
		}
	}
	return images
}

// rollOut lets the operator and the kubelet take turns until the policy's condition
// Ready is True, and calls check after every pass.
func (w *world) rollOut(check func()) {
	GinkgoHelper()
	for range 100 {
		w.pass()
		check()
		if harness.ConditionIs(w.policy(), v1alpha1.ConditionReady, metav1.ConditionTrue) {
			return
		}
		w.kubelet.sync(w.pods())
		w.clock.Step(6 * time.Second)
	}
	Fail("the roll-out does not end: " + w.describe())
}

func budgets(fleet, workload string) func(*v1alpha1.SidecarPolicy) {
	return func(p *v1alpha1.SidecarPolicy) {
		p.Spec.Rollout.Budgets = []v1alpha1.Budget{
			{Per: v1alpha1.PerFleet, MaxUnavailable: ptr.To(intstr.Parse(fleet))},
			{Per: v1alpha1.PerWorkload, MaxUnavailable: ptr.To(intstr.Parse(workload))},
		}
	}
}

func onFailure(action v1alpha1.FailureAction) func(*v1alpha1.SidecarPolicy) {
	return func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.OnFailure = action }
}

func steps(list ...v1alpha1.Step) func(*v1alpha1.SidecarPolicy) {
	return func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Steps = append(list, harness.AllAtOnce()...) }
}
