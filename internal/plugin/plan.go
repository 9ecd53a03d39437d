package plugin

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/controllers"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/render"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/simulate"
)

// planned is what plan is asked for.
type planned struct {
	file, manager string
	pace          simulate.Pace
}

func (a *app) plan() *cobra.Command {
	var o planned
	command := &cobra.Command{
		Use:   "plan -f FILE",
		Short: "What a policy would do before it is applied",
		Long: "What a policy would do before it is applied: to which pods, in place or not and why, in which steps, within\n" +
			"which budgets, and how long that takes. The API server fills the file in and checks it, by a dry run of\n" +
			"what kubectl apply would send; the rest is the operator's own code, and a simulation in which nothing goes wrong.\n\n" +
			"Exits with 0 where nothing changes, 2 where something does, 1 where it can't be told or would not be accepted.",
		Example: example("kubectl sidecar plan -f policy.yaml", "kubectl sidecar plan -f - -o json < policy.yaml"),
		Args: func(command *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("write -f %s: %s", args[0], command.UseLine())
			}
			return nil
		},
	}
	f := addFormat(command)
	flags := command.Flags()
	flags.StringVarP(&o.file, "filename", "f", "", "The file with the policy; - is the standard input.")
	flags.StringVar(&o.manager, "field-manager", "kubectl", "Who would apply it on the server's side; kubectl apply --server-side is kubectl.")
	flags.DurationVar(&o.pace.Restart, "restart-takes", 5*time.Second, "How long a restarted sidecar takes until it is ready.")
	flags.DurationVar(&o.pace.Recreate, "recreate-takes", 30*time.Second, "How long a recreated pod takes until it is ready.")
	command.RunE = func(command *cobra.Command, _ []string) error {
		if err := f.check(); err != nil {
			return err
		}
		if o.file == "" {
			return fmt.Errorf("say which file has the policy, - for the standard input: %s", command.UseLine())
		}
		return a.showPlans(command.Context(), &o, f)
	}
	return command
}

func (a *app) showPlans(ctx context.Context, o *planned, f *format) error {
	c, err := a.open()
	if err != nil {
		return err
	}
	files, err := readPolicies(a.In, o.file)
	if err != nil {
		return err
	}
	onlooker, err := a.onlooker(ctx, c)
	if err != nil {
		return err
	}
	var plans []*render.Plan
	for _, file := range files {
		plan, err := a.planOf(ctx, c, onlooker, file, o)
		if err != nil {
			return fmt.Errorf("policy %s: %w", file.GetName(), err)
		}
		plans = append(plans, plan)
	}
	if err := a.writePlans(f, plans); err != nil {
		return err
	}
	worst := exitOK
	for _, plan := range plans {
		worst = worse(worst, plan)
	}
	if worst != exitOK {
		return exitCode(worst)
	}
	return nil
}

// writePlans writes one document: a plan, or the list of several.
func (a *app) writePlans(f *format, plans []*render.Plan) error {
	var value any = plans
	if len(plans) == 1 {
		value = plans[0]
	}
	return a.write(f, value, func() string {
		texts := make([]string, len(plans))
		for i, plan := range plans {
			texts[i] = render.PlanText(plan)
		}
		return strings.Join(texts, "\n")
	})
}

// worse is the exit code after one more plan: one that can't be carried out outweighs changes.
func worse(worst int, plan *render.Plan) int {
	switch {
	case plan.Problem != "" || worst == exitError:
		return exitError
	case plan.Creates || len(plan.Changes) > 0:
		return exitChanges
	}
	return worst
}

