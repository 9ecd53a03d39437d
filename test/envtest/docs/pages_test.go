package docs

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// page is a Markdown file of the tree.
type page struct {
	// name is its path in the tree.
	name   string
	fences []fence
	// prose is the text without the fences.
	prose string
}

// fence is a block between lines of three backticks, without its indentation.
type fence struct{ language, text string }

// of are the texts of the page's fences in a language.
func (p *page) of(language string) []string {
	var texts []string
	for _, f := range p.fences {
		if f.language == language {
			texts = append(texts, f.text)
		}
	}
	return texts
}

// pages are all Markdown files, by their names.
func pages() []*page {
	GinkgoHelper()
	var found []*page
	root := harness.Root()
	Expect(filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		if err != nil || entry.IsDir() {
			if path != root && (name == "bin" || strings.HasPrefix(name, ".")) {
				return fs.SkipDir
			}
			return err
		}
		if filepath.Ext(name) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		found = append(found, parse(relative, string(text)))
		return err
	})).To(Succeed())
	return found
}

func parse(name, text string) *page {
	p := &page{name: name}
	var open *fence
	indent := 0
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		switch marker, language, found := strings.Cut(trimmed, "```"); {
		case open == nil && found && marker == "" && !strings.Contains(language, "`"):
			open, indent = &fence{language: language}, strings.Index(line, "`")
		case open == nil:
			p.prose += line
		case trimmed == "```":
			p.fences = append(p.fences, *open)
			open = nil
		default:
			open.text += line[min(indent, len(line)-len(strings.TrimLeft(line, " "))):]
		}
	}
	return p
}

// What the Go of the pages takes for granted.
const (
	goBefore = `package page

import (
	"context"
	"os"

	"k8s.io/client-go/kubernetes"

	"github.com/sidecar-dev/sidecar-operator/hack/cluster"
	"github.com/sidecar-dev/sidecar-operator/hack/cluster/images"
)

func page(ctx context.Context, folder string) (any, error) {
`
	goAfter = `return []any{client, address}, err
}
`
)

var _ = Describe("The pages", func() {
	It("are found with their blocks, also those that are indented", func() {
		p := parse("x.md", "Do\n- this:\n  ```sh\n  kubectl get x\n    -o y\n  ```\n  and ``` that.\n```yaml\na: 1\n```\n")
		Expect(p.fences).To(Equal([]fence{{"sh", "kubectl get x\n  -o y\n"}, {"yaml", "a: 1\n"}}))
		Expect(p.prose).To(Equal("Do\n- this:\n  and ``` that.\n"))
		var names []string
		for _, p := range pages() {
			names = append(names, p.name)
		}
		Expect(names).To(ContainElements("README.md", "SECURITY.md", "CONTRIBUTING.md", "docs/concepts.md", "docs/guides/sidecars.md", "hack/cluster/README.md"))
	})

	It("have blocks that a test tries, or a program draws", func() {
		for _, p := range pages() {
			for _, f := range p.fences {
				Expect(f.language).To(BeElementOf("sh", "yaml", "go", "mermaid", ""), "%s: a block that nothing tries:\n%s", p.name, f.text)
				if f.language == "" { // what a command says
					Expect(f.text).To(HavePrefix("$ "), "%s: name the language of the block, or begin it by the command:\n%s", p.name, f.text)
				}
			}
		}
	})

	It("have Go that compiles", func() {
		var code string
		for _, p := range pages() {
			code += strings.Join(p.of("go"), "")
		}
		Expect(code).To(ContainSubstring("cluster.Start"))
		file := filepath.Join(GinkgoT().TempDir(), "page.go")
		Expect(os.WriteFile(file, []byte(goBefore+code+goAfter), 0o600)).To(Succeed())
		vet := exec.CommandContext(ctx, "go", "vet", file)
		vet.Dir = harness.Root()
		out, err := vet.CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), "%s\n%s", code, out)
	})
})
