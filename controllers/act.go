package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/metrics"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// upgradeWorkers is how many PATCHes are under way at once. There is no limit by
// time on our side: the API server's priority and fairness is the limit.
const upgradeWorkers = 32

// +kubebuilder:rbac:groups="",resources=pods;pods/status;pods/resize,verbs=patch
// +kubebuilder:rbac:groups="",resources=pods/eviction,verbs=create

// act carries out the plan, one write a pod, and one more where it is resized. A pod that refuses holds up no other.
func (r *SidecarPolicyReconciler) act(ctx context.Context, p *pass) error {
	writes, failure := r.replaceHeld(ctx, p)
	for _, pod := range p.plan.Released {
		writes = append(writes, write{pod, "release", func(ctx context.Context) error { return r.releasePod(ctx, p.policy.Name, pod) }})
	}
	for i := range p.plan.Tries {
		u := &p.plan.Tries[i]
		writes = append(writes, write{u.Pod, "try", func(ctx context.Context) error { return r.try(ctx, p, u) }})
	}
	for i := range p.plan.Upgrades {
		u := &p.plan.Upgrades[i]
		writes = append(writes, write{u.Pod, "upgrade", func(ctx context.Context) error { return r.upgradePod(ctx, p, u) }})
	}
	for _, pod := range p.plan.Evictions {
		writes = append(writes, write{pod, "evict", func(ctx context.Context) error { return r.recreatePod(ctx, p, pod) }})
	}
	for _, pod := range p.plan.Replaced {
		writes = append(writes, write{pod, "replace", func(ctx context.Context) error { return r.replacePod(ctx, p, pod) }})
	}
	for _, pod := range p.plan.Unplugged {
		writes = append(writes, write{pod, "unplug", func(ctx context.Context) error { return r.evictPod(ctx, pod) }})
	}
	for _, pod := range p.plan.Drains {
		writes = append(writes, write{pod, "drain", func(ctx context.Context) error { return r.setGate(ctx, p, pod, corev1.ConditionFalse) }})
	}
	for _, pod := range p.plan.Undrains {
		writes = append(writes, write{pod, "undrain", func(ctx context.Context) error { return r.setGate(ctx, p, pod, corev1.ConditionTrue) }})
	}
	return errors.Join(failure, r.send(ctx, p, writes))
}

// write is one request about one pod.
type write struct {
	pod    *fleet.PodState
	action string
	do     func(context.Context) error
}

// send sends the writes by a bounded number of workers.
func (r *SidecarPolicyReconciler) send(ctx context.Context, p *pass, writes []write) error {
	queue := make(chan *write)
	failures := make(chan error, len(writes))
	var workers sync.WaitGroup
	for range min(upgradeWorkers, len(writes)) {
		workers.Go(func() {
			for w := range queue {
				result, err := r.judgeAnswer(p, w.pod, w.do(ctx))
				metrics.ObserveWrite(p.policy.Name, w.action, result)
				if result == answerRefused && w.action == "try" {
					r.refuseWorkload(p, w.pod)
				}
				if result == answerRefused {
					ctrl.LoggerFrom(ctx).Info("the API server refused a change", "namespace", w.pod.Pod.Namespace, "pod", w.pod.Pod.Name)
				}
				if err != nil {
					failures <- err
				}
			}
		})
	}
	for i := range writes {
		queue <- &writes[i]
	}
	close(queue)
	workers.Wait()
	close(failures)
	return summarizeFailures(failures)
}

// summarizeFailures keeps one pass's errors to a line.
func summarizeFailures(failures <-chan error) error {
	first, others := <-failures, len(failures)
	if first != nil && others > 0 {
		return fmt.Errorf("%w (and %d more)", first, others)
	}
	return first
}

// upgradePod sends what the upgrade is judged by first: where the operator goes away before the pod is
// resized, the next one sees by the record what is left.
func (r *SidecarPolicyReconciler) upgradePod(ctx context.Context, p *pass, u *rollout.Upgrade) error {
	patch, err := json.Marshal(u.Patch(p.policy.Name, p.now))
	if err != nil {
		return err
	}
	if err := r.Patch(ctx, named(u.Pod), client.RawPatch(types.JSONPatchType, patch)); err != nil {
		return err
	}
	return r.resizePod(ctx, u)
}

