package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/prefetch"
)

// prefetchWorkers is how many prefetch pods are created or deleted at once.
const prefetchWorkers = 8

// Prefetcher looks after the prefetch pods of policies.
type Prefetcher struct {
	client.Client
	Pods PodReader
	// IdleImage is the operator's own image; nothing is prefetched where it is empty.
	IdleImage string
	// ServerVersion asks the API server for its version, like v1.36.1.
	ServerVersion func() (string, error)

	refusals namespaceRefusals
}

// Prefetching is what a look at one policy's images needs to know.
type Prefetching struct {
	Policy *v1alpha1.SidecarPolicy
	// Revision names what the images are for.
	Revision string
	Mode     prefetch.Mode
	// Running are pods that may run the images already.
	Running []*corev1.Pod
	Now     time.Time
}

// +kubebuilder:rbac:groups="",resources=pods,verbs=list;watch;create;delete
// +kubebuilder:rbac:groups="",resources=nodes,verbs=list;watch

// presence looks at what is on the nodes when the plan first asks for it. What can't be looked at
// is absent, and the pass ends with the error.
func (r *SidecarPolicyReconciler) presence(ctx context.Context, p *pass) func(*corev1.Pod, []prefetch.Image) (prefetch.Presence, string) {
	if r.Prefetcher == nil {
		return nil
	}
	return func(pod *corev1.Pod, images []prefetch.Image) (prefetch.Presence, string) {
		if p.images == nil && p.imagesErr == nil {
			p.images, p.imagesErr = r.Prefetcher.View(ctx, p.prefetching())
		}
		if p.imagesErr != nil {
			return prefetch.Absent, p.imagesErr.Error()
		}
		return p.images.Presence(pod, images)
	}
}

// prefetch carries out what the plan says about images, and cleans up where it says nothing.
func (r *SidecarPolicyReconciler) prefetch(ctx context.Context, p *pass) error {
	if r.Prefetcher == nil || p.imagesErr != nil {
		return p.imagesErr
	}
	if p.images == nil {
		return r.Prefetcher.Clean(ctx, p.policy.Name)
	}
	requeue, err := r.Prefetcher.Carry(ctx, p.prefetching(), p.images, p.plan.Prefetches)
	if requeue > 0 && (p.plan.Requeue == 0 || requeue < p.plan.Requeue) {
		p.plan.Requeue = requeue
	}
	return err
}

func (p *pass) prefetching() Prefetching {
	running := make([]*corev1.Pod, len(p.pods))
	for i := range p.pods {
		running[i] = p.pods[i].Pod
	}
	return Prefetching{Policy: p.policy, Revision: p.aim.Target.Hash, Mode: prefetch.Mode(p.policy.Spec.Rollout.Prefetch.Mode), Running: running, Now: p.now}
}

// View is what is known about images on nodes.
func (f *Prefetcher) View(ctx context.Context, p Prefetching) (*prefetch.View, error) {
	pods, err := f.Pods.Prefetching(ctx, p.Policy.Name)
	if err != nil {
		return nil, fmt.Errorf("listing prefetch pods: %w", err)
	}
	in := prefetch.Input{
		Mode: p.Mode, Owner: ownedBy(p.Policy)[0], Revision: p.Revision, IdleImage: f.IdleImage,
		Prefetches: pods, Running: p.Running, Refusals: f.refusals.of(p.Policy.Name),
		Now: p.Now, Deadline: p.Policy.Spec.Rollout.Health.ProgressDeadline(),
	}
	if p.Mode == prefetch.Never {
		return prefetch.NewView(in), nil // nothing else is looked at
	}
	if in.ServerVersion, err = f.ServerVersion(); err != nil {
		return nil, fmt.Errorf("asking the API server for its version: %w", err)
	}
	if in.Nodes, err = f.nodes(ctx); err != nil {
		return nil, err
	}
	return prefetch.NewView(in), nil
}

func (f *Prefetcher) nodes(ctx context.Context) ([]*corev1.Node, error) {
	list := &corev1.NodeList{}
	if err := f.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	nodes := make([]*corev1.Node, len(list.Items))
	for i := range list.Items {
		nodes[i] = &list.Items[i]
	}
	return nodes, nil
}

