package controllers

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// trimHistory deletes old revisions. Those that status or pods name are kept: a pod is
// compared with the revision it was created with for as long as it lives.
func (r *SidecarPolicyReconciler) trimHistory(ctx context.Context, p *pass) error {
	inUse := map[string]bool{p.aim.Target.Hash: true, p.goal.Hash: true, p.policy.Status.StableRevision: true, p.policy.Status.TargetRevision: true}
	for _, pods := range [][]fleet.PodState{p.pods, p.deselected} {
		for i := range pods {
			inUse[pods[i].Label], inUse[pods[i].Born], inUse[pods[i].Given] = true, true, true
		}
	}
	limit := int(ptr.Deref(p.policy.Spec.RevisionHistoryLimit, v1alpha1.DefaultRevisionHistoryLimit))
	for _, expired := range revision.Expired(p.revisions, inUse, limit) {
		object := &appsv1.ControllerRevision{}
		object.Namespace, object.Name = r.Namespace, revision.ObjectName(p.policy.Name, expired.Hash)
		if err := r.Delete(ctx, object); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting revision %s: %w", expired.Hash, err)
		}
	}
	return nil
}
