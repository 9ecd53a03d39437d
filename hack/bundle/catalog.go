package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/operator-framework/api/pkg/manifests"
	"github.com/operator-framework/operator-registry/alpha/declcfg"
	"github.com/operator-framework/operator-registry/alpha/property"
	"github.com/operator-framework/operator-registry/pkg/image"
	"github.com/operator-framework/operator-registry/pkg/registry"
)

// opmImage is what a catalog's image is built from, and serves it.
const opmImage = "quay.io/operator-framework/opm:v1.73.0"

// catalog writes a file-based catalog of the bundles in dirs, the oldest first, to out, and the Dockerfile of its
// image to <out>.Dockerfile. The last of the bundles describes the package. images is a template of the references
// by which the catalog knows the bundles.
func catalog(out, images string, dirs []string) error {
	reference, err := template.New("images").Option("missingkey=error").Parse(images)
	if err != nil {
		return fmt.Errorf("the template of the bundles' images: %w", err)
	}
	config := &declcfg.DeclarativeConfig{}
	channelOf := declcfg.Channel{Schema: declcfg.SchemaChannel, Name: channel}
	for _, dir := range dirs {
		b, err := manifests.GetBundleFromDir(dir)
		if err != nil {
			return fmt.Errorf("read the bundle in %s: %w", dir, err)
		}
		rendered, err := render(b, dir, reference)
		if err != nil {
			return fmt.Errorf("render the bundle in %s: %w", dir, err)
		}
		description, err := packageOf(b)
		if err != nil {
			return err
		}
		config.Bundles = append(config.Bundles, rendered)
		config.Packages = []declcfg.Package{description}
		channelOf.Package = b.Package
		channelOf.Entries = append(channelOf.Entries, declcfg.ChannelEntry{Name: b.Name, Replaces: b.CSV.Spec.Replaces})
	}
	config.Channels = []declcfg.Channel{channelOf}
	if _, err := declcfg.ConvertToModel(*config); err != nil {
		return fmt.Errorf("the catalog is not valid: %w", err)
	}
	return writeCatalog(config, out, channelOf.Package)
}

// render makes the entry of one bundle. It holds what OLM resolves and consoles show; the manifests are in the image.
func render(b *manifests.Bundle, dir string, reference *template.Template) (declcfg.Bundle, error) {
	var ref strings.Builder
	err := reference.Execute(&ref, map[string]string{"Package": b.Package, "Version": b.CSV.Spec.Version.String()})
	if err != nil {
		return declcfg.Bundle{}, err
	}
	input, err := registry.NewImageInput(image.SimpleReference(ref.String()), dir)
	if err != nil {
		return declcfg.Bundle{}, err
	}
	_, properties, err := registry.ObjectsAndPropertiesFromBundle(input.Bundle)
	if err != nil {
		return declcfg.Bundle{}, err
	}
	properties = slices.DeleteFunc(properties, func(p property.Property) bool { return p.Type == property.TypeBundleObject })
	related := []declcfg.RelatedImage{{Image: ref.String()}}
	for _, image := range b.CSV.Spec.RelatedImages {
		related = append(related, declcfg.RelatedImage{Name: image.Name, Image: image.Image})
	}
	return declcfg.Bundle{
		Schema:        declcfg.SchemaBundle,
		Name:          b.Name,
		Package:       b.Package,
		Image:         ref.String(),
		Properties:    append(properties, property.MustBuildCSVMetadata(*b.CSV)),
		RelatedImages: related,
	}, nil
}

func packageOf(b *manifests.Bundle) (declcfg.Package, error) {
	p := declcfg.Package{
		Schema:         declcfg.SchemaPackage,
		Name:           b.Package,
		DefaultChannel: b.DefaultChannel,
		Description:    b.CSV.Spec.Description,
	}
	for _, icon := range b.CSV.Spec.Icon {
		data, err := base64.StdEncoding.DecodeString(icon.Data)
		if err != nil {
			return declcfg.Package{}, fmt.Errorf("the icon of %s: %w", b.Name, err)
		}
		p.Icon = &declcfg.Icon{Data: data, MediaType: icon.MediaType}
	}
	return p, nil
}

func writeCatalog(config *declcfg.DeclarativeConfig, out, packageName string) error {
	var text bytes.Buffer
	if err := declcfg.WriteYAML(*config, &text); err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(out, packageName, "catalog.yaml"), text.Bytes()); err != nil {
		return err
	}
	return writeFile(out+".Dockerfile", fmt.Appendf(nil, catalogDockerfile, opmImage, filepath.Base(out)))
}

// catalogDockerfile has opm prepare its cache when the image is built, or every start would take the time.
const catalogDockerfile = `# The image of the catalog, written by "make catalog".
ARG OPM_IMAGE=%s
FROM ${OPM_IMAGE}
ENTRYPOINT ["/bin/opm"]
CMD ["serve", "/configs", "--cache-dir=/tmp/cache"]
COPY %s /configs
RUN ["/bin/opm", "serve", "/configs", "--cache-dir=/tmp/cache", "--cache-only"]
LABEL operators.operatorframework.io.index.configs.v1=/configs
`
