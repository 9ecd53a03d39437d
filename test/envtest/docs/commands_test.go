package docs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var (
	inline = regexp.MustCompile("`((?:kubectl|make|go|[A-Z_]+=[^ `]+ make) [a-z][^`]*)`")
	// fragment is a command that is named and not meant to be run as it stands.
	fragment = regexp.MustCompile(`^kubectl( [a-z]+| rollout restart| delete -f| get pods -L| sidecar [a-z]+)$|^go vet$`)
	whole    = []string{"kubectl sidecar status", "kubectl sidecar doctor"}
)

// elsewhere are the pages whose commands another suite runs, with the programs that it leaves to this one.
var elsewhere = map[string][]string{
	"docs/guides/first-policy.md": nil,                // test/e2e/guide_test.go, on a real node
	"docs/guides/install-olm.md":  {"make", "docker"}, // test/e2e/olm_test.go, with a real OLM
}

// instead is what is run for the parts of a command that stand for something, or that need a controller which an API server
// alone has not.
var instead = strings.NewReplacer(
	"POLICY", "log-agent", "NAME", "log-agent", "explain POD", "explain -n shop cart-5d4f8", "-f FILE", "-f policy.yaml",
	"[REVISION] [REVISION]", "1 2", "[--to-revision R]", "--to-revision 1", "REVISION", "abcdefgh", "STEP", "canary",
	"sidecarpolicies -w", "sidecarpolicies", "scp -w", "scp",
	"status --watch", "status", // goes on until somebody ends it
	"delete -f dist/install.yaml", "delete --dry-run=server -f dist/install.yaml", // a namespace needs its controller to go
	"kubectl logs POD -c SIDECAR --previous", "kubectl get pod -n shop cart-5d4f8", "kubectl logs -n", "kubectl get -n", // no kubelet
	" | grep -v Running", "", // no pods
	"config/prometheus | kubectl apply --server-side -f -", "config/prometheus", // the kinds of the Prometheus operator are not there
)

// codes are the exit codes of commands that say something by it.
var codes = map[string]int{
	"kubectl sidecar plan":   2, // something would change
	"kubectl sidecar doctor": 1, // no operator runs here
}

var _ = Describe("Commands", func() {
	It("of the pages work", func() {
		DeferCleanup(func() { Expect(server.Client.DeleteAllOf(ctx, &v1alpha1.SidecarPolicy{})).To(Succeed()) })
		DeferCleanup(dropLimits)
		shell := newCommandLine()
		Expect(shell.run("kubectl apply --server-side -f dist/install.yaml", 0)).To(Succeed())
		ran, failed := map[string]int{}, []string(nil)
		for _, p := range pages() {
			if strings.HasPrefix(p.name, filepath.Join("docs", "design")) {
				continue // about how it is built, and what was tried
			}
			for _, line := range lines(p) {
				program, _, _ := strings.Cut(line, " ")
				if left, found := elsewhere[p.name]; found && !slices.Contains(left, program) {
					continue
				}
				ran[program]++
				if err := shell.try(line); err != nil {
					failed = append(failed, p.name+": "+line+": "+err.Error())
				}
			}
		}
		Expect(failed).To(BeEmpty())
		Expect(ran["kubectl"]).To(BeNumerically(">", 60), "%v", ran)
		Expect(ran["make"]).To(BeNumerically(">", 10), "%v", ran)
	})

	It("are read from blocks with all their lines, from examples of output, and from the text", func() {
		p := parse("x.md", "```sh\nkubectl get x \\\n  -o y   # why\nmake z\n```\n```\n$ kubectl sidecar status\nPOLICY\n```\nAsk `kubectl describe\nx NAME`, `kubectl sidecar retry` or `make a`.\n")
		Expect(lines(p)).To(Equal([]string{"kubectl get x -o y", "make z", "kubectl sidecar status", "kubectl describe x NAME", "make a"}))
	})
})

