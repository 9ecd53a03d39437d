package v1alpha1

import (
	"sigs.k8s.io/json"
)

// UnmarshalJSON reads a template, or notes in Unreadable why it can't be. The schema of
// Kubernetes' own types takes values that their Go types don't (a quantity of
// "1e1.5", a probe's port of 99999999999). As an error, one such policy would fail the list of
// all of them, and so blind the operator to every policy of the cluster.
func (t *SidecarTemplate) UnmarshalJSON(data []byte) error {
	type plain SidecarTemplate
	var p plain
	if err := json.UnmarshalCaseSensitivePreserveInts(data, &p); err != nil {
		*t = SidecarTemplate{Unreadable: err.Error()}
		return nil
	}
	*t = SidecarTemplate(p)
	return nil
}
