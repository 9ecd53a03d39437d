package docs

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var (
	shell  = regexp.MustCompile("(?ms)^```sh\n(.*?)^```")
	inline = regexp.MustCompile("`(kubectl [a-z][^`]*)`")
	// fragment is a command that is named and not meant to be run as it stands; the plugin's are run by its own suite.
	fragment = regexp.MustCompile(`^kubectl( sidecar.*| [a-z]+| rollout restart| get pods -L)$|\b(POD|REVISION|STEP)\b|<name>`)
)

// elsewhere are the pages whose commands another suite runs.
var elsewhere = []string{
	"first-policy.md", // test/e2e/guide_test.go, on a real node
	"install-olm.md",  // test/e2e/olm_test.go, with a real OLM
}

// instead is what is run for the parts of a command that need a controller which an API server alone has not.
var instead = strings.NewReplacer(
	"POLICY", "log-agent", "NAME", "log-agent",
	"sidecarpolicies -w", "sidecarpolicies", "scp -w", "scp",
	"delete -f dist/install.yaml", "delete --dry-run=server -f dist/install.yaml", // a namespace needs its controller to go
	"kubectl logs -n", "kubectl get -n", // no kubelet
	" | grep -v Running", "", // no pods
	"config/prometheus | kubectl apply --server-side -f -", "config/prometheus", // the kinds of the Prometheus operator are not there
)

var _ = Describe("Commands", func() {
	It("of the pages work", func() {
		DeferCleanup(func() { Expect(server.Client.DeleteAllOf(ctx, &v1alpha1.SidecarPolicy{})).To(Succeed()) })
		run := commandLine()
		pages := files(".md")
		Expect(run("kubectl apply --server-side -f dist/install.yaml")).To(Succeed())
		ran, failed := 0, []string(nil)
		for _, path := range slices.Sorted(maps.Keys(pages)) {
			if slices.Contains(elsewhere, filepath.Base(path)) || filepath.Base(filepath.Dir(path)) == "design" {
				continue
			}
			for _, line := range lines(pages[path]) {
				world()
				settle()
				if err := run(line); err != nil {
					failed = append(failed, path+": "+line)
				}
				ran++
			}
		}
		Expect(failed).To(BeEmpty())
		Expect(ran).To(BeNumerically(">", 30))
	})
})

// lines are the commands of kubectl in a page, in its order: of blocks, then of the text.
func lines(page string) []string {
	var found []string
	for _, block := range shell.FindAllStringSubmatch(page, -1) {
		for line := range strings.Lines(block[1]) {
			if line, _, _ = strings.Cut(strings.TrimSpace(line), "  #"); strings.HasPrefix(line, "kubectl ") {
				found = append(found, strings.TrimSpace(line))
			}
		}
	}
	for _, code := range inline.FindAllStringSubmatch(shell.ReplaceAllString(page, ""), -1) {
		if line := strings.Join(strings.Fields(code[1]), " "); !fragment.MatchString(line) {
			found = append(found, line)
		}
	}
	return found
}

// commandLine runs a command as an administrator, in the root of the tree.
func commandLine() func(command string) error {
	GinkgoHelper()
	kubeconfig := writeKubeconfig()
	file := filepath.Join(filepath.Dir(kubeconfig), "policy.yaml")
	text, err := os.ReadFile(filepath.Join(harness.Root(), "config", "samples", "fleet_v1alpha1_sidecarpolicy.yaml"))
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(file, text, 0o600)).To(Succeed())
	return func(command string) error {
		command = strings.ReplaceAll(instead.Replace(command), " policy.yaml", " "+file)
		shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", command)
		shell.Dir = harness.Root()
		shell.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "KUBE_EDITOR=true",
			"PATH="+os.Getenv("KUBEBUILDER_ASSETS")+":"+os.Getenv("PATH"))
		out, err := shell.CombinedOutput()
		GinkgoWriter.Println("$", command+"\n"+string(out))
		return err
	}
}

// world is what the pages speak of: a policy, and the workload cart of the namespace shop with its report.
func world() {
	GinkgoHelper()
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "cart"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "cart"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:v1"}}}},
	}}
	report := &v1alpha1.SidecarReport{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "deployment-cart"},
		Workload: v1alpha1.WorkloadReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "cart"},
		State:    v1alpha1.ReportCurrent, Since: metav1.Now(), WrittenAt: metav1.Now(), Pods: v1alpha1.ReportCounts{Selected: 1},
		Policies: []v1alpha1.ReportedPolicy{{Policy: "log-agent", Revision: "4be31a0c7d", State: v1alpha1.ReportCurrent, Since: metav1.Now(), Pods: v1alpha1.ReportCounts{Selected: 1}}}}
	for _, object := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, deployment, report, harness.Policy("log-agent", "x", "agent:v1"),
	} {
		Expect(client.IgnoreAlreadyExists(server.Client.Create(ctx, object))).To(Succeed(), object.GetName())
	}
}

// settle writes what controllers would have written in the end.
func settle() {
	GinkgoHelper()
	var policies v1alpha1.SidecarPolicyList
	Expect(server.Client.List(ctx, &policies)).To(Succeed())
	for i := range policies.Items {
		policy := &policies.Items[i]
		policy.Status.ObservedGeneration = policy.Generation
		policy.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue,
			Reason: "Complete", ObservedGeneration: policy.Generation, LastTransitionTime: metav1.Now()}}
		Expect(server.Client.Status().Update(ctx, policy)).To(Succeed())
	}
	var deployments appsv1.DeploymentList
	Expect(server.Client.List(ctx, &deployments)).To(Succeed())
	for i := range deployments.Items {
		d := &deployments.Items[i]
		want := *d.Spec.Replicas
		d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: want, UpdatedReplicas: want, ReadyReplicas: want, AvailableReplicas: want}
		Expect(server.Client.Status().Update(ctx, d)).To(Succeed())
	}
}
