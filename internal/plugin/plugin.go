// Package plugin is kubectl sidecar: what people see of policies, and how they steer them. Its
// commands read from the API server, decide and render by pure functions, and write nothing but
// the fields and annotations of the API that are meant for people.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// The exit codes.
const (
	exitOK = iota
	// exitError: the command could not do what was asked, or found something broken.
	exitError
	// exitChanges: plan found that something would change.
	exitChanges
)

// defaultNamespace is where the operator is installed where nobody says otherwise, and nothing of it is found elsewhere.
const defaultNamespace = "sidecar-operator-system"

// app is what all commands share.
type app struct {
	genericiooptions.IOStreams
	flags *genericclioptions.ConfigFlags
	// namespace is the operator's own, as far as it was named or has been found: see home.
	namespace string
	clock     clock.PassiveClock
	// open makes the client of the API server, ask asks it for its version.
	open func() (client.WithWatch, error)
	ask  func() (string, error)
}

// Run carries out a command line and returns its exit code.
func Run(ctx context.Context, args []string, streams genericiooptions.IOStreams, clock clock.PassiveClock) int {
	a := &app{IOStreams: streams, flags: genericclioptions.NewConfigFlags(true), clock: clock}
	a.open, a.ask = a.client, a.serverVersion
	ctrllog.SetLogger(logr.Discard()) // people read what the commands say
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	}
	_, _ = fmt.Fprintln(a.ErrOut, "error:", advised(err))
	return exitError
}

// exitCode ends a command that has said all that there is to say.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "kubectl-sidecar",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl sidecar"},
		Short:         "See, plan and steer the roll-outs of SidecarPolicies",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.ErrOut)
	root.SetFlagErrorFunc(func(command *cobra.Command, err error) error {
		return fmt.Errorf("%w: see %s --help", err, command.CommandPath())
	})
	a.flags.AddFlags(root.PersistentFlags())
	root.PersistentFlags().StringVar(&a.namespace, "operator-namespace", "", "The namespace that the sidecar operator is installed in. It is looked for where none is named, and else "+defaultNamespace+".")
	root.AddGroup(
		&cobra.Group{ID: groupSee, Title: "See what is and what would be:"},
		&cobra.Group{ID: groupSteer, Title: "Steer a roll-out:"})
	for _, add := range []func() *cobra.Command{a.status, a.history, a.diff, a.plan, a.explain, a.doctor} {
		command := add()
		command.GroupID = groupSee
		root.AddCommand(command)
	}
	for _, command := range a.steering() {
		command.GroupID = groupSteer
		root.AddCommand(command)
	}
	return root
}

const (
	groupSee   = "see"
	groupSteer = "steer"
)

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// example indents the examples of a command.
func example(lines ...string) string { return "  " + strings.Join(lines, "\n  ") }

// takes lets a command have that many arguments, and says what they are where there are more or fewer.
func takes(least, most int, what string) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("%s: %s", what, command.UseLine())
		}
		return nil
	}
}

// say writes text to the one who asked. There is nobody to tell where that fails.
func say(out io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(out, format, args...) }
