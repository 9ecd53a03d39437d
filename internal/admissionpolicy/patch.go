package admissionpolicy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// compileRevision writes the JSON patch that adds a revision to a pod, or nothing where they clash.
func (c *compiler) compileRevision(r *revision.Revision) (string, error) {
	out := render(r)
	clashes := c.define(out.variable("clashes"), c.clashes(out))
	p := &patch{compiler: c, rendered: out, made: map[string]bool{"containers": true}}
	p.addMap("/metadata/labels", "variables.labels", out.labels(c.policy))
	p.addMap("/metadata/annotations", "variables.annotations", out.annotations(c.policy))
	p.addToApp()
	p.insert("initContainers", "variables.early", out.early)
	p.insert("initContainers", fmt.Sprintf("((variables.late.size() > 0 ? variables.late[0] : variables.initContainers.size()) + %d)", len(out.early)), out.late)
	p.insert("containers", "(variables.beside.size() > 0 ? variables.beside[0] : variables.containers.size())", out.beside)
	for _, v := range out.template.Volumes {
		p.addTo("volumes", p.value(v), "")
	}
	for _, secret := range out.template.ImagePullSecrets {
		p.addTo("imagePullSecrets", p.value(secret), lacks("imagePullSecrets", "name", secret.Name))
	}
	if gate := v1alpha1.DrainCondition(c.policy); c.drain {
		p.addTo("readinessGates", p.value(corev1.PodReadinessGate{ConditionType: gate}), lacks("readinessGates", "conditionType", string(gate)))
	}
	if out.template.ShareProcessNamespace {
		p.part("[" + operation("/spec/shareProcessNamespace", "true") + "]")
	}
	return clashes + " ? [] : (" + strings.Join(p.parts, " + ") + ")", p.err
}

func render(r *revision.Revision) *rendered {
	out := &rendered{revision: r.Hash, template: &r.Template}
	record := v1alpha1.InjectionRecord{Revision: r.Hash}
	place := func(container corev1.Container, order v1alpha1.InitOrder) {
		if order == v1alpha1.OrderAfter {
			out.late = append(out.late, container)
			return
		}
		out.early = append(out.early, container)
	}
	for _, c := range r.Template.InitContainers {
		record.InitContainers = append(record.InitContainers, c.Name)
		place(c.Container, c.Order)
	}
	for _, s := range r.Template.Sidecars {
		record.Sidecars = append(record.Sidecars, s.Name)
		if s.Mode == v1alpha1.ModeContainer {
			out.beside = append(out.beside, s.Container)
			continue
		}
		s.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		place(s.Container, s.Order)
	}
	record.Note(&r.Template)
	out.record = record.Encode()
	return out
}

// variable is the name of a variable of one revision.
func (r *rendered) variable(name string) string { return "r" + r.revision + "_" + name }

func (r *rendered) labels(policy string) map[string]string {
	return with(r.template.Metadata.Labels, v1alpha1.RevisionLabel(policy), r.revision)
}

func (r *rendered) annotations(policy string) map[string]string {
	return with(r.template.Metadata.Annotations, v1alpha1.InjectedAnnotation(policy), r.record)
}

func with(m map[string]string, key, value string) map[string]string {
	all := map[string]string{key: value}
	maps.Copy(all, m)
	return all
}

// patch gathers lists of JSON patch operations, as expressions.
type patch struct {
	*compiler
	*rendered
	parts []string
	// made are the lists that are there.
	made map[string]bool
	// defined counts the variables of containers.
	defined int
	err     error
}

func (p *patch) part(operations string) { p.parts = append(p.parts, operations) }

// value writes a constant.
func (p *patch) value(v any) string {
	text, err := literal(v)
	if err != nil && p.err == nil {
		p.err = err
	}
	return text
}

func operation(path, value string) string { return computed(quote(path), value) }

// computed is an operation of which the path is an expression.
func computed(path, value string) string {
	return fmt.Sprintf(`JSONPatch{op: "add", path: %s, value: %s}`, path, value)
}

// addMap adds keys to a map, which is made where it is not there.
func (p *patch) addMap(path, own string, added map[string]string) {
	var each []string
	for _, key := range slices.Sorted(maps.Keys(added)) {
		each = append(each, operation(path+"/"+escape.Replace(key), quote(added[key])))
	}
	p.part(fmt.Sprintf("(%s.size() == 0 ? [%s] : [])", own, operation(path, "{}")))
	p.part("[" + strings.Join(each, ", ") + "]")
}

// escape writes a key as a reference token of RFC 6901.
var escape = strings.NewReplacer("~", "~0", "/", "~1")

// addToApp adds to the app's containers what the entries give them, in their order.
func (p *patch) addToApp() {
	entries := p.template.AppContainers
	var mounts, env []string // when a container gets some
	for i := range entries {
		if len(entries[i].VolumeMounts) > 0 {
			mounts = append(mounts, means(&entries[i]))
		}
		if len(entries[i].Env) > 0 {
			env = append(env, means(&entries[i]))
		}
	}
	p.makeLists("volumeMounts", mounts)
	p.makeLists("env", env)
	for i := range entries {
		for _, m := range entries[i].VolumeMounts {
			p.addToContainers(&entries[i], "volumeMounts", p.value(m))
		}
		for _, e := range entries[i].Env {
			p.addToContainers(&entries[i], "env", p.value(e))
		}
	}
}

// makeLists gives the containers that get something a list to put it in.
func (p *patch) makeLists(field string, when []string) {
	if len(when) == 0 {
		return
	}
	p.part(fmt.Sprintf("variables.containers.transformList(i, c, !has(c.%s) && %s, %s)",
		field, one(when...), computed(fmt.Sprintf(`"/spec/containers/" + string(i) + "/%s"`, field), "[]")))
}

func (p *patch) addToContainers(entry *v1alpha1.AppContainer, field, value string) {
	p.part(fmt.Sprintf("variables.containers.transformList(i, c, %s, %s)",
		means(entry), computed(fmt.Sprintf(`"/spec/containers/" + string(i) + "/%s/-"`, field), value)))
}

// insert puts containers at a place in a list, one after the other.
func (p *patch) insert(field, at string, containers []corev1.Container) {
	if len(containers) == 0 {
		return
	}
	p.makeList(field)
	var each []string
	for i := range containers {
		value := p.define(p.variable(fmt.Sprintf("container%d", p.defined)), p.value(containers[i]))
		p.defined++
		each = append(each, computed(fmt.Sprintf(`"/spec/%s/" + string(%s + %d)`, field, at, i), value))
	}
	p.part("[" + strings.Join(each, ", ") + "]")
}

// addTo puts something at the end of a list where a condition holds.
func (p *patch) addTo(field, value, condition string) {
	p.makeList(field)
	added := "[" + operation("/spec/"+field+"/-", value) + "]"
	if condition != "" {
		added = fmt.Sprintf("(%s ? %s : [])", condition, added)
	}
	p.part(added)
}

// makeList makes a list where it is not there.
func (p *patch) makeList(field string) {
	if !p.made[field] {
		p.made[field] = true
		p.part(fmt.Sprintf("(has(object.spec.%s) ? [] : [%s])", field, operation("/spec/"+field, "[]")))
	}
}

// lacks writes that no entry of a list has a value.
func lacks(field, key, value string) string {
	return fmt.Sprintf(`!object.spec.?%s.orValue([]).exists(entry, entry.?%s.orValue("") == %s)`, field, key, quote(value))
}
