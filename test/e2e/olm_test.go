//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/hack/cluster"
	"github.com/sidecar-dev/sidecar-operator/hack/cluster/images"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var _ = Describe("Operator Lifecycle Manager", Ordered, func() {
	// Not the namespace of dist/install.yaml: a bundle goes where its user wants it.
	const namespace, fleetName = "platform-sidecars", "by-olm"
	var (
		follow        func(heading string, blocks ...int) // does what the page says
		first, second string                              // the names of the ClusterServiceVersions
		fleet         *harness.Fleet
		apps          map[string]harness.Identity
	)

	BeforeAll(func() {
		manager.Stop()
		DeferCleanup(startManager)
		removeCRDs()
		olm, err := node.StartOLM(ctx)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(olm.Stop)

		older := newBundle("sidecar-operator:olm-1", "")
		newer := newBundle("sidecar-operator:olm-2", older.name)
		first, second = older.name, newer.name
		catalog := filepath.Join(GinkgoT().TempDir(), "catalog")
		bundleTool("catalog", "-out", catalog, "-images", node.Registry()+"/{{.Package}}-bundle:v{{.Version}}", older.dir, newer.dir)
		address, err := olm.ServeCatalog(ctx, catalog)
		Expect(err).NotTo(HaveOccurred())
		follow = olmGuide(namespace, address, first)
		DeferCleanup(func() {
			kubectl(nil, "delete", "namespace", namespace, "--ignore-not-found", "--timeout=2m")
			kubectl(nil, "delete", "--ignore-not-found", "-k", filepath.Join(harness.Root(), "config", "approvals"))
		})
		follow("A catalog of your own", 1)
		follow("Install", 0, 1, 2, 3)
		waitForCSV(namespace, first, "Succeeded")
		fleet = newFleet(fleetName, 2, 3, func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Injection.FailurePolicy = v1alpha1.FailurePolicyFail
			p.Spec.Rollout.Budgets = []v1alpha1.Budget{{Per: v1alpha1.PerFleet, MaxUnavailable: ptr.To(intstr.FromInt32(1))}}
		})
		apps = identities(fleetName, harness.AppContainer)
	})

	It("unpacks the bundle from its image", func() {
		jobs := &batchv1.JobList{}
		Expect(c.List(ctx, jobs, client.InNamespace(cluster.OLMNamespace))).To(Succeed())
		Expect(jobs.Items).To(ContainElement(Satisfy(func(job batchv1.Job) bool {
			return job.Status.Succeeded == 1 && slices.ContainsFunc(job.Spec.Template.Spec.InitContainers, func(container corev1.Container) bool {
				return strings.HasPrefix(container.Image, image("sidecar-operator-bundle:"))
			})
		})))
	})

	It("has the approvals beside it, which OLM can't install", func() {
		Expect(kubectl(nil, "get", "validatingadmissionpolicies", "-o", "name")).To(ContainSubstring("/sidecar-operator-approvals"))
	})

	It("gives the operator no rights on the Secrets of others", func() {
		account := "system:serviceaccount:" + namespace + ":" + operatorDeployment
		Expect(may(account, namespace, "list", "secrets")).To(Equal("yes"))
		Expect(may(account, "default", "list", "secrets")).To(Equal("no"))
	})

	It("has editors of the whole cluster write policies, which is OLM's doing, but not those of a namespace", func() {
		kubectl(nil, "create", "clusterrolebinding", "cluster-editor", "--clusterrole=edit", "--user=clara")
		DeferCleanup(func() { kubectl(nil, "delete", "clusterrolebinding", "cluster-editor") })
		kubectl(nil, "create", "rolebinding", "namespace-admin", "-n", "default", "--clusterrole=admin", "--user=nadia")
		DeferCleanup(func() { kubectl(nil, "delete", "rolebinding", "-n", "default", "namespace-admin") })
		Expect(may("clara", "", "update", "sidecarpolicies")).To(Equal("yes"))
		Expect(may("clara", "", "approve", "sidecarpolicies")).To(Equal("no"))
		Expect(may("nadia", "", "update", "sidecarpolicies")).To(Equal("no"))
		Expect(may("nadia", "default", "update", "sidecarreports")).To(Equal("yes"))
	})

	It("offers examples that the API server takes", func() {
		csv := clusterServiceVersion(namespace, first)
		var examples []unstructured.Unstructured
		Expect(json.Unmarshal([]byte(csv.GetAnnotations()["alm-examples"]), &examples)).To(Succeed())
		Expect(examples).NotTo(BeEmpty())
		for _, example := range examples {
			Expect(c.Create(ctx, &example, client.DryRunAll)).To(Succeed(), example.GetKind())
		}
	})

	It("lets the operator do the main job", func() {
		done := observe(fleetName, 1)
		Expect(harness.SetImage(ctx, c, fleetName, fleetName, image("agent:v2"))).To(Succeed())
		_, err := harness.WaitReady(ctx, c, fleetName, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		done()
		Expect(identities(fleetName, harness.AppContainer)).To(Equal(apps))
	})

	It("upgrades the operator in the middle of a roll-out, which goes on as if nothing had happened", func() {
		agents := identities(fleetName, fleetName)
		done := observe(fleetName, 1)
		Expect(harness.Edit(ctx, c, fleetName, func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].Image = image("agent:v3")
			// Slow enough for OLM to be in time.
			p.Spec.Rollout.Health = health(5, 60)
		})).To(Succeed())
		_, err := harness.WaitForPolicy(ctx, c, fleetName, settleTimeout, func(p *v1alpha1.SidecarPolicy) bool {
			return p.Status.ObservedGeneration == p.Generation && p.Status.Pods.Updated >= 1
		})
		Expect(err).NotTo(HaveOccurred())
		follow("Upgrade", 0)
		Eventually(func(g Gomega) {
			deployment := &appsv1.Deployment{}
			g.Expect(c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: operatorDeployment}, deployment)).To(Succeed())
			g.Expect(deployment.Spec.Template.Spec.Containers[0].Image).To(Equal(image("sidecar-operator:olm-2")))
		}, settleTimeout, "100ms").Should(Succeed())
		policy := &v1alpha1.SidecarPolicy{}
		Expect(c.Get(ctx, client.ObjectKey{Name: fleetName}, policy)).To(Succeed())
		Expect(policy.Status.Pods.Updated).To(BeNumerically("<", fleet.Pods()), "the roll-out is still under way")

		waitForCSV(namespace, second, "Succeeded")
		waitForCSV(namespace, first, phaseGone)
		_, err = harness.WaitReady(ctx, c, fleetName, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		done()
		Expect(identities(fleetName, harness.AppContainer)).To(Equal(apps))
		for pod, now := range identities(fleetName, fleetName) {
			Expect(now.RestartCount).To(Equal(agents[pod].RestartCount+1), "the agent of pod %s is upgraded once", pod)
		}
	})

	It("logs no error about missing rights", func() {
		for _, pod := range podsOf(namespace) {
			if pod.DeletionTimestamp == nil {
				Expect(kubectl(nil, "logs", "-n", namespace, pod.Name)).NotTo(ContainSubstring("is forbidden"), "pod %s", pod.Name)
			}
		}
	})

	It("takes the operator away again, and leaves the sidecars", func() {
		before := identities(fleetName, fleetName)
		follow("Uninstall", 0)
		Eventually(func(g Gomega) {
			g.Expect(kubectl(nil, "get", "namespaces", "-o", "name")).NotTo(ContainSubstring(namespace))
			g.Expect(kubectl(nil, "get", "validatingadmissionpolicies", "-o", "name")).NotTo(ContainSubstring("/sidecar-operator-approvals"))
			g.Expect(kubectl(nil, "get", "mutatingwebhookconfigurations", "-o", "name")).NotTo(ContainSubstring(fleetName))
			g.Expect(kubectl(nil, "get", "clusterrolebindings", "-o", "wide")).NotTo(ContainSubstring(namespace))
		}, settleTimeout, "500ms").Should(Succeed())
		Expect(identities(fleetName, fleetName)).To(Equal(before))
	})
})

