package admissionpolicy

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/podsecurity"
)

// rendered is what a revision adds to pods, as far as that does not depend on the pod.
type rendered struct {
	revision string
	template *v1alpha1.SidecarTemplate
	// early, late and beside are the containers that are added, as in inject.Additions.
	early, late, beside []corev1.Container
	record              string
}

func (r *rendered) added() []corev1.Container { return slices.Concat(r.early, r.late, r.beside) }

// clashes are the checks of internal/inject, in the same order, and those of internal/podsecurity and internal/limits: each writes when a pod clashes
// with what it would get. What a template says of itself is not asked again for each pod.
var clashes = []func(*compiler, *rendered) string{
	containerNames,
	volumeNames,
	volumesExist,
	mountPaths,
	nestedMounts,
	env,
	ports,
	metadata,
	podResources,
	hostPorts,
	devices,
	restartPolicy,
	processNamespace,
	system,
	annotationSize,
	othersAhead,
	podSecurity,
	namespaceLimits,
}

func (c *compiler) clashes(r *rendered) string {
	var terms []string
	for _, clash := range clashes {
		if term := clash(c, r); term != "" {
			terms = append(terms, term)
		}
	}
	return one(terms...)
}

func containerNames(_ *compiler, r *rendered) string {
	var names []string
	for _, c := range r.added() {
		names = append(names, c.Name)
	}
	return fmt.Sprintf("variables.names.exists(name, name in %s)", list(names))
}

func volumeNames(_ *compiler, r *rendered) string {
	if len(r.template.Volumes) == 0 {
		return ""
	}
	return fmt.Sprintf("variables.volumes.exists(v, v.name in %s)", list(brought(r.template)))
}

// brought are the names of the volumes that the template has.
func brought(t *v1alpha1.SidecarTemplate) []string {
	var names []string
	for _, v := range t.Volumes {
		names = append(names, v.Name)
	}
	return names
}

func volumesExist(_ *compiler, r *rendered) string {
	known := brought(r.template)
	var wanted []string
	for _, c := range r.added() {
		for _, m := range c.VolumeMounts {
			wanted = append(wanted, m.Name)
		}
		for _, d := range c.VolumeDevices {
			wanted = append(wanted, d.Name)
		}
	}
	var terms []string
	if missing := lacking(wanted, known); len(missing) > 0 {
		terms = append(terms, fmt.Sprintf("!%s.all(name, variables.volumes.exists(v, v.name == name))", list(missing)))
	}
	for _, entry := range r.template.AppContainers {
		wanted = nil
		for _, m := range entry.VolumeMounts {
			wanted = append(wanted, m.Name)
		}
		if missing := lacking(wanted, known); len(missing) > 0 {
			terms = append(terms, fmt.Sprintf("(variables.containers.exists(c, %s) && !%s.all(name, variables.volumes.exists(v, v.name == name)))", means(&entry), list(missing)))
		}
	}
	return anyOf(terms)
}

// anyOf is one(), and nothing for no terms.
func anyOf(terms []string) string {
	if len(terms) == 0 {
		return ""
	}
	return one(terms...)
}

// lacking are the wanted names that are not known, sorted.
func lacking(wanted, known []string) []string {
	missing := slices.DeleteFunc(slices.Clone(wanted), func(name string) bool { return slices.Contains(known, name) })
	slices.Sort(missing)
	return slices.Compact(missing)
}

// means says that an entry of appContainers means the container c.
func means(entry *v1alpha1.AppContainer) string {
	own := "!(c.name in variables.foreign)"
	if entry.Selector == "*" {
		return own
	}
	return all("c.name == "+quote(entry.Selector), own)
}

// mountPaths compares paths of the pod as internal/inject does: without what does not matter in them, and
// none that leads back up.
func mountPaths(_ *compiler, r *rendered) string {
	const used = "(c.?volumeMounts.orValue([]).map(m, m.mountPath) + c.?volumeDevices.orValue([]).map(d, d.devicePath))"
	const steps = `p.split("/")`
	return forEntries(r, func(entry *v1alpha1.AppContainer) string {
		var paths []string
		for _, m := range entry.VolumeMounts {
			paths = append(paths, path.Clean(m.MountPath))
		}
		if len(paths) == 0 {
			return ""
		}
		return fmt.Sprintf(`%[1]s.exists(p, ".." in %[2]s || ((p.startsWith("/") ? "/" : "") + %[2]s.filter(s, s != "" && s != ".").join("/")) in %[3]s)`, used, steps, list(paths))
	})
}

