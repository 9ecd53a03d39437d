package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
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
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: a.completePolicy,
	}
	f := addFormat(command, formatWide)
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

// redraw is how often a picture is drawn anew although nothing changed: clocks go on.
const redraw = time.Second

// errEnded: the roll-out that was watched has ended.
var errEnded = errors.New("the roll-out has ended")

// watchStatus draws until the policy's roll-out has ended.
func (a *app) watchStatus(ctx context.Context, c client.WithWatch, name string, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	if name != "" {
		if _, err := getPolicy(ctx, c, name); err != nil {
			return err
		}
	}
	view := &live{app: a, name: name, screen: newScreen(a.Out), policies: map[string]*v1alpha1.SidecarPolicy{}, tempos: map[string]*render.Tempo{}}
	for {
		err := view.follow(ctx, c)
		switch {
		case errors.Is(err, errEnded):
			return view.verdict()
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return fmt.Errorf("the roll-out has not ended within %s: kubectl sidecar status %s says what it waits for", timeout, name)
		case ctx.Err() != nil && name == "":
			return nil // who watches everything ends it that way
		case err != nil:
			return err
		}
	}
}

// live is what --watch knows.
type live struct {
	*app
	name     string
	screen   *screen
	policies map[string]*v1alpha1.SidecarPolicy
	tempos   map[string]*render.Tempo
}

// follow draws what one watch of the API server brings. It returns nil where that has to begin anew.
func (l *live) follow(ctx context.Context, c client.WithWatch) error {
	var options []client.ListOption
	if l.name != "" {
		options = append(options, client.MatchingFields{"metadata.name": l.name})
	}
	events, err := c.Watch(ctx, &v1alpha1.SidecarPolicyList{}, options...)
	if err != nil {
		return err
	}
	defer events.Stop()
	ticker := time.NewTicker(redraw)
	defer ticker.Stop()
	for {
		if restart, err := l.await(ctx, events, ticker); restart || err != nil {
			return err
		}
		if l.draw() {
			return errEnded
		}
	}
}

// await waits for a reason to draw, and says whether the watch has to begin anew.
func (l *live) await(ctx context.Context, events watch.Interface, ticker *time.Ticker) (restart bool, err error) {
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-ticker.C:
		return false, nil
	case event, open := <-events.ResultChan():
		if !open {
			return true, nil
		}
		return l.take(event)
	}
}

// take notes what has changed, and says whether the watch has to begin anew.
func (l *live) take(event watch.Event) (restart bool, err error) {
	if event.Type == watch.Error {
		err := apierrors.FromObject(event.Object)
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			return true, nil
		}
		return false, err
	}
	policy, ok := event.Object.(*v1alpha1.SidecarPolicy)
	if !ok {
		return false, nil
	}
	if event.Type != watch.Deleted {
		l.policies[policy.Name] = policy
		return false, nil
	}
	delete(l.policies, policy.Name)
	if l.name != "" {
		return false, fmt.Errorf("policy %s was deleted", l.name)
	}
	return false, nil
}

// draw shows what is known, and says whether the roll-out has ended.
func (l *live) draw() bool {
	list := l.list()
	if l.name == "" {
		l.screen.show(render.Fleet(list, false, l.clock.Now()), lines(list))
		return false
	}
	if len(list) == 0 {
		return false
	}
	l.screen.show(render.Policy(&list[0]), lines(list))
	return list[0].Done
}

func (l *live) list() []render.Status {
	var list []render.Status
	now := l.clock.Now()
	for _, name := range sortedKeys(l.policies) {
		s := render.StatusOf(l.policies[name], now)
		if l.tempos[name] == nil {
			l.tempos[name] = &render.Tempo{}
		}
		l.tempos[name].Note(&s, now)
		list = append(list, s)
	}
	return list
}

func lines(list []render.Status) []string {
	texts := make([]string, len(list))
	for i := range list {
		texts[i] = render.Line(&list[i])
	}
	return texts
}

// verdict is how the roll-out that was watched has ended.
func (l *live) verdict() error {
	s := render.StatusOf(l.policies[l.name], l.clock.Now())
	if !s.Failed {
		return nil
	}
	why := s.WaitsFor
	if len(s.Trouble) > 0 {
		why = strings.Join(s.Trouble, "; ")
	}
	return fmt.Errorf("the roll-out of policy %s has failed: %s", l.name, why)
}
