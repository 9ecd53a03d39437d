package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/render"
)

const (
	// redraw is how often a picture is drawn anew although nothing changed: clocks go on.
	redraw = time.Second
	// steady is how long a connection has lasted that is no sign of trouble when it ends.
	steady = 30 * time.Second
)

// again is how long to wait before the API server is asked again. It may be away for minutes: an upgrade of the control plane.
var again = wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.2, Steps: 6, Cap: 30 * time.Second}

var (
	// errEnded: the roll-out that was watched has ended.
	errEnded = errors.New("the roll-out has ended")
	// errDeleted: there is nothing to watch any more.
	errDeleted = errors.New("was deleted")
)

// watchStatus draws until the policy's roll-out has ended.
func (a *app) watchStatus(ctx context.Context, c client.WithWatch, name string, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	view := &live{app: a, name: name, screen: newScreen(a.Out), tempos: map[string]*render.Tempo{}}
	if err := view.begin(ctx, c); err != nil {
		return err
	}
	pauses := again
	for {
		began := time.Now()
		err := view.follow(ctx, c)
		if ended, result := view.ended(ctx, err, timeout); ended {
			return result
		}
		if time.Since(began) > steady {
			pauses = again
		}
		view.pause(ctx, err, pauses.Step())
	}
}

// ended says whether nothing is watched any more, and how the command ends then.
func (l *live) ended(ctx context.Context, err error, timeout time.Duration) (bool, error) {
	switch {
	case errors.Is(err, errEnded):
		return true, l.verdict()
	case ctx.Err() != nil && l.name == "":
		return true, nil // who watches everything ends it that way
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return true, fmt.Errorf("the roll-out has not ended within %s: kubectl sidecar status %s says what it waits for", timeout, l.name)
	case ctx.Err() != nil:
		return true, ctx.Err()
	case errors.Is(err, errDeleted):
		return true, fmt.Errorf("policy %s %w", l.name, err)
	case err != nil && final(err):
		return true, err
	}
	return false, nil
}

// final says whether an error is an answer, and not the lack of one.
func final(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || meta.IsNoMatchError(err)
}

// live is what --watch knows.
type live struct {
	*app
	name   string
	screen *screen
	// policies are by name, as of the last that was heard of them.
	policies map[string]*v1alpha1.SidecarPolicy
	tempos   map[string]*render.Tempo
	// lost says that nothing is heard now, and why; empty where the API server is connected.
	lost string
}

// begin looks whether there is anything to watch. An API server that can't be asked at the very first is no matter of patience.
func (l *live) begin(ctx context.Context, c client.WithWatch) error {
	if l.name != "" {
		_, err := getPolicy(ctx, c, l.name)
		return err
	}
	_, err := listPolicies(ctx, c)
	return err
}

// follow draws what is, then what one watch of the API server brings. It returns nil where that has to begin anew.
func (l *live) follow(ctx context.Context, c client.WithWatch) error {
	since, err := l.look(ctx, c)
	if err != nil {
		return err
	}
	if l.draw() {
		return errEnded
	}
	events, err := c.Watch(ctx, &v1alpha1.SidecarPolicyList{}, append(l.which(), &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: since}})...)
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

// which are the policies that are watched.
func (l *live) which() []client.ListOption {
	if l.name == "" {
		return nil
	}
	return []client.ListOption{client.MatchingFields{"metadata.name": l.name}}
}

// look takes in all that is now, in place of what was known: what happened between two watches is told by neither. It
// returns since when a watch has to tell.
func (l *live) look(ctx context.Context, c client.WithWatch) (since string, err error) {
	list := &v1alpha1.SidecarPolicyList{}
	if err := c.List(ctx, list, l.which()...); err != nil {
		return "", err
	}
	l.lost, l.policies = "", map[string]*v1alpha1.SidecarPolicy{}
	for i := range list.Items {
		l.policies[list.Items[i].Name] = &list.Items[i]
	}
	if l.name != "" && len(l.policies) == 0 {
		return "", errDeleted
	}
	return list.ResourceVersion, nil
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
		return false, errDeleted
	}
	return false, nil
}

// pause waits until the API server is asked again, and says that where it was lost.
func (l *live) pause(ctx context.Context, err error, d time.Duration) {
	if err != nil && l.lost == "" {
		l.lost = "Nothing is heard from the API server since " + l.clock.Now().UTC().Format(time.RFC3339) + ", and it is asked again: " + err.Error()
		l.draw()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// draw shows what is known, and says whether the roll-out has ended.
func (l *live) draw() bool {
	list := l.list()
	if l.name == "" {
		l.show(render.Fleet(list, false, l.clock.Now()), lines(list))
		return false
	}
	if len(list) == 0 {
		return false
	}
	l.show(render.Policy(&list[0]), lines(list))
	return list[0].Done
}

func (l *live) show(picture string, lines []string) {
	if l.lost != "" {
		picture, lines = picture+"\n"+l.lost+"\n", append(lines, l.lost)
	}
	l.screen.show(picture, lines)
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
