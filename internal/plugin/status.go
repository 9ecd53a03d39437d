package plugin

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/internal/plugin/render"
)

func (a *app) status() *cobra.Command {
	var watching bool
	var timeout time.Duration
	command := &cobra.Command{
		Use:   "status [POLICY]",
		Short: "Where the roll-outs of all policies stand, or that of one",
		Long: "Where the roll-outs of all policies stand, or that of one.\n\n" +
			"With --watch it goes on until the roll-out of the policy has ended, and exits with 1 where that was a failure;\n" +
			"without a policy it goes on until it is interrupted.",
		Example: example("kubectl sidecar status", "kubectl sidecar status log-agent --watch"),
		Args:    takes(0, 1, "name one policy, or none to see all"), ValidArgsFunction: a.completePolicy,
	}
	f := addFormat(command)
	command.Flags().BoolVarP(&watching, "watch", "w", false, "Go on looking: a live progress bar on a terminal, else a line for each change.")
	command.Flags().DurationVar(&timeout, "timeout", 0, "With --watch: give up after that time, like 30m. 0 is never.")
	command.RunE = func(command *cobra.Command, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		c, err := a.open()
		if err != nil {
			return err
		}
		name := ""
		if len(args) > 0 {
			name = policyName(args[0])
		}
		if watching && f.value != formatText {
			return fmt.Errorf("--watch draws for people: leave -o %s out, or use kubectl get sidecarpolicies -w -o %[1]s", f.value)
		}
		if watching {
			return a.watchStatus(command.Context(), c, name, timeout)
		}
		return a.showStatus(command.Context(), c, name, f)
	}
	return command
}

func (a *app) showStatus(ctx context.Context, c client.Reader, name string, f *format) error {
	list, err := a.statuses(ctx, c, name)
	if err != nil {
		return err
	}
	if name != "" && !f.wide() {
		return a.write(f, list[0], func() string { return render.Policy(&list[0]) })
	}
	if len(list) == 0 && f.forPeople() {
		say(a.ErrOut, "There are no policies.\n")
		return nil
	}
	return a.write(f, list, func() string { return render.Fleet(list, f.wide(), a.clock.Now()) })
}

// statuses are of all policies, or of the one of that name.
func (a *app) statuses(ctx context.Context, c client.Reader, name string) ([]render.Status, error) {
	if name != "" {
		policy, err := getPolicy(ctx, c, name)
		if err != nil {
			return nil, err
		}
		return []render.Status{render.StatusOf(policy, a.clock.Now())}, nil
	}
	policies, err := listPolicies(ctx, c)
	list := make([]render.Status, len(policies))
	for i := range policies {
		list[i] = render.StatusOf(&policies[i], a.clock.Now())
	}
	return list, err
}
