package admissionpolicy

import (
	"fmt"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

const instead = "engine AdmissionPolicy can't do that: remove it, or write spec.injection.engine: Webhook"

// Unsupported names the parts of a template that can't be said in CEL, and says what to write instead.
// Where is the path of the template, for the messages.
func Unsupported(template *v1alpha1.SidecarTemplate, where string) []string {
	var problems []string
	refuse := func(path, field string, present bool) {
		if present {
			problems = append(problems, fmt.Sprintf("%s.%s: %s", path, field, instead))
		}
	}
	fromApp := func(path string, from *v1alpha1.FromApp) {
		refuse(path, "shareVolumeMounts", from.ShareVolumeMounts != nil)
		refuse(path, "envFromApp", len(from.EnvFromApp) > 0)
		refuse(path, "resourcesFromApp", from.ResourcesFromApp != nil)
	}
	for i := range template.Sidecars {
		fromApp(fmt.Sprintf("%s.sidecars[%s]", where, template.Sidecars[i].Name), &template.Sidecars[i].FromApp)
	}
	for i := range template.InitContainers {
		fromApp(fmt.Sprintf("%s.initContainers[%s]", where, template.InitContainers[i].Name), &template.InitContainers[i].FromApp)
	}
	return problems
}