// lines are the commands of a page: of its blocks, then of its text.
func lines(p *page) []string {
	var found []string
	for _, block := range p.of("sh") {
		for line := range strings.Lines(strings.ReplaceAll(block, "\\\n", " ")) {
			if line, _, _ = strings.Cut(line, "  #"); strings.TrimSpace(line) != "" {
				found = append(found, oneSpace(line))
			}
		}
	}
	for _, block := range p.of("") {
		line, _, _ := strings.Cut(strings.TrimPrefix(block, "$ "), "\n")
		found = append(found, line)
	}
	for _, code := range inline.FindAllStringSubmatch(p.prose, -1) {
		if line := oneSpace(code[1]); !fragment.MatchString(line) || slices.Contains(whole, line) {
			found = append(found, line)
		}
	}
	return found
}

func oneSpace(text string) string { return strings.Join(strings.Fields(text), " ") }

// commandLine runs commands as an administrator, in the root of the tree.
type commandLine struct {
	env []string
	// bin has kubectl-sidecar, file a policy.
	bin, file string
}

func newCommandLine() *commandLine {
	GinkgoHelper()
	bin := GinkgoT().TempDir()
	build := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/kubectl-sidecar")
	build.Dir = harness.Root()
	out, err := build.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
	kubeconfig := writeKubeconfig()
	text, err := os.ReadFile(filepath.Join(harness.Root(), "config", "samples", "fleet_v1alpha1_sidecarpolicy.yaml"))
	Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(filepath.Dir(kubeconfig), "policy.yaml")
	Expect(os.WriteFile(file, text, 0o600)).To(Succeed())
	return &commandLine{bin: bin, file: file, env: append(os.Environ(), "KUBECONFIG="+kubeconfig, "KUBE_EDITOR=true",
		"PATH="+bin+":"+os.Getenv("KUBEBUILDER_ASSETS")+":"+os.Getenv("PATH"))}
}

// try runs a command of a page, or as much of it as can be done in a test.
func (c *commandLine) try(line string) error {
	GinkgoHelper()
	words := strings.Fields(line)
	switch {
	case words[0] == "kubectl":
		return c.kubectl(line)
	case words[0] == "make" || len(words) > 1 && words[1] == "make":
		return c.run(strings.Replace(line, "make ", "make --dry-run ", 1), 0)
	case strings.HasPrefix(line, "go run ./hack/cluster/cmd/cluster push "): // it has no flags of its own
		return c.run("ls "+words[5], 0)
	case strings.HasPrefix(line, "go run "):
		return c.run(line+" -h", 0) // what stands before it is read all the same
	case strings.HasPrefix(line, "go test "):
		return c.run("go list "+words[len(words)-1], 0) // the package is the last word
	case words[0] == "install":
		return c.run(strings.NewReplacer(" bin/", " "+c.bin+"/", "/usr/local/bin/", filepath.Dir(c.file)).Replace(line), 0)
	case strings.HasPrefix(line, "docker build -f bin/catalog.Dockerfile "): // `make catalog` writes it, with a test of its own
		return nil
	}
	return errors.New("nothing here knows how to try this: say it in test/envtest/docs/commands_test.go")
}

// kubectl runs a command in the situation that it is for.
func (c *commandLine) kubectl(line string) error {
	GinkgoHelper()
	line = strings.ReplaceAll(instead.Replace(line), " policy.yaml", " "+c.file)
	words := strings.Fields(line)
	command := strings.Join(words[:min(3, len(words))], " ")
	world()
	situation := situations[line]
	if situation == nil {
		situation = situations[command]
	}
	settle(situation)
	return c.run(line, codes[command])
}

// run fails where the command does not end with that exit code.
func (c *commandLine) run(command string, code int) error {
	shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", command)
	shell.Dir, shell.Env = harness.Root(), c.env
	out, err := shell.CombinedOutput()
	GinkgoWriter.Println("$", command+"\n"+string(out))
	if shell.ProcessState != nil && shell.ProcessState.ExitCode() == code {
		return nil
	}
	if err == nil {
		err = errors.New("exit code 0")
	}
	return errors.Join(err, errors.New(string(out)))
}