// Clean deletes the prefetch pods of a policy that wants none.
func (f *Prefetcher) Clean(ctx context.Context, policy string) error {
	pods, err := f.Pods.Prefetching(ctx, policy)
	if err != nil {
		return fmt.Errorf("listing prefetch pods: %w", err)
	}
	for _, pod := range pods {
		if err := f.remove(ctx, pod); err != nil {
			return err
		}
	}
	return nil
}

// Carry makes the prefetch pods be as planned for the wanted images, and says when to look again.
// A namespace that refuses its pod holds up no other.
func (f *Prefetcher) Carry(ctx context.Context, p Prefetching, view *prefetch.View, wants []prefetch.Want) (time.Duration, error) {
	plan := view.Plan(wants)
	workers := errgroup.Group{} // one failure stops no other
	workers.SetLimit(prefetchWorkers)
	for _, pod := range plan.Delete {
		workers.Go(func() error { return f.remove(ctx, pod) })
	}
	for _, pod := range plan.Create {
		workers.Go(func() error { return f.start(ctx, p, pod) })
	}
	return plan.Requeue, workers.Wait()
}

func (f *Prefetcher) remove(ctx context.Context, pod *corev1.Pod) error {
	target := &corev1.Pod{}
	target.Namespace, target.Name = pod.Namespace, pod.Name
	err := f.Delete(ctx, target, client.Preconditions{UID: ptr.To(pod.UID)})
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // another one of its name: the next pass looks at it
		return nil
	}
	return fmt.Errorf("deleting prefetch pod %s/%s: %w", pod.Namespace, pod.Name, err)
}

// start tells an answer about the pod, which its namespace is remembered for, from one about
// the API server, after which the pass is tried again.
func (f *Prefetcher) start(ctx context.Context, p Prefetching, pod *corev1.Pod) error {
	err := f.Create(ctx, pod)
	var status apierrors.APIStatus
	switch {
	case err == nil || apierrors.IsAlreadyExists(err):
		f.refusals.clear(p.Policy.Name, pod.Namespace)
		return nil
	case errors.Is(err, context.Canceled) || apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) || !errors.As(err, &status):
		return fmt.Errorf("creating a prefetch pod in namespace %s: %w", pod.Namespace, err)
	}
	f.refusals.add(p.Policy.Name, pod.Namespace, err, p.Now)
	ctrl.LoggerFrom(ctx).Info("the API server refused a prefetch pod", "namespace", pod.Namespace, "error", err.Error())
	return nil
}

// Forget drops what is known of a policy that is gone. Its prefetch pods go with it.
func (f *Prefetcher) Forget(policy string) { f.refusals.forget(policy) }

// namespaceRefusals remembers which namespaces refused a policy's last prefetch pod. Like
// refusals it is a memory of when to try again and no more. It is safe for concurrent use.
type namespaceRefusals struct {
	mu       sync.Mutex
	byPolicy map[string]map[string]refusal
}

func (r *namespaceRefusals) of(policy string) map[string]prefetch.Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]prefetch.Refusal{}
	for namespace, found := range r.byPolicy[policy] {
		all[namespace] = prefetch.Refusal{Message: found.Message, Until: found.Until}
	}
	return all
}

// add notes a refusal. Several pods may have been sent to the namespace at once, which
// counts as one try.
func (r *namespaceRefusals) add(policy, namespace string, err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byPolicy == nil {
		r.byPolicy = map[string]map[string]refusal{}
	}
	if r.byPolicy[policy] == nil {
		r.byPolicy[policy] = map[string]refusal{}
	}
	backoff := refusalBackoff
	if before, ok := r.byPolicy[policy][namespace]; ok {
		if now.Before(before.Until) {
			return
		}
		backoff = min(2*before.backoff, maxRefusalBackoff)
	}
	r.byPolicy[policy][namespace] = refusal{Refusal: fleet.Refusal{Message: err.Error(), Until: now.Add(backoff)}, backoff: backoff}
}

func (r *namespaceRefusals) clear(policy, namespace string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byPolicy[policy], namespace)
}

func (r *namespaceRefusals) forget(policy string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byPolicy, policy)
}