func env(_ *compiler, r *rendered) string {
	return forEntries(r, func(entry *v1alpha1.AppContainer) string {
		var names []string
		for _, e := range entry.Env {
			names = append(names, e.Name)
		}
		if len(names) == 0 {
			return ""
		}
		return fmt.Sprintf("c.?env.orValue([]).exists(e, e.name in %s)", list(names))
	})
}

func devices(_ *compiler, r *rendered) string {
	return forEntries(r, func(entry *v1alpha1.AppContainer) string {
		var names []string
		for _, m := range entry.VolumeMounts {
			names = append(names, m.Name)
		}
		if len(names) == 0 {
			return ""
		}
		return fmt.Sprintf("c.?volumeDevices.orValue([]).exists(d, d.name in %s)", list(names))
	})
}

// forEntries writes that a container of the app clashes with an entry that means it.
func forEntries(r *rendered, clash func(*v1alpha1.AppContainer) string) string {
	var terms []string
	for i := range r.template.AppContainers {
		entry := &r.template.AppContainers[i]
		if term := clash(entry); term != "" {
			terms = append(terms, fmt.Sprintf("variables.containers.exists(c, %s && %s)", means(entry), term))
		}
	}
	return anyOf(terms)
}

// ports compares ports in the pod's network with each other, and those of the host, as internal/inject does.
func ports(_ *compiler, r *rendered) string {
	inPod, onHost, everywhere, atAddress := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, c := range r.added() {
		for _, p := range c.Ports {
			protocol := cmp.Or(p.Protocol, corev1.ProtocolTCP)
			inPod[fmt.Sprintf("%d/%s", p.ContainerPort, protocol)] = true
			if p.HostPort == 0 {
				continue
			}
			port := fmt.Sprintf("%d/%s", p.HostPort, protocol)
			onHost[port] = true
			if inject.EveryAddress(p.HostIP) {
				everywhere[port] = true
			} else {
				atAddress[port+"/"+p.HostIP] = true
			}
		}
	}
	if len(inPod) == 0 {
		return ""
	}
	terms := []string{"(" + portAs("containerPort") + " in " + sorted(inPod) + ")"}
	if len(onHost) > 0 {
		terms = append(terms, fmt.Sprintf(`(p.?hostPort.orValue(0) != 0 && [p.?hostIP.orValue("")].exists(ip, %[1]s in (ip in %[2]s ? %[3]s : %[4]s) || (%[1]s + "/" + ip) in %[5]s))`,
			portAs("hostPort"), list(inject.EveryAddresses), sorted(onHost), sorted(everywhere), sorted(atAddress)))
	}
	return fmt.Sprintf("(variables.initContainers + variables.containers).exists(c, c.?ports.orValue([]).exists(p, %s))", one(terms...))
}

// portAs writes a field of the port p with its protocol.
func portAs(field string) string {
	return fmt.Sprintf(`(string(p.%s) + "/" + p.?protocol.orValue("TCP"))`, field)
}

func sorted(set map[string]bool) string { return list(slices.Sorted(maps.Keys(set))) }

func metadata(_ *compiler, r *rendered) string {
	var terms []string
	for _, m := range []struct {
		own   string
		added map[string]string
	}{{"variables.labels", r.template.Metadata.Labels}, {"variables.annotations", r.template.Metadata.Annotations}} {
		for _, key := range slices.Sorted(maps.Keys(m.added)) {
			terms = append(terms, fmt.Sprintf("%s[?%q].orValue(%[3]s) != %[3]s", m.own, key, quote(m.added[key])))
		}
	}
	return anyOf(terms)
}

