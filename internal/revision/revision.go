// Package revision names the templates of a policy, keeps them as
// ControllerRevisions and tells two of them apart. It holds no client.
package revision

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// hashVersion names the way in which Hash works. It is part of what is hashed
// and stands on each ControllerRevision. Templates are matched by content (see Find), so
// another version here renames future revisions and rolls nothing.
const hashVersion = "1"

// Revision is one template of a policy under its name.
type Revision struct {
	// Hash is the name of the template: what pod labels and status show.
	Hash string
	// Number counts a policy's revisions, the newest has the highest.
	Number int64
	// Template is the normalized template.
	Template v1alpha1.SidecarTemplate
}

// Hash names a template: ten hexadecimal digits that depend on its normalized
// content alone.
func Hash(template v1alpha1.SidecarTemplate) string {
	data, err := json.Marshal(Normalize(template))
	if err != nil {
		panic(err) // API types always marshal
	}
	sum := sha256.Sum256(append([]byte("v"+hashVersion+"\n"), data...))
	return hex.EncodeToString(sum[:])[:10]
}

// Normalize fills in what a template means where it says nothing, so that a
// template stored before a field got its default equals the same one stored after.
func Normalize(template v1alpha1.SidecarTemplate) v1alpha1.SidecarTemplate {
	normal := *template.DeepCopy()
	for i := range normal.Sidecars {
		if normal.Sidecars[i].Mode == "" {
			normal.Sidecars[i].Mode = v1alpha1.ModeNative
		}
		normal.Sidecars[i].Order = normalOrder(normal.Sidecars[i].Order)
	}
	for i := range normal.InitContainers {
		normal.InitContainers[i].Order = normalOrder(normal.InitContainers[i].Order)
	}
	return normal
}

// normalOrder leaves the default unsaid: templates that were stored before there was an order keep
// their hash.
func normalOrder(order v1alpha1.InitOrder) v1alpha1.InitOrder {
	if order == v1alpha1.OrderBefore {
		return ""
	}
	return order
}

// Find returns the revision that has this template, or nil. Templates are compared
// by what they mean, not by hash: a revision named by an older operator is found.
func Find(revisions []Revision, template v1alpha1.SidecarTemplate) *Revision {
	normal := Normalize(template)
	for i := range revisions {
		if equality.Semantic.DeepEqual(revisions[i].Template, normal) {
			return &revisions[i]
		}
	}
	return nil
}

// Get returns the revision of that name, or nil.
func Get(revisions []Revision, hash string) *Revision {
	i := slices.IndexFunc(revisions, func(r Revision) bool { return r.Hash == hash })
	if i < 0 {
		return nil
	}
	return &revisions[i]
}

// Next is the revision that a template becomes when none of the existing ones has it.
func Next(revisions []Revision, template v1alpha1.SidecarTemplate) Revision {
	next := Revision{Hash: Hash(template), Template: Normalize(template)}
	for _, r := range revisions {
		next.Number = max(next.Number, r.Number)
	}
	next.Number++
	return next
}

// ObjectName is the name of the ControllerRevision of a policy's revision.
func ObjectName(policy, hash string) string { return policy + "-" + hash }

// Encode makes the ControllerRevision of a policy's revision in a namespace.
func Encode(policy, namespace string, r Revision) (*appsv1.ControllerRevision, error) {
	data, err := json.Marshal(r.Template)
	if err != nil {
		return nil, fmt.Errorf("encoding revision %s of policy %s: %w", r.Hash, policy, err)
	}
	return &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Name:      ObjectName(policy, r.Hash),
			Namespace: namespace,
			Labels: map[string]string{
				v1alpha1.PolicyLabel:           policy,
				v1alpha1.RevisionLabel(policy): r.Hash,
				v1alpha1.HashVersionLabel:      hashVersion,
			},
		},
		Data:     runtime.RawExtension{Raw: data},
		Revision: r.Number,
	}, nil
}

// Decode reads what Encode made.
func Decode(object *appsv1.ControllerRevision) (Revision, error) {
	policy := object.Labels[v1alpha1.PolicyLabel]
	r := Revision{Hash: object.Labels[v1alpha1.RevisionLabel(policy)], Number: object.Revision}
	if r.Hash == "" {
		return r, fmt.Errorf("ControllerRevision %s has no label %s", object.Name, v1alpha1.RevisionLabel(policy))
	}
	if err := json.Unmarshal(object.Data.Raw, &r.Template); err != nil {
		return r, fmt.Errorf("decoding ControllerRevision %s: %w", object.Name, err)
	}
	if r.Template.Unreadable != "" {
		return r, fmt.Errorf("decoding ControllerRevision %s: %s", object.Name, r.Template.Unreadable)
	}
	r.Template = Normalize(r.Template)
	return r, nil
}

// Expired names the revisions that the history need not keep: all but the
// newest limit ones of those that are not in use.
func Expired(revisions []Revision, inUse map[string]bool, limit int) []Revision {
	unused := slices.DeleteFunc(slices.Clone(revisions), func(r Revision) bool { return inUse[r.Hash] })
	if len(unused) <= limit {
		return nil
	}
	slices.SortFunc(unused, func(a, b Revision) int { return int(b.Number - a.Number) })
	return unused[limit:]
}
