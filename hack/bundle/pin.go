package main

import (
	"fmt"
	"os"
	"regexp"
)

// reference is an image by its name, the version in its tag, and its digest.
var reference = regexp.MustCompile(`^((?:[^/@\s]+/)*[^/:@\s]+):(v[^:@/\s]+)(?:@(sha256:[0-9a-f]{64}))?$`)

// managerImage is the entry of the operator's image in a kustomization.
var managerImage = regexp.MustCompile(`(?m)^- name: controller\n(?:  .*\n)*`)

// pin writes an image with its digest into the kustomization from which all manifests have it: the Deployment of an
// installation, and the one of the bundle, with containerImage and relatedImages.
func pin(kustomization, image string) error {
	parts := reference.FindStringSubmatch(image)
	if parts == nil || parts[3] == "" {
		return fmt.Errorf("the image %q has no version and digest: write one like registry.example/operator:v1.2.3@sha256:..., with what `docker push` says", image)
	}
	text, err := os.ReadFile(kustomization)
	if err != nil {
		return err
	}
	if !managerImage.Match(text) {
		return fmt.Errorf("%s has no image by the name of controller", kustomization)
	}
	entry := fmt.Sprintf("- name: controller\n  newName: %s\n  newTag: %s\n  digest: %s\n", parts[1], parts[2], parts[3])
	return os.WriteFile(kustomization, managerImage.ReplaceAllLiteral(text, []byte(entry)), 0o644)
}
