package doctor

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// checkVersion holds the plugin's release against the operator's: plan, explain and diff decide as the plugin's does.
func checkVersion(f *Facts) []Finding {
	if f.Deployment == nil {
		return ok("the plugin is %s; there is no Deployment whose image says what the operator is", orUnknown(f.Version))
	}
	image := imageOf(f.Deployment)
	ours, theirs := release(f.Version), release(tagOf(image))
	switch {
	case ours == "" || theirs == "":
		return ok("the plugin is %s, and the operator runs %s: of one of them no release is known", orUnknown(f.Version), image)
	case semver.Compare(ours, theirs) != 0:
		return []Finding{warning(fmt.Sprintf("the plugin is of release %s, and the operator of %s: plan and explain decide as the plugin's release does", ours, theirs), "use the plugin of release "+theirs)}
	}
	return ok("the plugin and the operator are of release %s", ours)
}

// release is a version without what says how it was built; empty where it is none that was released.
func release(version string) string {
	if version != "" && !strings.HasPrefix(version, "v") {
		version = "v" + version
	}
	if !semver.IsValid(version) || module.IsPseudoVersion(version) {
		return ""
	}
	return strings.TrimSuffix(semver.Canonical(version), semver.Build(version))
}

// tagOf is the tag of an image; empty where it has none.
func tagOf(image string) string {
	named, err := reference.Parse(image)
	if err != nil {
		return ""
	}
	if tagged, found := named.(reference.Tagged); found {
		return tagged.Tag()
	}
	return ""
}

func orUnknown(version string) string {
	if version == "" {
		return "of an unknown version"
	}
	return version
}
