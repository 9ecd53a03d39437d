package controllers

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/report"
)

const (
	// keepReport is how long a report outlives the last pod of its workload: one that is recreated
	// goes on where it was.
	keepReport = time.Minute
	// untilAllPosted is when a report that nobody speaks of is looked at again, while a policy has
	// not had its first pass.
	untilAllPosted = 5 * time.Second
)

// SidecarReportReconciler writes the reports that policies' passes come to, and removes those that no
// policy speaks of.
type SidecarReportReconciler struct {
	client.Client
	Clock clock.PassiveClock
	// Board is where the passes say what they see.
	Board *report.Board
}

// +kubebuilder:rbac:groups=fleet.sidecar.dev,resources=sidecarreports,verbs=list;watch;create;update;delete

func setupSidecarReport(mgr ctrl.Manager, o Options) error {
	if o.Reports == nil {
		return nil
	}
	r := &SidecarReportReconciler{Client: mgr.GetClient(), Clock: o.Clock, Board: o.Reports}
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.SidecarReport{}).
		WatchesRawSource(source.Func(func(_ context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			r.Board.Watch(func(key types.NamespacedName) { q.Add(reconcile.Request{NamespacedName: key}) })
			return nil
		})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}). // reports have nothing to do with each other
		Complete(r)
}

// Reconcile writes one report when that is due.
func (r *SidecarReportReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	before := &v1alpha1.SidecarReport{}
	err := r.Get(ctx, req.NamespacedName, before)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("reading the report: %w", err)
	}
	if err != nil {
		before = nil
	}
	entries, left := r.Board.Of(req.NamespacedName)
	if len(entries) == 0 {
		return r.remove(ctx, before, req.NamespacedName, left)
	}
	now := r.Clock.Now()
	after := report.Make(req.NamespacedName, entries, before, now)
	wait, due := report.Wait(before, after, entries, now)
	switch {
	case !due:
		return ctrl.Result{}, nil
	case wait > 0:
		return ctrl.Result{RequeueAfter: wait}, nil
	case before == nil:
		return ctrl.Result{}, client.IgnoreNotFound(r.Create(ctx, after)) // a namespace that goes takes its reports with it
	}
	return ctrl.Result{}, client.IgnoreNotFound(r.Update(ctx, after))
}

// remove deletes a report that no policy speaks of.
func (r *SidecarReportReconciler) remove(ctx context.Context, orphan *v1alpha1.SidecarReport, key types.NamespacedName, left time.Time) (ctrl.Result, error) {
	if orphan == nil {
		r.Board.Forget(key)
		return ctrl.Result{}, nil
	}
	if posted, err := r.allPosted(ctx); err != nil || !posted {
		return ctrl.Result{RequeueAfter: untilAllPosted}, err
	}
	if wait := left.Add(keepReport).Sub(r.Clock.Now()); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	if err := r.Delete(ctx, orphan, client.Preconditions{ResourceVersion: &orphan.ResourceVersion}); client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("deleting the report of a workload without sidecars: %w", err)
	}
	return ctrl.Result{}, nil
}

// allPosted says whether every policy has said what it sees, since this process began. One that is being deleted and has let
// go of its pods has no more to say, however long the finalizer of somebody else keeps it.
func (r *SidecarReportReconciler) allPosted(ctx context.Context) (bool, error) {
	list := &v1alpha1.SidecarPolicyList{}
	if err := r.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("listing policies: %w", err)
	}
	for i := range list.Items {
		policy := &list.Items[i]
		over := policy.DeletionTimestamp != nil && !slices.Contains(policy.Finalizers, v1alpha1.UnplugFinalizer)
		if !over && !r.Board.Knows(policy.Name) {
			return false, nil
		}
	}
	return true, nil
}
