package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// clusterServiceVersion completes what people wrote by what follows from the manifests.
func (p *parts) clusterServiceVersion(r rights, icon []byte) (*unstructured.Unstructured, error) {
	images := p.images()
	version, err := versionOf(images)
	if err != nil {
		return nil, err
	}
	csv := p.base.DeepCopy()
	csv.SetName(fmt.Sprintf("%s.v%s", p.base.GetName(), version))
	// A placeholder: OLM puts it into the namespace of the subscription.
	csv.SetNamespace("placeholder")
	if err := p.annotate(csv, images); err != nil {
		return nil, err
	}
	spec, ok := csv.Object["spec"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s %s has no spec", kindCSV, p.base.GetName())
	}
	spec["version"] = version
	spec["icon"] = []any{map[string]any{"base64data": base64.StdEncoding.EncodeToString(icon), "mediatype": "image/svg+xml"}}
	spec["relatedImages"] = related(images)
	spec["install"] = map[string]any{"strategy": "deployment", "spec": map[string]any{
		"clusterPermissions": r.cluster,
		"deployments":        []any{p.deploymentSpec()},
	}}
	return csv, p.checkDescriptors(csv)
}

func (p *parts) deploymentSpec() map[string]any {
	d := map[string]any{"name": p.deployment.GetName(), "spec": p.deployment.Object["spec"]}
	if labels, found, _ := unstructured.NestedMap(p.deployment.Object, "metadata", "labels"); found {
		d["label"] = labels
	}
	return d
}

// container is one of the Deployment's, by name and image.
type container struct{ name, image string }

func (p *parts) images() []container {
	list, _, _ := unstructured.NestedSlice(p.deployment.Object, "spec", "template", "spec", "containers")
	var containers []container
	for _, item := range list {
		fields, _ := item.(map[string]any)
		name, _ := fields["name"].(string)
		image, _ := fields["image"].(string)
		containers = append(containers, container{name, image})
	}
	return containers
}

func related(containers []container) []any {
	var list []any
	for _, c := range containers {
		list = append(list, map[string]any{"name": c.name, "image": c.image})
	}
	return list
}

// versionOf reads the version from the tag of the operator's image, so that it is written in one place. An image that is pinned
// by its digest has the tag before it.
func versionOf(containers []container) (string, error) {
	if len(containers) == 0 {
		return "", fmt.Errorf("the Deployment has no containers")
	}
	parts := reference.FindStringSubmatch(containers[0].image)
	if parts == nil {
		return "", fmt.Errorf("the version is read from the tag of the image %q: write one like :v1.2.3, or the same with @sha256 and its digest", containers[0].image)
	}
	return strings.TrimPrefix(parts[2], "v"), nil
}

func (p *parts) annotate(csv *unstructured.Unstructured, images []container) error {
	annotations := csv.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	examples, err := indented(p.examples)
	if err != nil {
		return err
	}
	namespace, err := indented(suggested(p.namespace))
	if err != nil {
		return err
	}
	annotations["alm-examples"] = examples
	annotations["containerImage"] = images[0].image
	annotations["operatorframework.io/suggested-namespace"] = p.namespace.GetName()
	// With the labels of the namespace: Pod Security is enforced there.
	annotations["operatorframework.io/suggested-namespace-template"] = namespace
	csv.SetAnnotations(annotations)
	return nil
}

func suggested(namespace *unstructured.Unstructured) *unstructured.Unstructured {
	namespace = namespace.DeepCopy()
	dropManager(namespace)
	return namespace
}

// indented is JSON that a person can review, as it stands in an annotation.
func indented(value any) (string, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(value)
	return strings.TrimSuffix(buffer.String(), "\n"), err
}
