package steer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// Undo rolls out an older revision instead of the template, or the template again.
func Undo(r Request) (Outcome, error) {
	p := r.Policy
	if r.ToTemplate {
		return toTemplate(p)
	}
	to, err := wanted(r)
	if err != nil {
		return Outcome{}, err
	}
	if p.Spec.Rollout.Revision == to || (p.Spec.Rollout.Revision == "" && p.Status.TargetRevision == to) {
		return Outcome{}, fmt.Errorf("revision %s is what policy %s asks for already: %s", to, p.Name, Standing(p))
	}
	p.Spec.Rollout.Revision = to
	next := watchIt(p)
	if p.Spec.Rollout.Paused {
		next = "it begins when the roll-out goes on: kubectl sidecar resume " + p.Name
	}
	return Outcome{fmt.Sprintf("policy %s rolls out revision %s instead of its template", p.Name, to),
		fmt.Sprintf("%s; once spec.template is right, roll it out by: kubectl sidecar undo %s --to-template", next, p.Name)}, nil
}

func toTemplate(p *v1alpha1.SidecarPolicy) (Outcome, error) {
	if p.Spec.Rollout.Revision == "" {
		return Outcome{}, fmt.Errorf("policy %s rolls out its template already: %s", p.Name, Standing(p))
	}
	p.Spec.Rollout.Revision = ""
	return Outcome{"policy " + p.Name + " rolls out its template again", watchIt(p)}, nil
}

// wanted is the name of the revision to go back to.
func wanted(r Request) (string, error) {
	if r.To != "" {
		found, err := Find(r.Revisions, r.To)
		if err != nil {
			return "", fmt.Errorf("policy %s %w", r.Policy.Name, err)
		}
		return found.Hash, nil
	}
	status := &r.Policy.Status
	if rolling(r.Policy) && status.StableRevision != "" {
		return status.StableRevision, nil
	}
	if before := Before(r.Revisions, status.TargetRevision); before != nil {
		return before.Hash, nil
	}
	return "", fmt.Errorf("policy %s has no revision before %s: %s", r.Policy.Name, status.TargetRevision, known(r.Revisions))
}

// Before is the newest revision that is older than the one of that name; nil where there is none.
func Before(revisions []revision.Revision, name string) *revision.Revision {
	current := revision.Get(revisions, name)
	var before *revision.Revision
	for i := range revisions {
		r := &revisions[i]
		if current != nil && r.Number < current.Number && (before == nil || r.Number > before.Number) {
			before = r
		}
	}
	return before
}

// Find is the revision of that name or number, or the only one whose name begins so. The error
// names those that there are.
func Find(revisions []revision.Revision, wanted string) (*revision.Revision, error) {
	if exact := revision.Get(revisions, wanted); exact != nil {
		return exact, nil
	}
	var found []*revision.Revision
	for i := range revisions {
		if strconv.FormatInt(revisions[i].Number, 10) == wanted {
			return &revisions[i], nil
		}
		if strings.HasPrefix(revisions[i].Hash, wanted) {
			found = append(found, &revisions[i])
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	return nil, fmt.Errorf("has no revision %q: %s", wanted, known(revisions))
}

// known names the revisions, the newest first.
func known(revisions []revision.Revision) string {
	if len(revisions) == 0 {
		return "it has none yet"
	}
	sorted := slices.SortedFunc(slices.Values(revisions), func(a, b revision.Revision) int { return int(b.Number - a.Number) })
	names := make([]string, len(sorted))
	for i, r := range sorted {
		names[i] = fmt.Sprintf("%s (number %d)", r.Hash, r.Number)
	}
	return "write one of " + strings.Join(names, ", ")
}
