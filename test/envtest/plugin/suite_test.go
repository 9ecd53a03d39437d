// Package plugin tests the commands of kubectl sidecar against a real API server, with policies that the
// operator's reconciler looks at when a test says so.
package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/tools/events"
	testclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/controllers"
	"github.com/sidecar-dev/sidecar-operator/internal/certs"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/test/envtest/apiserver"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

const (
	operatorNamespace = "sidecar-operator-system"
	secretName        = "sidecar-operator-webhook-cert"
)

var (
	ctx      = context.Background()
	server   *apiserver.Server
	clock    = testclock.NewFakeClock(time.Now().Truncate(time.Second))
	operator *controllers.SidecarPolicyReconciler
)

func TestPlugin(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "kubectl sidecar")
}

var _ = BeforeSuite(func() {
	ctrl.SetLogger(GinkgoLogr)
	var err error
	server, err = apiserver.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(server.Stop()).To(Succeed()) })
	GinkgoT().Setenv("KUBECONFIG", writeKubeconfig(server.Config))
	createNamespace(operatorNamespace)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: secretName}}
	_, err = certs.Schedule{}.Renew(secret, "127.0.0.1", true, time.Now())
	Expect(err).NotTo(HaveOccurred())
	Expect(server.Client.Create(ctx, secret)).To(Succeed())
	operator = &controllers.SidecarPolicyReconciler{
		Client: server.Client, Pods: controllers.ListedPods{Reader: server.Client}, Live: server.Client, Recorder: events.NewFakeRecorder(1000), Clock: clock, Namespace: operatorNamespace,
		// Nobody listens there: pods are injected by newPod, as the webhook would.
		Webhook:       controllers.WebhookEndpoint{Host: "127.0.0.1", Port: 1, Secret: secretName},
		ServerVersion: func() (string, error) { return "v1.37.2", nil },
	}
})

// writeKubeconfig writes what kubectl would have.
func writeKubeconfig(config *rest.Config) string {
	GinkgoHelper()
	file := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"test": {Server: config.Host, CertificateAuthorityData: config.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"admin": {ClientCertificateData: config.CertData, ClientKeyData: config.KeyData}},
		Contexts:       map[string]*clientcmdapi.Context{"test": {Cluster: "test", AuthInfo: "admin"}},
		CurrentContext: "test",
	}, file)).To(Succeed())
	return file
}

// result is what a command said, and how it ended.
type result struct {
	out, err string
	code     int
}

// sidecar runs kubectl sidecar.
func sidecar(args ...string) result {
	var out, err bytes.Buffer
	streams := genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: &out, ErrOut: &err}
	code := plugin.Run(ctx, args, streams, clock)
	return result{out.String(), err.String(), code}
}

// succeed runs a command that must succeed, and returns what it says.
func succeed(args ...string) string {
	GinkgoHelper()
	r := sidecar(args...)
	Expect(r.code).To(Equal(0), "kubectl sidecar %v: %s%s", args, r.out, r.err)
	return r.out
}

// refuse runs a command that must fail, and returns what it says.
func refuse(args ...string) string {
	GinkgoHelper()
	r := sidecar(args...)
	Expect(r.code).To(Equal(1), "kubectl sidecar %v: %s%s", args, r.out, r.err)
	return r.err
}

// decoded is what a command writes with -o json.
func decoded[T any](args ...string) T {
	GinkgoHelper()
	var value T
	Expect(json.Unmarshal([]byte(succeed(append(args, "-o", "json")...)), &value)).To(Succeed())
	return value
}

func createNamespace(name string) {
	GinkgoHelper()
	Expect(server.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"fleet": name}}})).To(Succeed())
}

// newPolicy makes a namespace and a policy of the same name for its pods, with a revision that is complete.
func newPolicy(name string, changes ...func(*v1alpha1.SidecarPolicy)) {
	GinkgoHelper()
	createNamespace(name)
	policy := harness.Policy(name, name, "agent:1")
	policy.Spec.Template.Sidecars[0].Name = "agent"
	policy.Spec.Rollout.Health.MinReadySeconds = ptr.To[int32](1)
	all := intstr.FromString("100%") // few waves make a short test
	policy.Spec.Rollout.Budgets = []v1alpha1.Budget{{Per: v1alpha1.PerFleet, MaxUnavailable: &all}, {Per: v1alpha1.PerWorkload, MaxUnavailable: &all}}
	for _, change := range changes {
		change(policy)
	}
	Expect(server.Client.Create(ctx, policy)).To(Succeed())
	DeferCleanup(func() {
		Expect(client.IgnoreNotFound(server.Client.Delete(ctx, policy))).To(Succeed())
		registration := &admissionregistrationv1.MutatingWebhookConfiguration{} // there is no garbage collector here
		registration.Name = "sidecar-operator-" + name
		Expect(client.IgnoreNotFound(server.Client.Delete(ctx, registration))).To(Succeed())
	})
	settle(name)
}

