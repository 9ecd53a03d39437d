// Package harness is what the real-node suite, the demo and the benchmarks share:
// fleets, policies, a manager process, and an observer that nothing escapes.
package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// FleetLabel is on every namespace and pod of a test fleet.
const FleetLabel = "fleet"

// AppLabel is on every pod: the name of its Deployment.
const AppLabel = "app"

// AppContainer is the name of the app's container.
const AppContainer = "app"

// Root is the root of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Scheme knows Kubernetes' types and ours.
func Scheme() *k8sruntime.Scheme {
	scheme := k8sruntime.NewScheme()
	must(clientgoscheme.AddToScheme(scheme))
	must(v1alpha1.AddToScheme(scheme))
	return scheme
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// NewClient reads and watches without a cache and without a limit.
func NewClient(config *rest.Config) (client.WithWatch, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	return client.NewWithWatch(config, client.Options{Scheme: Scheme()})
}

// InstallCRDs installs the CRDs of this tree and waits until they are served.
func InstallCRDs(config *rest.Config) error {
	_, err := envtest.InstallCRDs(config, envtest.CRDInstallOptions{
		Paths:              []string{filepath.Join(Root(), "config", "crd", "bases")},
		ErrorIfPathMissing: true,
	})
	return err
}

// Fleet is a set of equal Deployments in one namespace.
type Fleet struct {
	Namespace   string
	Deployments int
	Replicas    int32
	// Image is the app's.
	Image string
	// Probe adds a readiness probe to the app's container, for images that serve /readyz on port 8080.
	Probe bool
}

// Create makes the namespace and the Deployments.
func (f *Fleet) Create(ctx context.Context, c client.Client) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: f.Namespace, Labels: map[string]string{FleetLabel: f.Namespace}}}
	if err := c.Create(ctx, namespace); client.IgnoreAlreadyExists(err) != nil {
		return err
	}
	for i := range f.Deployments {
		if err := c.Create(ctx, f.deployment(fmt.Sprintf("app-%02d", i))); client.IgnoreAlreadyExists(err) != nil {
			return err
		}
	}
	return nil
}

func (f *Fleet) deployment(name string) *appsv1.Deployment {
	labels := map[string]string{AppLabel: name, FleetLabel: f.Namespace}
	app := corev1.Container{Name: AppContainer, Image: f.Image}
	if f.Probe {
		app.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromInt32(8080)},
		}}
	}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &f.Replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					Containers:                    []corev1.Container{app},
					TerminationGracePeriodSeconds: ptr.To[int64](1),
				},
			},
		},
	}
}

// Pods is how many pods the fleet has.
func (f *Fleet) Pods() int { return f.Deployments * int(f.Replicas) }

// Policy is a policy for the fleet of a namespace with one native sidecar.
func Policy(name, namespace, image string) *v1alpha1.SidecarPolicy {
	return &v1alpha1.SidecarPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.SidecarPolicySpec{
			Selector: v1alpha1.PodSelection{
				PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{FleetLabel: namespace}},
			},
			Template: v1alpha1.SidecarTemplate{
				Sidecars: []v1alpha1.Sidecar{{Container: corev1.Container{Name: name, Image: image}}},
			},
			Rollout: v1alpha1.RolloutSpec{Steps: AllAtOnce()},
		},
	}
}

// AllAtOnce is a roll-out without steps: the budgets alone bound it.
func AllAtOnce() []v1alpha1.Step {
	return []v1alpha1.Step{{Name: "fleet", UpTo: ptr.To(intstr.FromString("100%"))}}
}

// SetImage changes the image of a policy's sidecar, and waits for nothing.
func SetImage(ctx context.Context, c client.Client, policy, sidecar, image string) error {
	return Edit(ctx, c, policy, func(p *v1alpha1.SidecarPolicy) {
		for i := range p.Spec.Template.Sidecars {
			if p.Spec.Template.Sidecars[i].Name == sidecar {
				p.Spec.Template.Sidecars[i].Image = image
			}
		}
	})
}

// Edit changes a policy's spec with one PATCH.
func Edit(ctx context.Context, c client.Client, name string, change func(*v1alpha1.SidecarPolicy)) error {
	policy := &v1alpha1.SidecarPolicy{}
	if err := c.Get(ctx, client.ObjectKey{Name: name}, policy); err != nil {
		return err
	}
	before := policy.DeepCopy()
	change(policy)
	return c.Patch(ctx, policy, client.MergeFrom(before))
}

// ConditionIs says whether a policy's condition has that status for its current generation.
func ConditionIs(policy *v1alpha1.SidecarPolicy, kind string, status metav1.ConditionStatus) bool {
	condition := meta.FindStatusCondition(policy.Status.Conditions, kind)
	return condition != nil && condition.Status == status && condition.ObservedGeneration == policy.Generation
}

// WaitForPolicy polls a policy until it is as wanted. The error shows its last status.
func WaitForPolicy(ctx context.Context, c client.Client, name string, timeout time.Duration, done func(*v1alpha1.SidecarPolicy) bool) (*v1alpha1.SidecarPolicy, error) {
	policy := &v1alpha1.SidecarPolicy{}
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, timeout, true, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKey{Name: name}, policy); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		return done(policy), nil
	})
	if err != nil {
		return policy, fmt.Errorf("policy %s: %w; its status: %s", name, err, Describe(policy))
	}
	return policy, nil
}

// WaitReady waits until a policy is Ready for its current generation.
func WaitReady(ctx context.Context, c client.Client, name string, timeout time.Duration) (*v1alpha1.SidecarPolicy, error) {
	return WaitForPolicy(ctx, c, name, timeout, func(p *v1alpha1.SidecarPolicy) bool {
		return ConditionIs(p, v1alpha1.ConditionReady, metav1.ConditionTrue)
	})
}

// Describe is a policy's status in a few lines.
func Describe(policy *v1alpha1.SidecarPolicy) string {
	s := &policy.Status
	text := fmt.Sprintf("phase %s, stable %s, target %s, pods %+v", s.Phase, s.StableRevision, s.TargetRevision, ptr.Deref(s.Pods, v1alpha1.PodCounts{}))
	for _, c := range s.Conditions {
		text += fmt.Sprintf("\n  %s=%s %s (generation %d of %d): %s", c.Type, c.Status, c.Reason, c.ObservedGeneration, policy.Generation, c.Message)
	}
	for _, u := range s.Unhealthy {
		text += fmt.Sprintf("\n  unhealthy: %s, %d pods, %s: %s", u.Workload, u.Pods, u.Reason, u.Message)
	}
	return text
}

// WaitPodsReady waits until the namespace has that many Ready pods.
func WaitPodsReady(ctx context.Context, c client.Client, namespace string, count int, timeout time.Duration) error {
	ready := 0
	err := wait.PollUntilContextTimeout(ctx, 250*time.Millisecond, timeout, true, func(ctx context.Context) (bool, error) {
		pods := &corev1.PodList{}
		if err := c.List(ctx, pods, client.InNamespace(namespace)); err != nil {
			return false, err
		}
		ready = 0
		for i := range pods.Items {
			if Ready(&pods.Items[i]) && pods.Items[i].DeletionTimestamp == nil {
				ready++
			}
		}
		return ready >= count, nil
	})
	if err != nil {
		return fmt.Errorf("%d of %d pods of namespace %s are ready: %w", ready, count, namespace, err)
	}
	return nil
}

// Ready says whether a pod has the condition Ready.
func Ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// TempDir is a directory for one run.
func TempDir() (string, error) { return os.MkdirTemp("", "sidecar-operator-") }
