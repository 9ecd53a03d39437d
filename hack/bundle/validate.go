package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/operator-framework/api/pkg/apis/scorecard/v1alpha3"
	"github.com/operator-framework/api/pkg/manifests"
	"github.com/operator-framework/api/pkg/validation"
	validator "github.com/operator-framework/api/pkg/validation/interfaces"
	"github.com/operator-framework/operator-registry/pkg/lib/bundle"
	"github.com/sirupsen/logrus"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// suites are all validators but three: MultipleArchitectures pulls the images with a container engine,
// OperatorHub is the deprecated name of those for the hub that are here, PackageManifest is about another format.
var suites = validator.Validators{
	validation.ClusterServiceVersionValidator,
	validation.CustomResourceDefinitionValidator,
	validation.BundleValidator,
	validation.OperatorHubV2Validator,
	validation.StandardCategoriesValidator,
	validation.StandardCapabilitiesValidator,
	validation.ObjectValidator,
	validation.OperatorGroupValidator,
	validation.CommunityOperatorValidator,
	validation.AlphaDeprecatedAPIsValidator,
	validation.GoodPracticesValidator,
}

// validate fails on every error and every warning about the bundle in dir.
func validate(dir string) error {
	b, err := manifests.GetBundleFromDir(dir)
	if err != nil {
		return fmt.Errorf("read the bundle: %w", err)
	}
	var errs []error
	for _, result := range suites.Validate(b.ObjectsToValidate()...) {
		for _, finding := range append(result.Errors, result.Warnings...) {
			errs = append(errs, finding)
		}
	}
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	format := bundle.NewImageValidator(nil, logrus.NewEntry(logger))
	errs = append(errs,
		format.ValidateBundleFormat(dir),
		format.ValidateBundleContent(filepath.Join(dir, manifestsDir)),
		validateScorecard(filepath.Join(dir, scorecardDir, "config.yaml")),
		passScorecard(b))
	return errors.Join(errs...)
}

// passScorecard fails where the tests of the scorecard would that the suites have nothing like: every example of a kind with a
// spec has one, and every kind says which resources belong to it.
func passScorecard(b *manifests.Bundle) error {
	var examples []unstructured.Unstructured
	if err := json.Unmarshal([]byte(b.CSV.Annotations["alm-examples"]), &examples); err != nil {
		return fmt.Errorf("alm-examples: %w", err)
	}
	var errs []error
	for _, example := range examples {
		if example.Object["spec"] == nil && hasSpec(b, example.GetKind()) {
			errs = append(errs, fmt.Errorf("the example %s %s has no spec", example.GetKind(), example.GetName()))
		}
	}
	for _, crd := range b.CSV.Spec.CustomResourceDefinitions.Owned {
		if len(crd.Resources) == 0 {
			errs = append(errs, fmt.Errorf("%s: describe the resources that belong to it", crd.Name))
		}
	}
	return errors.Join(errs...)
}

// hasSpec says whether a kind has one, in any of its versions.
func hasSpec(b *manifests.Bundle, kind string) bool {
	for _, crd := range b.V1CRDs {
		for _, version := range crd.Spec.Versions {
			if _, found := version.Schema.OpenAPIV3Schema.Properties["spec"]; found && crd.Spec.Names.Kind == kind {
				return true
			}
		}
	}
	return false
}

func validateScorecard(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	config := v1alpha3.Configuration{}
	if err := yaml.UnmarshalStrict(data, &config); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if config.Kind != v1alpha3.ConfigurationKind || len(config.Stages) == 0 {
		return fmt.Errorf("%s: has no stages of tests", path)
	}
	return nil
}