func (a *app) planOf(ctx context.Context, c client.Client, onlooker *controllers.Onlooker, file *policyFile, o *planned) (*render.Plan, error) {
	current := &v1alpha1.SidecarPolicy{}
	err := c.Get(ctx, client.ObjectKey{Name: file.GetName()}, current)
	if apierrors.IsNotFound(err) {
		current, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	proposed, err := file.applied(ctx, c, current, o.manager)
	if err != nil {
		return nil, err
	}
	plan := &render.Plan{Policy: proposed.Name, Creates: current == nil}
	if current != nil {
		if plan.Changes = render.ChangedFields(&current.Spec, &proposed.Spec); len(plan.Changes) == 0 {
			return plan, nil
		}
		current.Status.DeepCopyInto(&proposed.Status)
	}
	foresee(current, proposed)
	now := a.clock.Now().Truncate(time.Second)
	sight, err := a.look(ctx, onlooker, proposed, now)
	if err != nil {
		return nil, err
	}
	plan.Problem, plan.Warning, plan.Selected = sight.Problem, sight.Warning, len(sight.Pods)
	if sight.Plan == nil || sight.Problem != "" {
		return plan, nil
	}
	if err := a.selectionChange(ctx, onlooker, current, sight, plan, now); err != nil {
		return nil, err
	}
	return plan, a.rollOut(ctx, c, sight, o, plan, now)
}

// foresee notes in the status whether new pods will get the sidecars, where the spec changes that: the operator sees to
// that before it replaces the first pod that lacks them.
func foresee(current, proposed *v1alpha1.SidecarPolicy) {
	injecting := metav1.Condition{Type: v1alpha1.ConditionInjecting, Status: metav1.ConditionTrue, Reason: string(v1alpha1.ReasonRegistered)}
	switch {
	case proposed.Spec.Injection.Paused:
		injecting.Status, injecting.Reason = metav1.ConditionFalse, string(v1alpha1.ReasonInjectionPaused)
	case current != nil && !current.Spec.Injection.Paused:
		return
	}
	meta.SetStatusCondition(&proposed.Status.Conditions, injecting)
}

// selectionChange tells which pods come and go.
func (a *app) selectionChange(ctx context.Context, onlooker *controllers.Onlooker, current *v1alpha1.SidecarPolicy, sight *controllers.Sight, plan *render.Plan, now time.Time) error {
	if current == nil {
		return nil
	}
	before, err := onlooker.Look(ctx, current, now)
	if err != nil {
		return err
	}
	had := map[types.UID]bool{}
	for i := range before.Pods {
		had[before.Pods[i].Pod.UID] = true
	}
	for i := range sight.Pods {
		if !had[sight.Pods[i].Pod.UID] {
			plan.Gained++
		}
	}
	plan.Lost = len(before.Pods) + plan.Gained - len(sight.Pods)
	if from := revision.Get(sight.Revisions, current.Status.TargetRevision); from != nil {
		difference, err := render.DifferenceOf(from, sight.Aim.Goal)
		plan.Template = &difference
		return err
	}
	return nil
}

// rollOut tells what becomes of the pods, and plays the roll-out.
func (a *app) rollOut(ctx context.Context, c client.Client, sight *controllers.Sight, o *planned, plan *render.Plan, now time.Time) error {
	spec := &sight.Policy.Spec.Rollout
	plan.Workloads = render.Groups(sight.Input, sight.Plan)
	plan.Allowed(rollout.Allowances(sight.Input), sight.Input.Disruptions)
	input := simulate.Input{Policy: sight.Policy, Goal: sight.Aim.Goal, Revisions: sight.Revisions, Contents: sight.Contents,
		RestartedAt: sight.Policy.Spec.Template.RestartedAt, Pace: o.pace, Now: now}
	inFleet := map[types.UID]bool{}
	for i := range sight.Pods {
		input.Members = append(input.Members, sight.Pods[i].Member)
		inFleet[sight.Pods[i].Pod.UID] = true
	}
	var err error
	if input.Health, err = healthOfAll(ctx, c, sight.Policy); err != nil {
		return err
	}
	if input.Budgets, input.Others, err = disruptionBudgets(ctx, c, sight.Pods, inFleet); err != nil {
		return err
	}
	plan.Simulated(simulate.Run(input), now)
	plan.Assumed = assumed(spec, sight.Pods, o)
	return nil
}

// assumed is what the time was reckoned with.
func assumed(spec *v1alpha1.RolloutSpec, pods []fleet.PodState, o *planned) []string {
	list := []string{fmt.Sprintf("a restart takes %s", o.pace.Restart)}
	for i := range pods {
		if rollout.IntentFor(&pods[i], spec) == rollout.IntentRecreate {
			list = append(list, fmt.Sprintf("another pod is ready after %s", o.pace.Recreate))
			break
		}
	}
	list = append(list, "images are pulled at once")
	for _, step := range spec.EffectiveSteps() {
		if step.Approval == v1alpha1.ApprovalRequired {
			list = append(list, "approvals are given at once")
			break
		}
	}
	if len(spec.Analysis) > 0 {
		list = append(list, "every analysis passes by the end of its soak")
	}
	return append(list, "nothing fails")
}

func healthOfAll(ctx context.Context, c client.Reader, policy *v1alpha1.SidecarPolicy) (map[string]*v1alpha1.HealthSpec, error) {
	policies, err := listPolicies(ctx, c)
	health := map[string]*v1alpha1.HealthSpec{}
	for i := range policies {
		health[policies[i].Name] = &policies[i].Spec.Rollout.Health
	}
	health[policy.Name] = &policy.Spec.Rollout.Health
	return health, err
}

// disruptionBudgets are those of the fleet's namespaces, with the pods beyond the fleet that they cover.
func disruptionBudgets(ctx context.Context, c client.Reader, fleet []fleet.PodState, inFleet map[types.UID]bool) ([]policyv1.PodDisruptionBudget, []*corev1.Pod, error) {
	var budgets []policyv1.PodDisruptionBudget
	var others []*corev1.Pod
	seen := map[string]bool{}
	for i := range fleet {
		namespace := fleet[i].Pod.Namespace
		if seen[namespace] {
			continue
		}
		seen[namespace] = true
		list := &policyv1.PodDisruptionBudgetList{}
		if err := c.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return nil, nil, err
		}
		if len(list.Items) == 0 {
			continue
		}
		budgets = append(budgets, list.Items...)
		pods := &corev1.PodList{}
		if err := c.List(ctx, pods, client.InNamespace(namespace)); err != nil {
			return nil, nil, err
		}
		for i := range pods.Items {
			if !inFleet[pods.Items[i].UID] {
				others = append(others, &pods.Items[i])
			}
		}
	}
	return budgets, others, nil
}
