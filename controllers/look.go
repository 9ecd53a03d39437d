package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// Onlooker sees what the manager sees, and decides what it would decide, and writes nothing: for people
// who ask what is going on, or what would be.
type Onlooker struct {
	// Client reads. Dry runs are all that it sends.
	Client client.Client
	// Namespace is the operator's own.
	Namespace string
	// PrefetchImage is the operator's own image; where it is empty, nobody asks for images on nodes.
	PrefetchImage string
	// ServerVersion asks the API server for its version.
	ServerVersion func() (string, error)
}

// Sight is one look at a policy.
type Sight struct {
	Policy    *v1alpha1.SidecarPolicy
	Revisions []revision.Revision
	// New: the goal of the look is no revision of the policy yet.
	New bool
	// Problem says why the spec can't be carried out; empty where it can.
	Problem string
	// Warning is of what will work, but hardly as meant.
	Warning string
	// Aim is what is to be reached. It and all that follows has no meaning where Goal is nil.
	Aim rollout.Aim
	// Pods is the fleet, Leaving are those of it that are being deleted.
	Pods    []fleet.PodState
	Leaving []fleet.Member
	// Contents is the configuration that the sidecars read, by namespace.
	Contents map[string]fleet.Content
	// Input is what Plan, what the manager would do now, was made of.
	Input rollout.Input
	Plan  *rollout.Plan
}

// Look looks at a policy, which need not be the one that is stored.
func (o *Onlooker) Look(ctx context.Context, policy *v1alpha1.SidecarPolicy, now time.Time) (*Sight, error) {
	pods := ListedPods{Reader: o.Client}
	r := &SidecarPolicyReconciler{Client: o.Client, Pods: pods, Live: o.Client, Namespace: o.Namespace, ServerVersion: o.ServerVersion}
	if o.PrefetchImage != "" {
		r.Prefetcher = &Prefetcher{Client: o.Client, Pods: pods, IdleImage: o.PrefetchImage, ServerVersion: o.ServerVersion}
	}
	p := &pass{policy: policy, now: now}
	isNew, err := r.judgeSpec(ctx, p)
	if err != nil {
		return nil, err
	}
	s := &Sight{Policy: policy, Revisions: p.revisions, New: isNew}
	if p.accepted.holds != yes {
		s.Problem = p.accepted.message
	} else {
		s.Warning = strings.Join(warn(policy), "; ")
	}
	if p.goal == nil {
		return s, nil
	}
	p.aim = rollout.TakeAim(policy, p.goal, p.revisions)
	if injecting := meta.FindStatusCondition(policy.Status.Conditions, v1alpha1.ConditionInjecting); injecting != nil {
		p.injecting.holds = injecting.Status
	}
	if err := r.observe(ctx, p); err != nil {
		return nil, err
	}
	s.Aim, s.Pods, s.Leaving, s.Contents, s.Plan = p.aim, p.pods, p.leaving, p.contents, p.plan
	s.Input = p.input
	return s, p.imagesErr
}

// judgeSpec is accept without what it writes. It says whether the goal is a new revision.
func (r *SidecarPolicyReconciler) judgeSpec(ctx context.Context, p *pass) (isNew bool, err error) {
	if p.revisions, err = r.listRevisions(ctx, p.policy.Name); err != nil {
		return false, err
	}
	if problems := validate(p.policy, r.Namespace); len(problems) > 0 {
		p.accepted = finding{no, v1alpha1.ReasonInvalidSpec, strings.Join(problems, "; ")}
		p.keepGoal()
		return false, nil
	}
	if name := p.policy.Spec.Rollout.Revision; name != "" {
		p.acceptNamed(name)
		return false, nil
	}
	if p.contents, err = r.recall(ctx, p.policy); err != nil {
		return false, err
	}
	if p.goal = revision.Find(p.revisions, p.template()); p.goal != nil {
		p.accepted = accepted(p.policy)
		return false, nil
	}
	return true, r.judgeNew(ctx, p)
}

// judgeNew asks the API server about a template that the policy does not have yet.
func (r *SidecarPolicyReconciler) judgeNew(ctx context.Context, p *pass) error {
	next := revision.Next(p.revisions, p.template())
	err := r.dryRun(ctx, samplePod(p.policy, &next, r.Namespace))
	switch {
	case apierrors.IsInvalid(err) || apierrors.IsBadRequest(err):
		p.accepted = finding{no, v1alpha1.ReasonPodRefused, "the API server refuses a pod with this template: " + sampleWords(err)}
		p.keepGoal()
		return nil
	case err != nil && !apierrors.IsNotFound(err): // without its namespace the operator is not there to be asked either
		return fmt.Errorf("asking the API server about a pod with the template: %w", err)
	}
	p.revisions = append(p.revisions, next)
	p.goal, p.accepted = &next, accepted(p.policy)
	return nil
}

// recall reads what was remembered of spec.rollout.restartOn at the operator's last look.
func (r *SidecarPolicyReconciler) recall(ctx context.Context, policy *v1alpha1.SidecarPolicy) (map[string]fleet.Content, error) {
	if len(policy.Spec.Rollout.RestartOn) == 0 {
		return nil, nil
	}
	stored := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: r.Namespace, Name: rememberedIn(policy.Name)}
	if err := r.Live.Get(ctx, key, stored); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if stored.Annotations[triggersAnnotation] != fmt.Sprint(policy.Spec.Rollout.RestartOn) {
		return nil, nil
	}
	contents := map[string]fleet.Content{}
	_ = json.Unmarshal([]byte(stored.Data[contentKey]), &contents) // what can't be read is seen for the first time
	return contents, nil
}
