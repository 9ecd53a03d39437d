package render

import (
	"fmt"
	"strings"
	"time"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// Revision is one line of a history.
type Revision struct {
	Name    string    `json:"name"`
	Number  int64     `json:"number"`
	Created time.Time `json:"created"`
	// Roles are what it is to the policy: stable, target, failed.
	Roles []string `json:"roles,omitempty"`
	// Pods is how many carry it.
	Pods int `json:"pods"`
	// Images are those of its sidecars.
	Images []string `json:"images"`
	// Change says what differs from the revision before.
	Change string `json:"change,omitempty"`
}

// HistoryOf tells the revisions of a policy, which come the newest first, with when they were made and
// by how many pods each is carried. Pods may carry a revision that is gone.
func HistoryOf(p *v1alpha1.SidecarPolicy, revisions []revision.Revision, created []time.Time, pods map[string]int) []Revision {
	list := make([]Revision, len(revisions))
	for i := range revisions {
		r := &revisions[i]
		list[i] = Revision{Name: r.Hash, Number: r.Number, Created: created[i], Roles: roles(p, r.Hash), Pods: pods[r.Hash]}
		for _, sidecar := range r.Template.Sidecars {
			list[i].Images = append(list[i].Images, sidecar.Image)
		}
		if i+1 < len(revisions) {
			list[i].Change = changed(&revisions[i+1].Template, &r.Template)
		}
	}
	return list
}

func changed(from, to *v1alpha1.SidecarTemplate) string {
	if text := revision.Compare(from, to).String(); text != "" {
		return text
	}
	return "restart"
}

func roles(p *v1alpha1.SidecarPolicy, name string) []string {
	var list []string
	for _, role := range []struct{ name, holder string }{
		{"target", p.Status.TargetRevision}, {"stable", p.Status.StableRevision}, {"failed", p.Status.FailedRevision},
	} {
		if role.holder == name {
			list = append(list, role.name)
		}
	}
	return list
}

// History is the table of a policy's revisions.
func History(list []Revision, wide bool, now time.Time) string {
	header := []string{"REVISION", "NUMBER", "AGE", "STATE", "PODS", "IMAGES"}
	if wide {
		header = append(header, "CHANGE")
	}
	var rows [][]string
	for _, r := range list {
		row := []string{r.Name, fmt.Sprint(r.Number), age(r.Created, now), or(strings.Join(r.Roles, ",")), fmt.Sprint(r.Pods), strings.Join(r.Images, ",")}
		if wide {
			row = append(row, or(r.Change))
		}
		rows = append(rows, row)
	}
	return table(header, rows)
}