func hostPorts(_ *compiler, r *rendered) string {
	maps := slices.ContainsFunc(r.added(), func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.HostPort != 0 && p.HostPort != p.ContainerPort })
	})
	return when(maps, "object.spec.?hostNetwork.orValue(false)")
}

func when(holds bool, term string) string {
	if !holds {
		return ""
	}
	return term
}

func restartPolicy(_ *compiler, r *rendered) string {
	restarts := slices.ContainsFunc(r.added(), func(c corev1.Container) bool {
		return slices.ContainsFunc(c.ResizePolicy, func(p corev1.ContainerResizePolicy) bool { return p.RestartPolicy != corev1.NotRequired })
	})
	return when(restarts, `object.spec.?restartPolicy.orValue("") == "Never"`)
}

func processNamespace(_ *compiler, r *rendered) string {
	return when(r.template.ShareProcessNamespace, `(!object.spec.?shareProcessNamespace.orValue(false) && `+
		`(has(object.spec.shareProcessNamespace) || object.spec.?hostPID.orValue(false) || object.spec.?os.?name.orValue("") == "windows"))`)
}

func system(_ *compiler, r *rendered) string {
	foreign := func(os corev1.OSName) bool {
		return slices.ContainsFunc(r.added(), func(c corev1.Container) bool { return inject.ForeignTo(os, c.SecurityContext) })
	}
	var terms []string
	if foreign(corev1.Windows) {
		terms = append(terms, `object.spec.?os.?name.orValue("") == "windows"`)
	}
	if foreign(corev1.Linux) {
		terms = append(terms, `object.spec.?os.?name.orValue("windows") != "windows"`)
	}
	return anyOf(terms)
}

// annotationSize counts bytes.
func annotationSize(c *compiler, r *rendered) string {
	added := r.annotations(c.policy)
	total := 0
	for key, value := range added {
		total += len(key) + len(value)
	}
	return fmt.Sprintf("variables.annotations.map(key, key in %s ? 0 : bytes(key).size() + bytes(variables.annotations[key]).size()).sum() > %d",
		list(slices.Sorted(maps.Keys(added))), inject.MaxAnnotations-total)
}

// podSecurity writes that the pod's namespace enforces a standard that the sidecars may break. Unlike internal/podsecurity
// for the webhook, it leaves alone what the pod says for all of its containers, and would allow more.
func podSecurity(_ *compiler, r *rendered) string {
	kept, every := podsecurity.KeptAlone(r.template)
	if every {
		return ""
	}
	return fmt.Sprintf("!(namespaceObject.metadata.?labels[?%q].orValue(%q) in %s)", podsecurity.EnforceLabel, podsecurity.Unenforced, list(kept))
}

// namespacesAtOnce keeps a list of namespaces below maxExpression.
const namespacesAtOnce = 1000

// namespaceLimits writes that the pod is in a namespace that refuses every pod with the sidecars. Expressions can't see LimitRanges
// and ResourceQuotas, so that those of the day are compiled.
func namespaceLimits(c *compiler, r *rendered) string {
	var refusing, terms []string
	for _, name := range slices.Sorted(maps.Keys(c.limits)) {
		if limits := c.limits[name]; limits.Alone(r.template) != nil {
			refusing = append(refusing, name)
		}
	}
	for part := range slices.Chunk(refusing, namespacesAtOnce) {
		terms = append(terms, "request.namespace in "+c.define(r.variable(fmt.Sprintf("refusing%d", len(terms))), list(part)))
	}
	return anyOf(terms)
}

// othersAhead leaves the pods of policies alone that bring the same, and whose names come first: the API server takes the
// MutatingAdmissionPolicies in any order, and those before webhooks.
func othersAhead(c *compiler, _ *rendered) string {
	var terms []string
	for _, pair := range c.ahead {
		terms = append(terms, all(matches(pair.Pods, "variables.labels"), matches(pair.Namespaces, "namespaceObject.metadata.?labels.orValue({})")))
	}
	return anyOf(terms)
}