// olmBundle is a bundle in a folder, and as an image in the node's registry.
type olmBundle struct{ name, dir string }

// newBundle is the project's bundle for an operator's image of the given name in the node's registry. One that
// replaces another has the next version.
func newBundle(operator, replaces string) olmBundle {
	GinkgoHelper()
	_, err := images.Push(ctx, image(operator), images.Spec{
		Dir: harness.Root(), Package: "./cmd/manager", Labels: map[string]string{"ref": operator},
	})
	Expect(err).NotTo(HaveOccurred())
	dir := filepath.Join(GinkgoT().TempDir(), "bundle")
	Expect(os.CopyFS(dir, os.DirFS(filepath.Join(harness.Root(), "bundle")))).To(Succeed())
	path := filepath.Join(dir, "manifests", "sidecar-operator.clusterserviceversion.yaml")
	data, err := os.ReadFile(path)
	Expect(err).NotTo(HaveOccurred())
	Expect(managerImage.Match(data)).To(BeTrue())
	csv := &unstructured.Unstructured{}
	Expect(yaml.Unmarshal(managerImage.ReplaceAll(data, []byte("image: "+image(operator))), &csv.Object)).To(Succeed())
	version, _, _ := unstructured.NestedString(csv.Object, "spec", "version")
	if replaces != "" {
		version = nextPatch(version)
		Expect(unstructured.SetNestedField(csv.Object, version, "spec", "version")).To(Succeed())
		Expect(unstructured.SetNestedField(csv.Object, replaces, "spec", "replaces")).To(Succeed())
		csv.SetName("sidecar-operator.v" + version)
	}
	data, err = yaml.Marshal(csv.Object)
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(path, data, 0o644)).To(Succeed())
	pushBundle(image("sidecar-operator-bundle:v"+version), dir)
	return olmBundle{csv.GetName(), dir}
}

