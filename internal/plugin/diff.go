package plugin

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/render"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/steer"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

func (a *app) diff() *cobra.Command {
	command := &cobra.Command{
		Use:   "diff POLICY [REVISION] [REVISION]",
		Short: "What differs between two revisions of a policy",
		Long: "What differs between two revisions of a policy: the stable one and the target, where none is named or,\n" +
			"where these are the same, the one before and the target. One that is named is compared to the target.",
		Example: example("kubectl sidecar diff log-agent", "kubectl sidecar diff log-agent 3 5"),
		Args:    takes(1, 3, "name one policy, and two revisions at most"),
		ValidArgsFunction: func(command *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.completePolicy(command, args, word)
			}
			return a.completeRevision(command, args, word)
		},
	}
	f := addFormat(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		return a.showDiff(command.Context(), args[0], args[1:], f)
	}
	return command
}

func (a *app) showDiff(ctx context.Context, name string, named []string, f *format) error {
	c, err := a.open()
	if err != nil {
		return err
	}
	policy, err := getPolicy(ctx, c, name)
	if err != nil {
		return err
	}
	revisions, _, err := a.revisionsOf(ctx, c, policy)
	if err != nil {
		return err
	}
	from, to, err := compared(policy, revisions, named)
	if err != nil {
		return err
	}
	difference, err := render.DifferenceOf(from, to)
	if err != nil {
		return err
	}
	return a.write(f, difference, func() string { return render.Diff(difference) })
}

// compared are the two revisions that are meant.
func compared(policy *v1alpha1.SidecarPolicy, revisions []revision.Revision, named []string) (from, to *revision.Revision, err error) {
	find := func(name string) (*revision.Revision, error) {
		found, err := steer.Find(revisions, name)
		if err != nil {
			return nil, fmt.Errorf("policy %s %w", policy.Name, err)
		}
		return found, nil
	}
	target := policy.Status.TargetRevision
	if len(named) == 2 {
		target = named[1]
	}
	if target == "" {
		return nil, nil, fmt.Errorf("policy %s has no revision yet: kubectl sidecar status %[1]s says why", policy.Name)
	}
	if to, err = find(target); err != nil {
		return nil, nil, err
	}
	if len(named) > 0 {
		from, err = find(named[0])
		return from, to, err
	}
	if stable := policy.Status.StableRevision; stable != "" && stable != target {
		from, err = find(stable)
		return from, to, err
	}
	if from = steer.Before(revisions, to.Hash); from == nil {
		return nil, nil, fmt.Errorf("policy %s has no revision before %s to compare it with", policy.Name, to.Hash)
	}
	return from, to, nil
}
