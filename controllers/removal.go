package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// holdOn keeps a policy from going before its sidecars have, where the author wants that. No other policy has
// a finalizer: one that nobody serves would block the end of the CRD.
func (r *SidecarPolicyReconciler) holdOn(ctx context.Context, p *pass) error {
	has := slices.Contains(p.policy.Finalizers, v1alpha1.UnplugFinalizer)
	switch wanted := p.policy.Spec.OnRemoval == v1alpha1.RemovalRecreate; {
	case wanted && !has:
		return r.setFinalizers(ctx, p, append(slices.Clone(p.policy.Finalizers), v1alpha1.UnplugFinalizer))
	case has && !wanted:
		return r.letGo(ctx, p)
	}
	return nil
}

func (r *SidecarPolicyReconciler) letGo(ctx context.Context, p *pass) error {
	return r.setFinalizers(ctx, p, slices.DeleteFunc(slices.Clone(p.policy.Finalizers), func(f string) bool { return f == v1alpha1.UnplugFinalizer }))
}

// setFinalizers goes on with the policy as it is then.
func (r *SidecarPolicyReconciler) setFinalizers(ctx context.Context, p *pass, finalizers []string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": p.policy.UID, "resourceVersion": p.policy.ResourceVersion, "finalizers": finalizers,
	}})
	if err != nil {
		return err
	}
	updated := p.policy.DeepCopy()
	if err := r.Patch(ctx, updated, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("writing the policy's finalizers: %w", err)
	}
	p.policy = updated
	return nil
}

// remove takes the sidecars out of the fleet of a policy that is being deleted. Injection is stopped first, or the pods
// that come in the place of others would carry them again. Where nothing is to be done, or a person gave it up by
// onRemoval: Keep, the policy may go.
func (r *SidecarPolicyReconciler) remove(ctx context.Context, p *pass) error {
	found, err := r.stopInjection(ctx, p.policy.Name)
	if err != nil {
		return err
	}
	p.injecting = finding{no, v1alpha1.ReasonUnplugging, "the policy is being deleted: new pods are created without the sidecars"}
	if found {
		p.injecting.holds = yes // until the next pass has seen it gone
		p.lookAgain(askAgain)
	}
	if !slices.Contains(p.policy.Finalizers, v1alpha1.UnplugFinalizer) {
		p.released = true // somebody else's finalizer keeps it
		return nil
	}
	if p.policy.Spec.OnRemoval != v1alpha1.RemovalRecreate {
		return r.release(ctx, p)
	}
	if p.revisions, err = r.listRevisions(ctx, p.policy.Name); err != nil {
		return err
	}
	if p.keepGoal(); p.goal == nil {
		p.goal = &revision.Revision{} // what the pods should have had plays no part any more
	}
	p.aim = rollout.TakeAim(p.policy, p.goal, p.revisions)
	if err := r.observe(ctx, p); err != nil {
		return err
	}
	if !found && p.stillCarrying() == 0 {
		r.event(p.policy, corev1.EventTypeNormal, v1alpha1.ReasonUnplugged, "Unplug", "no pod carries the sidecars any more")
		r.known.drop(p.policy.Name) // all is said
		return r.release(ctx, p)
	}
	return r.act(ctx, p)
}

// stopInjection ends what the API server and the nodes do for a policy, and says whether new pods were injected till now.
func (r *SidecarPolicyReconciler) stopInjection(ctx context.Context, policy string) (found bool, err error) {
	if found, err = r.unregister(ctx, policy); err != nil || r.Prefetcher == nil {
		return found, err
	}
	return found, r.Prefetcher.Clean(ctx, policy)
}

// release lets the policy go. See leave for what comes then.
func (r *SidecarPolicyReconciler) release(ctx context.Context, p *pass) error {
	if err := r.letGo(ctx, p); client.IgnoreNotFound(err) != nil {
		return err
	}
	p.released = true
	return nil
}

