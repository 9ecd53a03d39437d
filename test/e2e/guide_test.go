//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var (
	headings = regexp.MustCompile(`(?m)^## (.*)\n`)
	fences   = regexp.MustCompile("(?ms)^```(sh|yaml)\n(.*?)^```")
)

// section is a part of a page, with its commands and its YAML.
type section struct {
	heading string
	blocks  []block
}

type block struct{ language, text string }

// sectionsOf are the sections of a page, without what stands before the first.
func sectionsOf(page string) []section {
	var found []section
	parts := headings.Split(page, -1)[1:]
	for i, heading := range headings.FindAllStringSubmatch(page, -1) {
		part := section{heading: heading[1]}
		for _, fence := range fences.FindAllStringSubmatch(parts[i], -1) {
			part.blocks = append(part.blocks, block{fence[1], fence[2]})
		}
		found = append(found, part)
	}
	return found
}

var _ = Describe("The guide to the first policy", func() {
	It("does what it says", func() {
		const name = "first-policy"
		page, err := os.ReadFile(filepath.Join(harness.Root(), "docs", "guides", "first-policy.md"))
		Expect(err).NotTo(HaveOccurred())
		run := guideShell()
		DeferCleanup(func() {
			policy := &v1alpha1.SidecarPolicy{}
			policy.Name = "log-agent"
			err := harness.Edit(ctx, c, policy.Name, func(p *v1alpha1.SidecarPolicy) { p.Spec.OnRemoval = v1alpha1.RemovalKeep })
			Expect(client.IgnoreNotFound(err)).To(Succeed())
			Expect(client.IgnoreNotFound(c.Delete(ctx, policy))).To(Succeed())
		})

		var apps map[string]harness.Identity
		agents := func() map[string]harness.Identity { return identities(name, "log-agent") }
		check := map[string]func(output string){
			"An app": func(string) {},
			"Plug in": func(output string) {
				Expect(output).To(ContainSubstring("3 selected, 0 injected, 0 ready, 3 missing"))
				Eventually(agents, settleTimeout).Should(HaveLen(3), "the pods before have gone")
				apps = identities(name, "app")
			},
			"Upgrade": func(output string) {
				Expect(output).To(MatchRegexp(`(?m)^web-\S+ +0 +1 +` + regexp.QuoteMeta(image("agent:v2")) + `$`))
				Expect(identities(name, "app")).To(Equal(apps))
			},
			"A bad version": func(output string) {
				Expect(output).To(ContainSubstring("agent:v999"))
				Expect(identities(name, "app")).To(Equal(apps))
				Expect(agents()).To(HaveEach(HaveField("RestartCount", BeEquivalentTo(1))))
			},
			"Unplug": func(string) {},
		}
		for _, part := range sectionsOf(string(page)) {
			if len(part.blocks) == 0 {
				continue
			}
			Expect(check).To(HaveKey(part.heading))
			By(part.heading)
			output := ""
			for _, block := range part.blocks {
				output += run(block.text)
			}
			check[part.heading](output)
			delete(check, part.heading)
		}
		Expect(check).To(BeEmpty(), "sections of the guide that were not found")
	})
})

// guideShell runs commands as a reader would, with images of the node's registry in the place of those of the guide.
func guideShell() func(script string) string {
	GinkgoHelper()
	bin := GinkgoT().TempDir()
	build := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/kubectl-sidecar")
	build.Dir = harness.Root()
	out, err := build.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
	return pageShell(strings.NewReplacer("nginx:1.29", image("app:v1"), "fluent/fluent-bit:3.2.1", image("agent:v1"),
		"fluent/fluent-bit:3.2.2", image("agent:v2"), "fluent/fluent-bit:9.9.9", image("agent:v999")), bin)
}

// pageShell runs commands of a page in the root of the tree, with what the node has in the place of what the page says, and
// with the programs in some folders.
func pageShell(instead *strings.Replacer, bin ...string) func(script string) string {
	path := strings.Join(append(bin, node.BinDir(), os.Getenv("PATH")), ":")
	return func(script string) string {
		GinkgoHelper()
		shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", instead.Replace(script))
		shell.Dir = harness.Root()
		shell.Env = append(os.Environ(), "KUBECONFIG="+node.Kubeconfig(), "PATH="+path)
		out, err := shell.CombinedOutput()
		GinkgoWriter.Println(script, string(out))
		Expect(err).NotTo(HaveOccurred(), "%s\n%s", script, out)
		return string(out)
	}
}
