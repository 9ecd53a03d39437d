// Package image spells image references. A kubelet restarts a container whose reference is
// spelled differently, also where it is the same image: so a sidecar is restarted in place.
package image

import (
	"fmt"
	"strings"
)

// restartTag stands where a reference has a digest and no tag. A container runtime goes by the digest.
const restartTag = "restarted"

// Same says whether a pod's reference is the template's, or another spelling of it that Respell makes.
func Same(current, template string) bool {
	if current == template {
		return true
	}
	name, digest := splitDigest(template)
	currentName, currentDigest := splitDigest(current)
	if digest == "" {
		return currentDigest != "" && currentName == name
	}
	return currentDigest == digest && withoutTag(currentName) == withoutTag(name)
}

// Respell is another spelling of the template's image than the current one. For a reference
// without a digest it adds the one that runs, which imageID names (ContainerStatus.ImageID), or takes it
// away again; for one with a digest it takes the tag away or adds it.
func Respell(current, template, imageID string) (string, error) {
	name, digest := splitDigest(template)
	other := template
	switch {
	case current != template:
	case digest != "" && withoutTag(name) != name:
		other = withoutTag(name) + "@" + digest
	case digest != "":
		other = name + ":" + restartTag + "@" + digest
	default:
		_, running := splitDigest(imageID)
		if running == "" {
			return "", fmt.Errorf("image %s has no digest on its node (imageID %q): it was not pulled from a registry", template, imageID)
		}
		other = template + "@" + running
	}
	return other, nil
}

// splitDigest parts a reference from its digest, which is empty where there is none.
func splitDigest(reference string) (name, digest string) {
	name, digest, _ = strings.Cut(reference, "@")
	return name, digest
}

// withoutTag takes the tag off a reference without a digest. A colon before the last slash is a port's.
func withoutTag(name string) string {
	if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") {
		return name[:i]
	}
	return name
}
