package controllers

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/limits"
	"github.com/sidecar-dev/sidecar-operator/internal/metrics"
	"github.com/sidecar-dev/sidecar-operator/internal/prefetch"
	"github.com/sidecar-dev/sidecar-operator/internal/report"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/selection"
)

// SidecarPolicyReconciler makes the cluster be as a policy says: it accepts the
// template, registers injection, upgrades pods and reports what it sees. It runs
// one pass at a time over all policies, since budgets are shared between them.
type SidecarPolicyReconciler struct {
	client.Client
	// Live reads past the cache, which holds owners without their templates.
	Live      client.Reader
	Pods      PodReader
	Recorder  events.EventRecorder
	Clock     clock.PassiveClock
	Namespace string
	Webhook   WebhookEndpoint
	// ServerVersion asks the API server for its version, like v1.36.1.
	ServerVersion func() (string, error)
	// Prefetcher brings images onto nodes; nil where nothing is prefetched.
	Prefetcher *Prefetcher
	// Reports is where the passes say what reports are made from; nil where none are written.
	Reports *report.Board
	// CountsEvery is how long at least lies between two writes of a policy's status of which the later
	// one changes no more than counts. Zero: every change is written at once.
	CountsEvery time.Duration

	// judgements are the last of each policy; one that starts without them judges every pod.
	judgements map[string]*fleet.Judgement
	// room is where a pass gathers the members of the fleet, as the one before it did.
	room         []fleet.Member
	records      fleet.Records
	refusals     refusals
	measurements measurements
	contents     contents
	outcomes     outcomes
	known        known
	engines      engines
	selectors    selection.Cache
	// reported is when the status of each policy was written last.
	reported map[string]time.Time
}

// +kubebuilder:rbac:groups=fleet.sidecar.dev,resources=sidecarpolicies,verbs=list;watch;patch
// +kubebuilder:rbac:groups=fleet.sidecar.dev,resources=sidecarpolicies/status,verbs=update

// pass is what one look at one policy gathers. Each step reads what the ones before it
// found and adds its own.
type pass struct {
	policy    *v1alpha1.SidecarPolicy
	now       time.Time
	revisions []revision.Revision
	// goal is the accepted revision of the spec or, where the spec is not accepted, the one that was
	// accepted before; nil while there is none.
	goal     *revision.Revision
	accepted finding
	// aim is what the pass is to reach.
	aim rollout.Aim
	// injecting says whether new pods get the sidecars.
	injecting finding
	// births are what the API server injects by itself; nil where it does not, or not yet. behind: not yet.
	births *rollout.Births
	behind bool
	// injectsOther: new pods get something else than the status says, until the API server acts on the last change.
	injectsOther bool
	// limits is what limits the pods of the selected namespaces; see limitsOf.
	limits map[string]limits.Namespace
	// again is when to look again for what nobody tells; zero is never.
	again time.Duration
	// contents is the configuration that the sidecars read, by namespace; see restartOn.
	contents map[string]fleet.Content
	// leaving are the pods of the fleet, and those that come in at its edges, that are being deleted.
	leaving []fleet.Member
	// pods is the fleet; plan is nil where it was not looked at. deselected pods carry sidecars, and are not of it.
	pods        []fleet.PodState
	deselected  []fleet.PodState
	disruptions []fleet.Disruption
	// stillAway: pods wait for the sidecars, and new ones would, too.
	stillAway bool
	// images says which are on which node; nil where the plan did not ask. See presence.
	images    *prefetch.View
	imagesErr error
	// plan is what is done, and input what it was made of.
	plan  *rollout.Plan
	input rollout.Input
	// removing: the policy is being deleted. released: it is gone by now, or kept by somebody else, and has no status to write.
	removing, released bool
}

// finding is the outcome of a step, in the words of a condition.
type finding struct {
	holds   conditionStatus
	reason  v1alpha1.Reason
	message string
}

// Reconcile makes one pass over one policy.
func (r *SidecarPolicyReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	policy := &v1alpha1.SidecarPolicy{}
	if err := r.Get(ctx, req.NamespacedName, policy); err != nil {
		if apierrors.IsNotFound(err) {
			return ctrl.Result{}, r.leave(ctx, req.Name)
		}
		return ctrl.Result{}, err
	}
	p := &pass{policy: policy, now: r.Clock.Now(), removing: policy.DeletionTimestamp != nil}
	r.known.note(policy)
	run := r.run
	if p.removing {
		run = r.remove
	}
	err := run(ctx, p)
	if p.released {
		r.withdraw(p.policy.Name)
		return ctrl.Result{}, err
	}
	r.post(p)
	r.outcomes.note(p)
	err = errors.Join(err, r.writeStatus(ctx, p, err))
	return ctrl.Result{RequeueAfter: p.requeue()}, err
}

// requeue is when to look again even if nothing changes; zero is never.
func (p *pass) requeue() time.Duration {
	var after time.Duration
	if p.plan != nil {
		after = p.plan.Requeue
	}
	for _, other := range []time.Duration{p.again, p.contentAgain()} {
		if other > 0 && (after == 0 || after > other) {
			after = other
		}
	}
	return after
}

func (p *pass) contentAgain() time.Duration {
	if len(p.policy.Spec.Rollout.RestartOn) == 0 {
		return 0
	}
	return lookAtContent
}

// lookAgain asks for another pass, at the latest after some time.
func (p *pass) lookAgain(after time.Duration) {
	if p.again == 0 || after < p.again {
		p.again = after
	}
}

// run does the steps in order. The first that can't be done ends the pass, but for the registration: whether new pods are
// injected or not, running ones are upgraded, watched and put back.
func (r *SidecarPolicyReconciler) run(ctx context.Context, p *pass) error {
	if err := r.accept(ctx, p); err != nil || p.goal == nil {
		return err
	}
	if r.acceptEngine(ctx, p); p.goal == nil {
		return nil
	}
	p.aim = rollout.TakeAim(p.policy, p.goal, p.revisions)
	if err := r.holdOn(ctx, p); err != nil {
		return err
	}
	failure := r.register(ctx, p)
	for _, step := range []func(context.Context, *pass) error{r.observe, r.act, r.prefetch} {
		if err := step(ctx, p); err != nil {
			return errors.Join(failure, err)
		}
	}
	r.measure(ctx, p)
	return errors.Join(failure, r.trimHistory(ctx, p))
}

// post says what the pass saw of each workload. A policy of which nothing was ever accepted saw nothing.
func (r *SidecarPolicyReconciler) post(p *pass) {
	switch {
	case r.Reports == nil:
	case p.plan != nil:
		r.Reports.Post(p.policy.Name, report.Entries(p.policy.Name, p.aim.Target, p.pods), p.now)
	case p.goal == nil && p.accepted.holds == no:
		r.Reports.Post(p.policy.Name, nil, p.now)
	}
}

// forget drops what is known of a policy that is gone.
func (r *SidecarPolicyReconciler) forget(policy string) {
	metrics.Forget(policy)
	delete(r.reported, policy)
	delete(r.judgements, policy)
	r.refusals.forget(policy)
	r.measurements.take(policy)
	r.contents.forget(policy)
	r.outcomes.forget(policy)
	r.engines.forget(policy)
	if r.Prefetcher != nil {
		r.Prefetcher.Forget(policy)
	}
	r.withdraw(policy)
}

// withdraw ends what reports say of a policy that does nothing for its pods any more.
func (r *SidecarPolicyReconciler) withdraw(policy string) {
	if r.Reports != nil {
		r.Reports.Withdraw(policy, r.Clock.Now())
	}
}
