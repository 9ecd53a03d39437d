package revision

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/resources"
)

// Change is the mildest way from one revision to another.
type Change string

// The ways from one revision to another, the mildest first.
const (
	// ChangeNone: the revisions mean the same.
	ChangeNone Change = "None"
	// ChangeInPlace: only images and resources differ, which the kubelet changes in a running pod.
	ChangeInPlace Change = "InPlace"
	// ChangeRecreate: something differs that is fixed when a pod is created.
	ChangeRecreate Change = "Recreate"
)

// Difference is what two revisions differ in.
type Difference struct {
	// Images names the sidecars, in order, of which the image differs.
	Images []string
	// Resources names the sidecars, in order, of which only quantities of cpu and memory differ
	// in the resources. Whether a pod can take them in place depends on the pod too.
	Resources []string
	// Fixed names the fields, sorted, that can't be changed in a running pod, like
	// "sidecars[log-agent].env" or "volumes[logs]".
	Fixed []string
}

// Change is the mildest way to get over the difference.
func (d Difference) Change() Change {
	switch {
	case len(d.Fixed) > 0:
		return ChangeRecreate
	case len(d.Images)+len(d.Resources) > 0:
		return ChangeInPlace
	}
	return ChangeNone
}

// String says in words what differs.
func (d Difference) String() string {
	var parts []string
	if len(d.Fixed) > 0 {
		parts = append(parts, "needs a new pod: "+strings.Join(d.Fixed, ", "))
	}
	if len(d.Images) > 0 {
		parts = append(parts, "image of "+strings.Join(d.Images, ", "))
	}
	if len(d.Resources) > 0 {
		parts = append(parts, "resources of "+strings.Join(d.Resources, ", "))
	}
	return strings.Join(parts, "; ")
}

// Compare tells what differs between two templates.
func Compare(from, to *v1alpha1.SidecarTemplate) Difference {
	var d Difference
	d.compareSidecars(from.Sidecars, to.Sidecars)
	d.compareInitContainers(from.InitContainers, to.InitContainers)
	if from.ShareProcessNamespace != to.ShareProcessNamespace {
		d.Fixed = append(d.Fixed, "shareProcessNamespace")
	}
	d.compareKeyed("appContainers", keyed(from.AppContainers, appContainerKey), keyed(to.AppContainers, appContainerKey))
	d.compareKeyed("volumes", objects(from.Volumes), objects(to.Volumes))
	d.compareKeyed("imagePullSecrets", objects(from.ImagePullSecrets), objects(to.ImagePullSecrets))
	d.compareKeyed("metadata", fields(from.Metadata), fields(to.Metadata))
	slices.Sort(d.Fixed)
	return d
}

func (d *Difference) compareSidecars(from, to []v1alpha1.Sidecar) {
	before, after := keyed(from, sidecarName), keyed(to, sidecarName)
	d.compareNames("sidecars", before, after)
	if !slices.Equal(commonNames(from, sidecarName, after), commonNames(to, sidecarName, before)) {
		d.Fixed = append(d.Fixed, "sidecars (order)")
	}
	for _, sidecar := range to {
		old, ok := before[sidecar.Name].(v1alpha1.Sidecar)
		if !ok {
			continue
		}
		if old.Image != sidecar.Image {
			d.Images = append(d.Images, sidecar.Name)
		}
		old.Image = sidecar.Image
		if resources.Resizable(old.Resources, sidecar.Resources) {
			if !resources.Equal(old.Resources, sidecar.Resources) {
				d.Resources = append(d.Resources, sidecar.Name)
			}
			old.Resources = sidecar.Resources
		}
		if !equality.Semantic.DeepEqual(old, sidecar) {
			d.compareFields("sidecars["+sidecar.Name+"]", old, sidecar)
		}
	}
}

// compareInitContainers: they have run when a pod is there, so that also a new image needs a new pod.
func (d *Difference) compareInitContainers(from, to []v1alpha1.InitContainer) {
	before, after := keyed(from, initContainerName), keyed(to, initContainerName)
	d.compareNames("initContainers", before, after)
	if !slices.Equal(commonNames(from, initContainerName, after), commonNames(to, initContainerName, before)) {
		d.Fixed = append(d.Fixed, "initContainers (order)")
	}
	for _, c := range to {
		old, ok := before[c.Name]
		if ok && !equality.Semantic.DeepEqual(old, any(c)) {
			d.compareFields("initContainers["+c.Name+"]", old, c)
		}
	}
}

// compareNames notes the entries that only one side has.
func (d *Difference) compareNames(list string, before, after map[string]any) {
	for name := range before {
		if _, ok := after[name]; !ok {
			d.Fixed = append(d.Fixed, fmt.Sprintf("%s[%s] (removed)", list, name))
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			d.Fixed = append(d.Fixed, fmt.Sprintf("%s[%s] (added)", list, name))
		}
	}
}

func (d *Difference) compareKeyed(list string, before, after map[string]any) {
	d.compareNames(list, before, after)
	for name, old := range before {
		current, ok := after[name]
		if ok && !equality.Semantic.DeepEqual(old, current) {
			d.Fixed = append(d.Fixed, fmt.Sprintf("%s[%s]", list, name))
		}
	}
}

// compareFields notes the top-level fields that differ between two values.
func (d *Difference) compareFields(path string, from, to any) {
	before, after := fields(from), fields(to)
	names := maps.Clone(before)
	maps.Copy(names, after)
	for name := range names {
		if !equality.Semantic.DeepEqual(before[name], after[name]) {
			d.Fixed = append(d.Fixed, path+"."+name)
		}
	}
}

func sidecarName(s v1alpha1.Sidecar) string             { return s.Name }
func initContainerName(c v1alpha1.InitContainer) string { return c.Name }
func appContainerKey(a v1alpha1.AppContainer) string    { return a.Selector }

func keyed[T any](list []T, key func(T) string) map[string]any {
	m := make(map[string]any, len(list))
	for _, item := range list {
		m[key(item)] = item
	}
	return m
}

// objects keys a list by the name of its entries.
func objects[T any](list []T) map[string]any {
	return keyed(list, func(item T) string { return fmt.Sprint(fields(item)["name"]) })
}

// fields are the top-level JSON fields of a value.
func fields(value any) map[string]any {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err) // API types always marshal
	}
	m := map[string]any{}
	if err := json.Unmarshal(data, &m); err != nil {
		panic(err)
	}
	return m
}

// commonNames are the names of the entries, in order, that are also in the other set.
func commonNames[T any](list []T, name func(T) string, other map[string]any) []string {
	var names []string
	for _, item := range list {
		if _, ok := other[name(item)]; ok {
			names = append(names, name(item))
		}
	}
	return names
}