// podResources compares what is asked for with resources of the pod as a whole.
func podResources(_ *compiler, r *rendered) string {
	names := map[corev1.ResourceName]bool{}
	for _, c := range r.added() {
		for name := range c.Resources.Requests {
			names[name] = true
		}
		for name := range c.Resources.Limits {
			names[name] = true
		}
	}
	var terms []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		terms = append(terms, r.exceeds(name)...)
	}
	if len(terms) == 0 {
		return ""
	}
	return all("has(object.spec.resources)", one(terms...))
}

// exceeds writes when the pod has less of a resource than would be asked for. The sums are those of
// internal/inject: a plain init container runs beside the native sidecars before it.
func (r *rendered) exceeds(name corev1.ResourceName) []string {
	const podLimit = "object.spec.resources.?limits[?%[1]q]"
	limit := fmt.Sprintf(podLimit, name)
	allowed := fmt.Sprintf("object.spec.resources.?requests[?%[1]q].or("+podLimit+")", name)
	var terms []string
	if most := biggest(r.added(), name); most != nil {
		terms = append(terms, fmt.Sprintf("(%s.hasValue() && quantity(%s.value()).isLessThan(quantity(%s)))", limit, limit, quote(most.String())))
	}
	if !slices.ContainsFunc(r.added(), func(c corev1.Container) bool { return number(inject.RequestOf(&c, name), name) > 0 }) {
		return terms
	}
	native, total := int64(0), int64(0)
	earlyPeak, latePeak := int64(0), int64(0)
	for _, part := range []struct {
		containers []corev1.Container
		peak       *int64
	}{{r.early, &earlyPeak}, {r.late, &latePeak}, {r.beside, nil}} {
		for _, c := range part.containers {
			amount := number(inject.RequestOf(&c, name), name)
			switch {
			case part.peak != nil && ptr.Deref(c.RestartPolicy, "") != corev1.ContainerRestartPolicyAlways:
				*part.peak = max(*part.peak, amount)
				continue
			case part.peak == &earlyPeak:
				native += amount
			}
			total += amount
		}
	}
	request := func(c string) string {
		return numberOf(fmt.Sprintf(`%[1]s.?resources.?requests[?%[2]q].or(%[1]s.?resources.?limits[?%[2]q]).orValue("0")`, c, name), name)
	}
	const isNative = `%s.?restartPolicy.orValue("") == "Always"`
	natives := "variables.initContainers.filter(c, " + fmt.Sprintf(isNative, "c") + ").map(c, " + request("c") + ").sum()"
	before := "variables.initContainers.slice(0, i).filter(b, " + fmt.Sprintf(isNative, "b") + ").map(b, " + request("b") + ").sum()"
	sums := []string{
		fmt.Sprint(earlyPeak),
		fmt.Sprintf("%d + %s", native+latePeak, natives),
		fmt.Sprintf("%d + %s + variables.containers.map(c, %s).sum()", total, natives, request("c")),
	}
	var over []string
	for _, sum := range sums {
		over = append(over, sum+" > allowed")
	}
	over = append(over, fmt.Sprintf("variables.initContainers.exists(i, c, !(%s) && %d + %s + %s > allowed)", fmt.Sprintf(isNative, "c"), native, before, request("c")))
	return append(terms, fmt.Sprintf("(%s.hasValue() && [%s].exists(allowed, %s))", allowed, numberOf(allowed+".value()", name), strings.Join(over, " || ")))
}

// biggest is the biggest limit of a resource; nil where there is none.
func biggest(containers []corev1.Container, name corev1.ResourceName) *resource.Quantity {
	var most *resource.Quantity
	for _, c := range containers {
		if limit, ok := c.Resources.Limits[name]; ok && (most == nil || limit.Cmp(*most) > 0) {
			most = &limit
		}
	}
	return most
}

// number is a quantity as it is summed up: CEL has no sum of quantities. numberOf is the same in CEL.
func number(q resource.Quantity, name corev1.ResourceName) int64 {
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

func numberOf(text string, name corev1.ResourceName) string {
	if name == corev1.ResourceCPU {
		return fmt.Sprintf("int(quantity(%s).asApproximateFloat() * 1000.0 + 0.5)", text)
	}
	return fmt.Sprintf("[quantity(%s)].map(q, q.isInteger() ? q.asInteger() : int(q.asApproximateFloat()) + 1)[0]", text)
}
