package api

import (
	"maps"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var _ = It("takes every example of the guide to sidecars", func() {
	guide, err := os.ReadFile(filepath.Join(harness.Root(), "docs", "guides", "sidecars.md"))
	Expect(err).NotTo(HaveOccurred())
	blocks := strings.Split(string(guide), "```yaml\n")[1:]
	Expect(len(blocks)).To(BeNumerically(">", 10), "the test looks in the wrong place")
	for _, block := range blocks {
		example, _, _ := strings.Cut(block, "```")
		part := map[string]any{}
		Expect(yaml.UnmarshalStrict([]byte(example), &part)).To(Succeed(), example)
		policy := policyWith()
		maps.Copy(policy.Object["spec"].(map[string]any), part)
		Expect(tryCreate(policy)).To(Succeed(), example)
	}
})
