// Package admission tests what becomes of new pods, over the real wire: an API server calls
// the operator, which runs in this process.
package admission

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/controllers"
	"github.com/sidecar-dev/sidecar-operator/internal/manager"
	"github.com/sidecar-dev/sidecar-operator/test/envtest/apiserver"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

const (
	operatorNamespace = "sidecar-operator-system"
	secretName        = "webhook-cert"
	// patience bounds what takes milliseconds on an idle machine.
	patience = 60 * time.Second
)

var (
	ctx      = context.Background()
	server   *apiserver.Server
	operator *runningOperator
	// warnings are those that the API server sent with its answers.
	warnings warningLog
	// logged is all that the operator has logged, at any verbosity.
	logged logLines
	// c notes the warnings it gets.
	c client.Client
)

func TestAdmission(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "Admission")
}

var _ = BeforeEach(func() { warnings.take() })

var _ = BeforeSuite(func() {
	ctrl.SetLogger(funcr.New(logged.write, funcr.Options{Verbosity: 10}))
	SetDefaultEventuallyTimeout(patience)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	var err error
	server, err = apiserver.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(server.Stop()).To(Succeed()) })
	config := rest.CopyConfig(server.Config)
	config.QPS = -1
	config.WarningHandler = &warnings
	c, err = client.New(config, client.Options{Scheme: harness.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	createNamespace(operatorNamespace, nil)
	operator = &runningOperator{options: operatorOptions(freePort())}
	operator.start()
	DeferCleanup(func() { operator.stop() })
})

// runningOperator is the whole operator, in this process.
type runningOperator struct {
	options manager.Options
	cancel  context.CancelFunc
	done    chan error
}

func operatorOptions(port int) manager.Options {
	return manager.Options{
		Namespace: operatorNamespace, MetricsAddress: "0", ProbeAddress: "0", WebhookBind: "127.0.0.1", Repeatable: true,
		Webhook: controllers.WebhookEndpoint{Host: "127.0.0.1", Port: port, Namespace: operatorNamespace, Secret: secretName},
	}
}

// start does nothing where it runs.
func (o *runningOperator) start() {
	GinkgoHelper()
	if o.cancel != nil {
		return
	}
	mgr, err := manager.New(server.Config, o.options)
	Expect(err).NotTo(HaveOccurred())
	var run context.Context
	run, o.cancel = context.WithCancel(ctx)
	o.done = make(chan error, 1)
	go func() { o.done <- mgr.Start(run) }()
	serving := mgr.GetWebhookServer().StartedChecker()
	Eventually(func() error { return serving(&http.Request{}) }).Should(Succeed())
}

func (o *runningOperator) stop() {
	GinkgoHelper()
	if o.cancel == nil {
		return
	}
	o.cancel()
	Eventually(o.done).Should(Receive(Succeed()))
	o.cancel = nil
}

func freePort() int {
	GinkgoHelper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	defer func() { Expect(listener.Close()).To(Succeed()) }()
	return listener.Addr().(*net.TCPAddr).Port
}

func createNamespace(name string, labels map[string]string) {
	GinkgoHelper()
	Expect(c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})).To(Succeed())
}

// createPolicy makes a policy for the pods of a namespace of the same name, and removes it after the test.
func createPolicy(name string, changes ...func(*v1alpha1.SidecarPolicy)) *v1alpha1.SidecarPolicy {
	GinkgoHelper()
	policy := harness.Policy(name, name, name+":v1")
	for _, change := range changes {
		change(policy)
	}
	Expect(c.Create(ctx, policy)).To(Succeed())
	DeferCleanup(func() { remove(name) })
	return policy
}

// remove deletes a policy, and its registration as the garbage collector would.
func remove(policy string) {
	GinkgoHelper()
	object := &v1alpha1.SidecarPolicy{}
	object.Name = policy
	Expect(client.IgnoreNotFound(c.Delete(ctx, object))).To(Succeed())
	registration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	registration.Name = "sidecar-operator-" + policy
	Expect(client.IgnoreNotFound(c.Delete(ctx, registration))).To(Succeed())
}

// watchReady returns as soon as the API server says that the policy is Ready, without the
// pause of a poll.
func watchReady(name string, generation int64) *v1alpha1.SidecarPolicy {
	GinkgoHelper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	watch, err := server.Client.Watch(ctx, &v1alpha1.SidecarPolicyList{}, client.MatchingFields{"metadata.name": name})
	Expect(err).NotTo(HaveOccurred())
	defer watch.Stop()
	for event := range watch.ResultChan() {
		policy, ok := event.Object.(*v1alpha1.SidecarPolicy)
		if ok && policy.Generation >= generation && harness.ConditionIs(policy, v1alpha1.ConditionReady, metav1.ConditionTrue) {
			return policy
		}
	}
	Fail("policy " + name + " did not get Ready")
	return nil
}

func waitReady(policy string) *v1alpha1.SidecarPolicy {
	GinkgoHelper()
	ready, err := harness.WaitReady(ctx, c, policy, patience)
	Expect(err).NotTo(HaveOccurred())
	return ready
}

// pod is one that the policy of the namespace's name selects.
func pod(namespace, name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{harness.FleetLabel: namespace}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:v1"}}},
	}
}

// create creates the pod and says what it became.
func create(p *corev1.Pod) *corev1.Pod {
	GinkgoHelper()
	Expect(c.Create(ctx, p)).To(Succeed())
	return p
}

func names(containers []corev1.Container) []string {
	list := []string{}
	for i := range containers {
		list = append(list, containers[i].Name)
	}
	return list
}

// checkInjected says what of a policy's native sidecar a pod lacks.
func checkInjected(p *corev1.Pod, policy *v1alpha1.SidecarPolicy) error {
	sidecar := policy.Spec.Template.Sidecars[0]
	for _, container := range p.Spec.InitContainers {
		switch {
		case container.Name != sidecar.Name:
			continue
		case container.Image != sidecar.Image:
			return fmt.Errorf("pod %s has the image %s, want %s", p.Name, container.Image, sidecar.Image)
		case container.RestartPolicy == nil || *container.RestartPolicy != corev1.ContainerRestartPolicyAlways:
			return fmt.Errorf("the sidecar of pod %s is no native one", p.Name)
		case p.Labels[v1alpha1.RevisionLabel(policy.Name)] != policy.Status.TargetRevision:
			return fmt.Errorf("pod %s has the revision %q, want %q", p.Name, p.Labels[v1alpha1.RevisionLabel(policy.Name)], policy.Status.TargetRevision)
		}
		return nil
	}
	return fmt.Errorf("pod %s has the init containers %v, and the policy's sidecar %s is not among them; labels %v",
		p.Name, names(p.Spec.InitContainers), sidecar.Name, p.Labels)
}