// resizePod changes the requests and limits of the pod's sidecars, where the upgrade does.
func (r *SidecarPolicyReconciler) resizePod(ctx context.Context, u *rollout.Upgrade, opts ...client.SubResourcePatchOption) error {
	ops := u.ResizePatch()
	if len(ops) == 0 {
		return nil
	}
	patch, err := json.Marshal(ops)
	if err != nil {
		return err
	}
	return r.SubResource("resize").Patch(ctx, named(u.Pod), client.RawPatch(types.JSONPatchType, patch), opts...)
}

// recreatePod evicts a pod, once a dry run has shown that its namespace takes the one that comes in its place.
func (r *SidecarPolicyReconciler) recreatePod(ctx context.Context, p *pass, pod *fleet.PodState) error {
	if err := r.tryAnew(ctx, p, pod); err != nil {
		return err
	}
	return r.evictPod(ctx, pod)
}

// evictPod asks for the pod's eviction as it was seen. The API server applies the PodDisruptionBudgets
// once more.
func (r *SidecarPolicyReconciler) evictPod(ctx context.Context, pod *fleet.PodState) error {
	eviction := &policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &pod.Pod.UID, ResourceVersion: &pod.Pod.ResourceVersion},
	}}
	return r.SubResource("eviction").Create(ctx, named(pod), eviction)
}

// setGate opens or closes the policy's readiness gate of the pod as it was seen.
func (r *SidecarPolicyReconciler) setGate(ctx context.Context, p *pass, pod *fleet.PodState, status corev1.ConditionStatus) error {
	reason, message := "InService", "no upgrade of the sidecars is under way"
	if status == corev1.ConditionFalse {
		reason, message = "Drained", "the sidecars are about to be upgraded"
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.Pod.UID, "resourceVersion": pod.Pod.ResourceVersion},
		"status": map[string]any{"conditions": []any{map[string]any{
			"type": v1alpha1.DrainCondition(p.policy.Name), "status": status, "reason": reason, "message": message,
			"lastTransitionTime": metav1.NewTime(p.now),
		}}},
	})
	if err != nil {
		return err
	}
	return r.Status().Patch(ctx, named(pod), client.RawPatch(types.StrategicMergePatchType, patch))
}

// named is a pod of that name, to send requests about.
func named(state *fleet.PodState) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name = state.Pod.Namespace, state.Pod.Name
	return pod
}

// What the API server answered to an upgrade.
const (
	answerAccepted    = "accepted"
	answerConflict    = "conflict"
	answerGone        = "gone"
	answerRefused     = "refused"
	answerUnavailable = "unavailable"
)

// judgeAnswer tells an answer about the pod, after which the others go on, from one about the
// API server, after which the pass is tried again.
func (r *SidecarPolicyReconciler) judgeAnswer(p *pass, pod *fleet.PodState, err error) (string, error) {
	var status apierrors.APIStatus
	switch {
	case err == nil:
		r.refusals.of(p.policy.Name).clear(pod.Pod)
		return answerAccepted, nil
	case apierrors.IsConflict(err):
		return answerConflict, nil // the pod has changed: the next pass looks at it anew
	case apierrors.IsNotFound(err):
		return answerGone, nil
	case apierrors.IsTooManyRequests(err) && apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause):
		r.refusals.of(p.policy.Name).add(pod.Pod, err, p.now)
		return answerRefused, nil
	case errors.Is(err, context.Canceled) || apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) || !errors.As(err, &status):
		return answerUnavailable, fmt.Errorf("upgrading pod %s/%s: %w", pod.Pod.Namespace, pod.Pod.Name, err)
	}
	r.refusals.of(p.policy.Name).add(pod.Pod, err, p.now)
	return answerRefused, nil
}
