package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/internal/metrics"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// upgradeWorkers is how many PATCHes are under way at once. There is no limit by
// time on our side: the API server's priority and fairness is the limit.
const upgradeWorkers = 32

// +kubebuilder:rbac:groups="",resources=pods,verbs=patch

// upgrade sends the plan's upgrades, one PATCH each. A pod that refuses holds up no other.
func (r *SidecarPolicyReconciler) upgrade(ctx context.Context, p *pass) error {
	queue := make(chan *rollout.Upgrade)
	failures := make(chan error, len(p.plan.Upgrades))
	var workers sync.WaitGroup
	for range min(upgradeWorkers, len(p.plan.Upgrades)) {
		workers.Go(func() {
			for u := range queue {
				if err := r.upgradePod(ctx, p, u); err != nil {
					failures <- err
				}
			}
		})
	}
	for i := range p.plan.Upgrades {
		queue <- &p.plan.Upgrades[i]
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

func (r *SidecarPolicyReconciler) upgradePod(ctx context.Context, p *pass, u *rollout.Upgrade) error {
	patch, err := json.Marshal(u.Patch(p.policy.Name, p.now))
	if err != nil {
		return err
	}
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name = u.Pod.Pod.Namespace, u.Pod.Pod.Name
	err = r.Patch(ctx, pod, client.RawPatch(types.JSONPatchType, patch))
	result, err := r.judgeAnswer(p, u, err)
	metrics.ObserveUpgrade(p.policy.Name, result)
	if result == answerRefused {
		ctrl.LoggerFrom(ctx).Info("the API server refused an upgrade", "namespace", pod.Namespace, "pod", pod.Name)
	}
	return err
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
func (r *SidecarPolicyReconciler) judgeAnswer(p *pass, u *rollout.Upgrade, err error) (string, error) {
	var status apierrors.APIStatus
	switch {
	case err == nil:
		r.refusals.of(p.policy.Name).clear(u.Pod.Pod)
		return answerAccepted, nil
	case apierrors.IsConflict(err):
		return answerConflict, nil // the pod has changed: the next pass looks at it anew
	case apierrors.IsNotFound(err):
		return answerGone, nil
	case errors.Is(err, context.Canceled) || apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) || !errors.As(err, &status):
		return answerUnavailable, fmt.Errorf("upgrading pod %s/%s: %w", u.Pod.Pod.Namespace, u.Pod.Pod.Name, err)
	}
	r.refusals.of(p.policy.Name).add(u.Pod.Pod, err, p.now)
	return answerRefused, nil
}