// nextPatch is 0.1.1 for 0.1.0.
func nextPatch(version string) string {
	GinkgoHelper()
	var major, minor, patch int
	_, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch)
	Expect(err).NotTo(HaveOccurred())
	return fmt.Sprintf("%d.%d.%d", major, minor, patch+1)
}

// pushBundle makes the image that bundle.Dockerfile describes of the bundle in dir.
func pushBundle(ref, dir string) {
	GinkgoHelper()
	dockerfile, err := os.ReadFile(filepath.Join(harness.Root(), "bundle.Dockerfile"))
	Expect(err).NotTo(HaveOccurred())
	spec := images.Spec{Labels: map[string]string{}, Files: map[string]string{}}
	for line := range strings.Lines(string(dockerfile)) {
		instruction, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch instruction {
		case "LABEL":
			key, value, _ := strings.Cut(rest, "=")
			spec.Labels[key] = value
		case "COPY":
			from, to, _ := strings.Cut(rest, " ")
			maps.Copy(spec.Files, filesOf(filepath.Join(filepath.Dir(dir), from), to))
		}
	}
	Expect(spec.Labels).NotTo(BeEmpty())
	_, err = images.Push(ctx, ref, spec)
	Expect(err).NotTo(HaveOccurred())
}

// filesOf are the contents of the files in a folder, by their paths in the target.
func filesOf(dir, target string) map[string]string {
	GinkgoHelper()
	entries, err := os.ReadDir(dir)
	Expect(err).NotTo(HaveOccurred())
	Expect(entries).NotTo(BeEmpty())
	files := map[string]string{}
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		Expect(err).NotTo(HaveOccurred())
		files[filepath.Join(target, entry.Name())] = string(data)
	}
	return files
}