// leave ends what was done for a policy that is gone: its registration, its prefetch pods, and whatever it keeps out of
// its endpoints or from being scheduled. The garbage collector would remove the former, a little later.
func (r *SidecarPolicyReconciler) leave(ctx context.Context, name string) error {
	if _, err := r.stopInjection(ctx, name); err != nil {
		return err
	}
	pods, err := r.Pods.Carrying(ctx, name)
	if err != nil {
		return fmt.Errorf("listing pods that carry the sidecars: %w", err)
	}
	p := &pass{policy: &v1alpha1.SidecarPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}, now: r.Clock.Now(),
		plan: &rollout.Plan{Undrains: shut(pods, name), Released: held(pods, name)}}
	if err := r.act(ctx, p); err != nil {
		return err
	}
	if policy := r.known.drop(name); policy != nil {
		carrying := len(pods) - len(p.plan.Released)
		ctrl.LoggerFrom(ctx).Info("the policy is gone", "podsWithItsSidecars", carrying)
		if carrying > 0 {
			r.event(policy, corev1.EventTypeNormal, v1alpha1.ReasonSidecarsKept, "Unplug",
				"the policy was deleted; %d pods still carry its sidecars, and lose them when they are recreated", carrying)
		}
	}
	r.forget(name)
	return nil
}

// known remembers policies, to say something about them when they are gone. It is a memory of what to say and
// no more. It is safe for concurrent use.
type known struct {
	mu       sync.Mutex
	policies map[string]*v1alpha1.SidecarPolicy
}

func (k *known) note(policy *v1alpha1.SidecarPolicy) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.policies == nil {
		k.policies = map[string]*v1alpha1.SidecarPolicy{}
	}
	k.policies[policy.Name] = policy
}

func (k *known) drop(name string) *v1alpha1.SidecarPolicy {
	k.mu.Lock()
	defer k.mu.Unlock()
	policy := k.policies[name]
	delete(k.policies, name)
	return policy
}

// removalConditions are those of a policy that is being deleted.
func removalConditions(p *pass, failure error) []metav1.Condition {
	list := []metav1.Condition{condition(v1alpha1.ConditionInjecting, finding{no, v1alpha1.ReasonUnplugging, p.injecting.message})}
	if p.plan == nil {
		return append(list, condition(v1alpha1.ConditionProgressing, finding{unknown, v1alpha1.ReasonObserveFailed, "the fleet could not be looked at: " + words(failure)}))
	}
	message := unpluggingMessage(p)
	trouble, found := unplugTrouble(p)
	if !found {
		trouble = finding{no, v1alpha1.ReasonHealthy, "nothing needs a person"}
	}
	return append(list,
		condition(v1alpha1.ConditionProgressing, finding{yes, v1alpha1.ReasonUnplugging, message}),
		condition(v1alpha1.ConditionAvailable, available(&p.plan.Summary)),
		condition(v1alpha1.ConditionDegraded, trouble),
		condition(v1alpha1.ConditionReady, finding{no, v1alpha1.ReasonUnplugging, message}))
}

// unpluggingMessage says how many pods are to lose the sidecars, and what holds that up.
func unpluggingMessage(p *pass) string {
	u := &p.plan.Summary.Unplug
	message := fmt.Sprintf("%d pods are to lose the sidecars, %d of them are being evicted now", u.Carrying, len(p.plan.Unplugged))
	for _, why := range []string{u.Message, u.Blocked} {
		if why != "" {
			message += "; " + why
		}
	}
	return message
}

// unplugTrouble is what keeps pods from losing the sidecars until somebody does something.
func unplugTrouble(p *pass) (finding, bool) {
	if !p.plan.Summary.Unplug.Stuck() {
		return finding{}, false
	}
	return finding{yes, v1alpha1.ReasonUnplugStuck, fmt.Sprintf(
		`%s. To leave the sidecars in until the pods are recreated: kubectl patch sidecarpolicy %s --type=merge -p '{"spec":{"onRemoval":"Keep"}}'`, unpluggingMessage(p), p.policy.Name)}, true
}

// deselectedMessage says how many pods that are not selected any more carry the sidecars; empty where none does.
func deselectedMessage(p *pass) string {
	count := p.plan.Summary.Counts.Deselected
	switch {
	case count == 0:
		return ""
	case p.policy.Spec.OnRemoval == v1alpha1.RemovalRecreate:
		return fmt.Sprintf("%d pods that are not selected any more: %s", count, unpluggingMessage(p))
	}
	return fmt.Sprintf("%d pods that are not selected any more carry the sidecars, and lose them when they are recreated", count)
}
