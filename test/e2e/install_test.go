//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/hack/cluster/images"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

const (
	operatorNamespace  = "sidecar-operator-system"
	operatorDeployment = "sidecar-operator-controller-manager"
)

// managerImage is the line of dist/install.yaml that names the operator's image.
var managerImage = regexp.MustCompile(`image: ghcr\.io/sidecar-dev/sidecar-operator:\S+`)

var _ = Describe("dist/install.yaml", Ordered, func() {
	BeforeAll(func() {
		manager.Stop()
		DeferCleanup(startManager)
		install(harness.Root(), operatorImage)
		DeferCleanup(uninstall)
	})

	It("runs two replicas that get ready", func() {
		Eventually(func(g Gomega) {
			deployment := &appsv1.Deployment{}
			g.Expect(c.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: operatorDeployment}, deployment)).To(Succeed())
			g.Expect(deployment.Status.AvailableReplicas).To(BeEquivalentTo(2), "its pods: %s", describePods(operatorNamespace))
		}, settleTimeout, "500ms").Should(Succeed())
	})

	It("does the main job from inside the cluster, through its Service and its certificate", func() {
		const name = "inside"
		fleet := newFleet(name, 2, 2, nil)
		registration := &admissionregistrationv1.MutatingWebhookConfiguration{}
		Expect(c.Get(ctx, client.ObjectKey{Name: "sidecar-operator-" + name}, registration)).To(Succeed())
		Expect(registration.Webhooks[0].ClientConfig.Service).NotTo(BeNil())
		apps := identities(name, harness.AppContainer)
		done := observe(name, 1)
		Expect(harness.SetImage(ctx, c, name, name, image("agent:v2"))).To(Succeed())
		policy, err := harness.WaitReady(ctx, c, name, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		done()
		Expect(policy.Status.Pods.Updated).To(BeEquivalentTo(fleet.Pods()))
		Expect(identities(name, harness.AppContainer)).To(Equal(apps))
	})

	It("reports to the owners of a workload, who need no right on policies", func() {
		const name = "reported"
		newFleet(name, 1, 2, nil)
		Eventually(func() (*v1alpha1.SidecarReport, error) {
			report := &v1alpha1.SidecarReport{}
			return report, client.IgnoreNotFound(c.Get(ctx, client.ObjectKey{Namespace: name, Name: "deployment-app-00"}, report))
		}, settleTimeout, "500ms").Should(HaveField("Pods", v1alpha1.ReportCounts{Selected: 2, Updated: 2, Ready: 2}))

		kubectl(nil, "create", "rolebinding", "team", "-n", name, "--clusterrole=view", "--user=jane")
		Expect(kubectl(nil, "get", "sidecarreports", "-n", name, "--as=jane")).To(MatchRegexp(`deployment-app-00 +Current +2 +2 +2 +[0-9]+s`))
		Expect(cannot("get", "sidecarpolicies", "--as=jane")).To(ContainSubstring("forbidden"))
	})

	It("logs no error about missing rights", func() {
		for _, pod := range podsOf(operatorNamespace) {
			log := kubectl(nil, "logs", "-n", operatorNamespace, pod.Name)
			Expect(log).NotTo(ContainSubstring("is forbidden"), "pod %s", pod.Name)
		}
	})
})

// install applies the dist/install.yaml of a tree, with an operator's image of the given name that is made of the same tree.
func install(tree, ref string) {
	GinkgoHelper()
	_, err := images.Push(ctx, image(ref), images.Spec{Dir: tree, Package: "./cmd/manager"})
	Expect(err).NotTo(HaveOccurred())
	manifest, err := os.ReadFile(filepath.Join(tree, "dist", "install.yaml"))
	Expect(err).NotTo(HaveOccurred())
	Expect(managerImage.Match(manifest)).To(BeTrue())
	manifest = managerImage.ReplaceAll(manifest, []byte("image: "+image(ref)))
	kubectl(manifest, "apply", "--server-side", "--force-conflicts", "-f", "-")
}

// uninstall removes the policies and the operator's namespace. What has no namespace stays.
func uninstall() {
	GinkgoHelper()
	Expect(c.DeleteAllOf(ctx, &v1alpha1.SidecarPolicy{})).To(Succeed())
	kubectl(nil, "delete", "namespace", operatorNamespace, "--timeout=2m")
}

// removeCRDs makes way for the CRDs that an installation brings.
func removeCRDs() {
	GinkgoHelper()
	Expect(c.DeleteAllOf(ctx, &v1alpha1.SidecarPolicy{})).To(Succeed())
	kubectl(nil, "delete", "--ignore-not-found", "-f", filepath.Join(harness.Root(), "config", "crd", "bases"))
	DeferCleanup(func() { Expect(harness.InstallCRDs(node.Config())).To(Succeed()) })
}

// kubectl runs the kubectl of the cluster's own version.
func kubectl(stdin []byte, args ...string) string {
	GinkgoHelper()
	command := exec.CommandContext(ctx, filepath.Join(node.BinDir(), "kubectl"), args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+node.Kubeconfig())
	command.Stdin = bytes.NewReader(stdin)
	out, err := command.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
	return string(out)
}

// cannot runs kubectl where it must fail, and returns what it says.
func cannot(args ...string) string {
	GinkgoHelper()
	command := exec.CommandContext(ctx, filepath.Join(node.BinDir(), "kubectl"), args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+node.Kubeconfig())
	out, err := command.CombinedOutput()
	Expect(err).To(HaveOccurred(), string(out))
	return string(out)
}

func describePods(namespace string) string {
	text := ""
	for _, pod := range podsOf(namespace) {
		text += "\n" + pod.Name + " " + pod.Status.String()
	}
	return text
}
