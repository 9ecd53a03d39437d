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

// section is a part of a page with commands; its name is the heading.
var (
	section  = regexp.MustCompile(`(?m)^## (.*)\n`)
	commands = regexp.MustCompile("(?ms)^```sh\n(.*?)^```")
)

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
		parts := section.Split(string(page), -1)[1:]
		for i, heading := range section.FindAllStringSubmatch(string(page), -1) {
			blocks := commands.FindAllStringSubmatch(parts[i], -1)
			if len(blocks) == 0 {
				continue
			}
			Expect(check).To(HaveKey(heading[1]))
			By(heading[1])
			output := ""
			for _, block := range blocks {
				output += run(block[1])
			}
			check[heading[1]](output)
			delete(check, heading[1])
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
	images := strings.NewReplacer("nginx:1.29", image("app:v1"), "fluent/fluent-bit:3.2.1", image("agent:v1"),
		"fluent/fluent-bit:3.2.2", image("agent:v2"), "fluent/fluent-bit:9.9.9", image("agent:v999"))
	return func(script string) string {
		GinkgoHelper()
		shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", images.Replace(script))
		shell.Env = append(os.Environ(), "KUBECONFIG="+node.Kubeconfig(), "PATH="+bin+":"+node.BinDir()+":"+os.Getenv("PATH"))
		out, err := shell.CombinedOutput()
		GinkgoWriter.Println(script, string(out))
		Expect(err).NotTo(HaveOccurred(), "%s\n%s", script, out)
		return string(out)
	}
}