// bundleTool runs the program behind `make bundle` and `make catalog`.
func bundleTool(args ...string) {
	GinkgoHelper()
	command := exec.CommandContext(ctx, "go", append([]string{"run", "."}, args...)...)
	command.Dir = filepath.Join(harness.Root(), "hack", "bundle")
	out, err := command.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
}

// olmGuide does what docs/guides/install-olm.md says: the blocks of a section, by their numbers. The node's catalog is no
// image, and has two versions, of which the test installs the first.
func olmGuide(namespace, catalogAddress, startingCSV string) func(heading string, blocks ...int) {
	GinkgoHelper()
	page, err := os.ReadFile(filepath.Join(harness.Root(), "docs", "guides", "install-olm.md"))
	Expect(err).NotTo(HaveOccurred())
	sections := map[string]section{}
	for _, part := range sectionsOf(string(page)) {
		sections[part.heading] = part
	}
	for heading, count := range map[string]int{"Install": 4, "Upgrade": 1, "Uninstall": 1, "A catalog of your own": 2} {
		Expect(sections[heading].blocks).To(HaveLen(count), "blocks under %q: run those that are new here", heading)
	}
	run := pageShell(strings.NewReplacer(
		"sidecar-operator-system", namespace,
		"sourceNamespace: olm ", "sourceNamespace: "+cluster.OLMNamespace+" ",
		"namespace: olm}", "namespace: "+cluster.OLMNamespace+"}",
		"image: registry.example/sidecar-operator-catalog:latest", fmt.Sprintf("address: %q", catalogAddress),
		"  channel: stable\n", "  channel: stable\n  startingCSV: "+startingCSV+"\n",
	))
	return func(heading string, blocks ...int) {
		GinkgoHelper()
		for _, i := range blocks {
			switch b := sections[heading].blocks[i]; b.language {
			case "yaml":
				run("kubectl apply --server-side -f - <<'YAML'\n" + b.text + "YAML\n")
			default:
				run(b.text)
			}
		}
	}
}

func olmList(kind string) *unstructured.UnstructuredList {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: "operators.coreos.com", Version: "v1alpha1", Kind: kind})
	return list
}

// phaseGone is that of a ClusterServiceVersion which is not there.
const phaseGone = "gone"

func waitForCSV(namespace, csv, phase string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		found := clusterServiceVersion(namespace, csv)
		got, message := phaseGone, ""
		if found != nil {
			got, _, _ = unstructured.NestedString(found.Object, "status", "phase")
			message, _, _ = unstructured.NestedString(found.Object, "status", "message")
		}
		g.Expect(got).To(Equal(phase), "%s: %s; the pods there: %s", csv, message, describePods(namespace))
	}, settleTimeout, "500ms").Should(Succeed())
}

// clusterServiceVersion is nil when there is none of this name.
func clusterServiceVersion(namespace, name string) *unstructured.Unstructured {
	GinkgoHelper()
	list := olmList("ClusterServiceVersionList")
	Expect(c.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
	for i := range list.Items {
		if list.Items[i].GetName() == name {
			return &list.Items[i]
		}
	}
	return nil
}

// may is yes or no: whether a user may do something in a namespace, or in all of them where that is empty.
func may(user, namespace, verb, resource string) string {
	GinkgoHelper()
	command := exec.CommandContext(ctx, filepath.Join(node.BinDir(), "kubectl"), "auth", "can-i", verb, resource,
		"--namespace="+namespace, "--all-namespaces="+strconv.FormatBool(namespace == ""), "--as="+user)
	command.Env = append(os.Environ(), "KUBECONFIG="+node.Kubeconfig())
	out, _ := command.Output() // "no" comes with an exit code
	return strings.TrimSpace(string(out))
}
