package admissionpolicy

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// What is asked of a pod, in words that conditions (which can't use variables) and variables share.
const (
	podAnnotations    = "object.metadata.?annotations.orValue({})"
	podInitContainers = "object.spec.?initContainers.orValue([])"
	// recordedList is the text of a list of names in an injection record, recordedNames the names.
	recordedList  = `%s.find(r'"%s"\s*:\s*\[[^\]]*\]')`
	recordedNames = `(%s).findAll(r'"[^"]+"\s*[,\]]').map(name, name.split('"')[1])`
)

// filledVolume and sealedVolume say of a volume v which kind it is to internal/inject, where there is none that is writable.
var (
	filledVolume = anyHolds(inject.FilledSources, "has(v.%s)")
	sealedVolume = "has(v.image) || " + anyHolds(inject.SealedSources, "v.?%s.?readOnly.orValue(false)")
)

var notMirror = "!(" + quote(corev1.MirrorPodAnnotationKey) + " in " + podAnnotations + ")"

// namesIn are the names of the containers that a record, an expression, has.
func namesIn(record string) string {
	return fmt.Sprintf(recordedNames, fmt.Sprintf(recordedList, record, "sidecars")+" + "+fmt.Sprintf(recordedList, record, "initContainers"))
}

// lateIn are those of namesIn that start after the app's init containers.
func lateIn(record string) string {
	return fmt.Sprintf(recordedNames, fmt.Sprintf(recordedList, record, "after"))
}

// injected says that a pod has the policy's record, and the containers that the record names.
func injected(policy string) string {
	key := quote(v1alpha1.InjectedAnnotation(policy))
	names := namesIn(podAnnotations + "[" + key + "]")
	return fmt.Sprintf(`(%s in %s && [%s].all(names, names.size() > 0 && names.all(name, (%s + object.spec.containers).exists(c, c.name == name))))`,
		key, podAnnotations, names, podInitContainers)
}

// defineCommon defines what the expressions of all revisions ask of the pod.
func (c *compiler) defineCommon(births *rollout.Births) {
	c.define("labels", "object.metadata.?labels.orValue({})")
	c.define("annotations", podAnnotations)
	c.define("initContainers", podInitContainers)
	c.define("containers", "object.spec.containers")
	c.define("volumes", "object.spec.?volumes.orValue([])")
	c.define("filled", "variables.volumes.filter(v, "+filledVolume+").map(v, v.name)")
	c.define("sealed", "variables.volumes.filter(v, "+sealedVolume+").map(v, v.name)")
	c.define("names", "(variables.initContainers + variables.containers).map(c, c.name)")
	c.define("others", fmt.Sprintf("variables.labels.filter(key, key.startsWith(%[1]q)).map(key, key.substring(%[2]d))", v1alpha1.RevisionLabelPrefix, len(v1alpha1.RevisionLabelPrefix)))
	record := fmt.Sprintf("variables.annotations[?%q + policy].orValue('')", v1alpha1.InjectedAnnotationPrefix)
	// of are the names in the records of policies whose names come before or after this one's. Containers stand by the names
	// of their policies, in whatever order the API server injects.
	of := func(comparison string, names func(string) string) string {
		return fmt.Sprintf("variables.others.filter(policy, policy %s %q).map(policy, %s).flatten()", comparison, c.policy, names(record))
	}
	c.define("foreign", "variables.others.map(policy, "+namesIn(record)+").flatten()")
	c.define("lateBefore", of("<", lateIn))
	c.define("earlyBefore", of("<", namesIn)+".filter(name, !(name in variables.lateBefore))")
	c.define("after", of(">", namesIn))
	c.define("lateAfter", of(">", lateIn))
	c.define("early", "variables.initContainers.transformList(i, c, variables.initContainers.slice(0, i + 1).all(ahead, ahead.name in variables.earlyBefore), i).size()")
	c.define("late", "variables.initContainers.transformList(i, c, i >= variables.early && c.name in variables.lateAfter, i)")
	c.define("beside", "variables.containers.transformList(i, c, c.name in variables.after, i)")
	if births.Reached != "" {
		c.define("reached", reached(births))
	}
}

// reached says that the roll-out has reached the pod.
func reached(births *rollout.Births) string {
	var ways []string
	for _, step := range births.Steps {
		way := matches(step.PodSelector, "variables.labels")
		if step.NamespaceSelector != nil {
			way = all(way, matches(step.NamespaceSelector, "namespaceObject.metadata.?labels.orValue({})"))
		}
		ways = append(ways, way)
	}
	if len(births.Owners) > 0 {
		ways = append(ways, fmt.Sprintf("object.metadata.?ownerReferences.orValue([]).exists(owner, owner.?controller.orValue(false) && owner.uid in %s)", list(births.Owners)))
	}
	return one(ways...)
}

// anyHolds writes that a condition holds for one of the fields.
func anyHolds(fields []string, condition string) string {
	terms := make([]string, len(fields))
	for i, field := range fields {
		terms[i] = fmt.Sprintf(condition, field)
	}
	return strings.Join(terms, " || ")
}