func policyNow(name string) *v1alpha1.SidecarPolicy {
	GinkgoHelper()
	policy := &v1alpha1.SidecarPolicy{}
	Expect(server.Client.Get(ctx, client.ObjectKey{Name: name}, policy)).To(Succeed())
	return policy
}

// settle lets the operator and the kubelet take turns until nothing changes any more.
func settle(name string) {
	GinkgoHelper()
	for range 20 {
		before := policyNow(name).ResourceVersion
		_, err := operator.Reconcile(ctx, ctrl.Request{NamespacedName: types.NamespacedName{Name: name}})
		Expect(err).NotTo(HaveOccurred())
		changed := runPods(name)
		clock.Step(5 * time.Second)
		if policyNow(name).ResourceVersion == before && !changed {
			return
		}
	}
	Fail("policy " + name + " does not come to rest: " + harness.Describe(policyNow(name)))
}

// runPods is a kubelet that runs all pods of a namespace, and restarts containers whose image has
// changed. One with a bad image waits for it.
func runPods(namespace string) (changed bool) {
	GinkgoHelper()
	list := &corev1.PodList{}
	Expect(server.Client.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
	for i := range list.Items {
		pod := &list.Items[i]
		if pod.Status.Phase == corev1.PodRunning && pod.Status.ObservedGeneration == pod.Generation {
			continue
		}
		changed = true
		now := metav1.NewTime(clock.Now())
		pod.Status.Phase, pod.Status.ObservedGeneration = corev1.PodRunning, pod.Generation
		pod.Status.InitContainerStatuses = started(pod.Spec.InitContainers, now)
		pod.Status.ContainerStatuses = started(pod.Spec.Containers, now)
		pod.Status.Conditions = []corev1.PodCondition{
			{Type: corev1.ContainersReady, Status: corev1.ConditionTrue, LastTransitionTime: now},
			{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now},
		}
		Expect(server.Client.Status().Update(ctx, pod)).To(Succeed())
	}
	return changed
}

func started(containers []corev1.Container, now metav1.Time) []corev1.ContainerStatus {
	var list []corev1.ContainerStatus
	for _, c := range containers {
		status := corev1.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: "registry/" + c.Image, ContainerID: "containerd://" + c.Image, Ready: true, Started: ptr.To(true),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}
		if c.Image == "agent:bad" {
			status.Ready, status.Started = false, ptr.To(false)
			status.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "not found"}}
		}
		list = append(list, status)
	}
	return list
}

// newPods creates injected pods of a ReplicaSet, which run.
func newPods(policy, app string, count int, changes ...func(*corev1.Pod)) {
	GinkgoHelper()
	labels := map[string]string{harness.FleetLabel: policy, harness.AppLabel: app}
	containers := []corev1.Container{{Name: "app", Image: "app:1"}}
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: policy, Name: app},
		Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To(int32(count)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: containers}}}}
	Expect(server.Client.Create(ctx, rs)).To(Succeed())
	rs.Status.Replicas = int32(count)
	Expect(server.Client.Status().Update(ctx, rs)).To(Succeed())
	for i := range count {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: policy, Name: app + "-" + string(rune('a'+i)), Labels: map[string]string{},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}},
			Spec: corev1.PodSpec{Containers: containers}}
		for k, v := range labels {
			pod.Labels[k] = v
		}
		for _, change := range changes {
			change(pod)
		}
		injectInto(pod, policy)
		Expect(server.Client.Create(ctx, pod)).To(Succeed())
	}
	settle(policy)
}

// injectInto is the webhook: a pod that the sidecars clash with is left as it is.
func injectInto(pod *corev1.Pod, policy string) {
	GinkgoHelper()
	p := policyNow(policy)
	stored := &appsv1.ControllerRevision{}
	key := client.ObjectKey{Namespace: operatorNamespace, Name: revision.ObjectName(policy, rollout.RevisionFor(p, rollout.Place{}))}
	Expect(server.Client.Get(ctx, key, stored)).To(Succeed())
	r, err := revision.Decode(stored)
	Expect(err).NotTo(HaveOccurred())
	if additions, conflicts := inject.Render(pod, policy, &r); len(conflicts) == 0 {
		additions.Apply(pod)
	}
}

// setImage rolls out another image, as far as it goes by itself.
func setImage(policy, image string) {
	GinkgoHelper()
	Expect(harness.SetImage(ctx, server.Client, policy, "agent", image)).To(Succeed())
	settle(policy)
}
