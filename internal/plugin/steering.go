package plugin

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/steer"
)

// maxTries is how often a change is decided anew because the policy has changed meanwhile: the
// operator writes its status all the time.
const maxTries = 10

// The values of --dry-run.
const (
	dryRunNone   = "none"
	dryRunClient = "client"
	dryRunServer = "server"
)

// steered is one steering command.
type steered struct {
	verb          steer.Verb
	dryRun        string
	to            string
	toTemplate    bool
	needRevisions bool
}

// steering are the commands that set what people may set.
func (a *app) steering() []*cobra.Command {
	undo := &steered{verb: steer.Undo, needRevisions: true}
	commands := []*cobra.Command{
		a.steers("pause", "Stop a roll-out where it is", &steered{verb: steer.Pause}),
		a.steers("resume", "Let a paused roll-out go on", &steered{verb: steer.Resume}),
		a.steers("approve", "Let a roll-out leave the step that awaits approval", &steered{verb: steer.Approve}),
		a.steers("promote", "End the step of a roll-out without the rest of its soak and analysis", &steered{verb: steer.Promote}),
		a.steers("abort", "Let the revision that is being rolled out count as failed", &steered{verb: steer.Abort}),
		a.steers("retry", "Try a failed revision again", &steered{verb: steer.Retry}),
		a.steers("restart", "Restart the sidecars of all pods in place, by steps and budgets", &steered{verb: steer.Restart}),
		a.steers("undo", "Roll out an older revision instead of the template", undo),
	}
	flags := commands[len(commands)-1].Flags()
	flags.StringVar(&undo.to, "to-revision", "", "The revision to go back to: its name, the beginning of it, or its number. Defaults to the stable one or, where that is the target, the one before.")
	flags.BoolVar(&undo.toTemplate, "to-template", false, "Roll out the template again: the end of an undo.")
	_ = commands[len(commands)-1].RegisterFlagCompletionFunc("to-revision", a.completeRevision)
	commands[len(commands)-1].MarkFlagsMutuallyExclusive("to-revision", "to-template")
	return commands
}

func (a *app) steers(name, short string, s *steered) *cobra.Command {
	command := &cobra.Command{
		Use:               name + " POLICY",
		Short:             short,
		Args:              onePolicy,
		ValidArgsFunction: a.completePolicy,
		RunE:              func(command *cobra.Command, args []string) error { return a.steer(command.Context(), s, args[0]) },
	}
	command.Flags().StringVar(&s.dryRun, "dry-run", dryRunNone, "none, client (say what would be done) or server (let the API server check it too). client, where no value is given.")
	command.Flags().Lookup("dry-run").NoOptDefVal = dryRunClient // as for kubectl
	_ = command.RegisterFlagCompletionFunc("dry-run", cobra.FixedCompletions([]string{dryRunNone, dryRunClient, dryRunServer}, cobra.ShellCompDirectiveNoFileComp))
	return command
}

var onePolicy = takes(1, 1, "name one policy")

// steer changes the policy as it was when that was decided, and decides anew where it has changed since.
func (a *app) steer(ctx context.Context, s *steered, name string) error {
	if s.dryRun != dryRunNone && s.dryRun != dryRunClient && s.dryRun != dryRunServer {
		return fmt.Errorf("--dry-run=%s is not known: write none, client or server", s.dryRun)
	}
	c, err := a.open()
	if err != nil {
		return err
	}
	for range maxTries {
		var outcome steer.Outcome
		if outcome, err = a.steerOnce(ctx, c, s, name); err == nil {
			a.tell(s, outcome)
			return nil
		}
		if !apierrors.IsConflict(err) {
			return err
		}
	}
	return fmt.Errorf("the policy changes all the time, and nothing was done: try again (%w)", err)
}

func (a *app) steerOnce(ctx context.Context, c client.Client, s *steered, name string) (steer.Outcome, error) {
	policy, err := getPolicy(ctx, c, name)
	if err != nil {
		return steer.Outcome{}, err
	}
	request := steer.Request{Policy: policy, To: s.to, ToTemplate: s.toTemplate, Now: a.clock.Now()}
	if s.needRevisions {
		if request.Revisions, _, err = a.revisionsOf(ctx, c, policy); err != nil {
			return steer.Outcome{}, err
		}
	}
	before := policy.DeepCopy()
	outcome, err := s.verb(request)
	if err != nil || s.dryRun == dryRunClient {
		return outcome, err
	}
	return outcome, a.patch(ctx, c, s, before, policy)
}

func (a *app) patch(ctx context.Context, c client.Client, s *steered, before, after *v1alpha1.SidecarPolicy) error {
	options := []client.PatchOption{client.FieldOwner(fieldManager)}
	if s.dryRun == dryRunServer {
		options = append(options, client.DryRunAll)
	}
	return c.Patch(ctx, after, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), options...)
}

func (a *app) tell(s *steered, outcome steer.Outcome) {
	suffix := ""
	if s.dryRun != dryRunNone {
		suffix = fmt.Sprintf(" (%s dry run: nothing was changed)", s.dryRun)
	}
	say(a.Out, "%s%s\n%s\n", outcome.Done, suffix, outcome.Next)
}
