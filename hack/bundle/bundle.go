package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/operator-framework/operator-registry/pkg/lib/bundle"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const (
	// channel is the only one: there is one line of versions.
	channel = "stable"

	manifestsDir = "manifests/"
	metadataDir  = "metadata/"
	scorecardDir = "tests/scorecard/"

	scorecardMediatypeLabel = "operators.operatorframework.io.test.mediatype.v1"
	scorecardConfigLabel    = "operators.operatorframework.io.test.config.v1"
)

// generated is a bundle: its files by their paths in the folder of the bundle.
type generated struct {
	files  map[string]any
	labels []label
}

// label is one of the image, and an annotation of the bundle.
type label struct{ key, value string }

// generate makes the bundle of the parts.
func generate(p *parts, icon []byte) (*generated, error) {
	namespace := p.namespace.GetName()
	r, err := p.split()
	if err != nil {
		return nil, err
	}
	csv, err := p.clusterServiceVersion(r, icon)
	if err != nil {
		return nil, err
	}
	b := &generated{files: map[string]any{}, labels: labels(p.base.GetName())}
	b.files[manifestsDir+p.base.GetName()+".clusterserviceversion.yaml"] = csv.Object
	for _, object := range append(append(p.crds, r.objects...), p.others...) {
		anyNamespace(object, namespace)
		dropManager(object)
		path := manifestsDir + fileName(object)
		if _, exists := b.files[path]; exists {
			return nil, fmt.Errorf("two objects would be written to %s", path)
		}
		b.files[path] = object.Object
	}
	b.files[metadataDir+"annotations.yaml"] = map[string]any{"annotations": annotations(b.labels)}
	b.files[scorecardDir+"config.yaml"] = p.scorecard.Object
	return b, nil
}

// dropManager takes off the label that says who applies the object: here that is not kustomize.
func dropManager(object *unstructured.Unstructured) {
	labels := object.GetLabels()
	delete(labels, "app.kubernetes.io/managed-by")
	object.SetLabels(labels)
}

func fileName(object *unstructured.Unstructured) string {
	if object.GetKind() == kindCRD {
		plural, group, _ := strings.Cut(object.GetName(), ".")
		return fmt.Sprintf("%s_%s.yaml", group, plural)
	}
	return fmt.Sprintf("%s_%s.yaml", object.GetName(), strings.ToLower(object.GetKind()))
}

func labels(packageName string) []label {
	return []label{
		{bundle.MediatypeLabel, "registry+v1"},
		{bundle.ManifestsLabel, manifestsDir},
		{bundle.MetadataLabel, metadataDir},
		{bundle.PackageLabel, packageName},
		{bundle.ChannelsLabel, channel},
		{bundle.ChannelDefaultLabel, channel},
		{scorecardMediatypeLabel, "scorecard+v1"},
		{scorecardConfigLabel, scorecardDir},
	}
}

func annotations(labels []label) map[string]any {
	all := map[string]any{}
	for _, l := range labels {
		all[l.key] = l.value
	}
	return all
}

// dockerfile is that of the bundle's image, which holds nothing but the files.
func dockerfile(labels []label) string {
	var text strings.Builder
	text.WriteString("# The image of the OLM bundle, written by `make bundle`.\nFROM scratch\n\n")
	for _, l := range labels {
		fmt.Fprintf(&text, "LABEL %s=%s\n", l.key, l.value)
	}
	text.WriteString("\n")
	for _, dir := range []string{manifestsDir, metadataDir, scorecardDir} {
		fmt.Fprintf(&text, "COPY bundle/%s /%s\n", dir, dir)
	}
	return text.String()
}

// write replaces bundle/ and bundle.Dockerfile in dir.
func (b *generated) write(dir string) error {
	if err := os.RemoveAll(filepath.Join(dir, "bundle")); err != nil {
		return err
	}
	for path, content := range b.files {
		data, err := yaml.Marshal(content)
		if err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		if err := writeFile(filepath.Join(dir, "bundle", path), data); err != nil {
			return err
		}
	}
	return writeFile(filepath.Join(dir, "bundle.Dockerfile"), []byte(dockerfile(b.labels)))
}

func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
