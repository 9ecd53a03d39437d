package render

import (
	"fmt"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// Difference is what two revisions differ in.
type Difference struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Change is the mildest way from one to the other: None, InPlace or Recreate.
	Change revision.Change `json:"change"`
	// Summary names the fields.
	Summary string `json:"summary,omitempty"`
	// Unified is the unified diff of their YAML; empty where nothing differs.
	Unified string `json:"unified,omitempty"`
}

// DifferenceOf compares two revisions.
func DifferenceOf(from, to *revision.Revision) (Difference, error) {
	compared := revision.Compare(&from.Template, &to.Template)
	d := Difference{From: from.Hash, To: to.Hash, Change: compared.Change(), Summary: compared.String()}
	before, err := yaml.Marshal(from.Template)
	if err != nil {
		return d, err
	}
	after, err := yaml.Marshal(to.Template)
	if err != nil {
		return d, err
	}
	d.Unified, err = difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: lines(before), FromFile: title(from),
		B: lines(after), ToFile: title(to), Context: 3,
	})
	return d, err
}

// lines are those of a YAML document, without an empty one at its end.
func lines(document []byte) []string {
	return difflib.SplitLines(strings.TrimSuffix(string(document), "\n"))
}

func title(r *revision.Revision) string {
	return fmt.Sprintf("revision %s (number %d)", r.Hash, r.Number)
}

// Diff is the difference for people.
func Diff(d Difference) string {
	if d.Unified == "" {
		return fmt.Sprintf("Revisions %s and %s have the same template.\n", d.From, d.To)
	}
	return d.Unified + "\n" + way(d)
}

// way says how pods get from one to the other.
func way(d Difference) string {
	switch d.Change {
	case revision.ChangeInPlace:
		return "Running pods get it in place: " + d.Summary + ".\n"
	case revision.ChangeRecreate:
		return "Running pods can't get all of it: " + d.Summary + ".\n"
	}
	return "Nothing of it changes what runs, but for a restart where restartedAt is later.\n"
}
