//go:build e2e

package e2e

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	gocmp "github.com/google/go-cmp/cmp"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// upgradeFrom names the environment variable that has the upgrade start from another commit, as a release's tag.
const upgradeFrom = "UPGRADE_FROM"

var _ = Describe("An upgrade of the operator", func() {
	It("from the previous commit's build changes no running pod, and goes on with what it finds", func() {
		const name, previous = "carried-over", "sidecar-operator:previous"
		tree := checkOut(cmp.Or(os.Getenv(upgradeFrom), "HEAD~1"))
		manager.Stop()
		DeferCleanup(startManager)
		removeCRDs()
		install(tree, previous)
		DeferCleanup(uninstall)
		waitForLeader(previous)
		newFleet(name, 2, 3, func(p *v1alpha1.SidecarPolicy) { p.Spec.Injection.FailurePolicy = v1alpha1.FailurePolicyFail })
		// Roll out a revision, so that there is more to misread than what injection wrote.
		Expect(harness.SetImage(ctx, c, name, name, image("agent:v2"))).To(Succeed())
		_, err := harness.WaitReady(ctx, c, name, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		before := carriedOver(name)
		done := observe(name, 0)

		install(harness.Root(), operatorImage)
		waitForLeader(operatorImage)
		// A change that is for no pod: when it is observed, the new operator has judged every pod.
		Expect(harness.Edit(ctx, c, name, func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Rollout.Health.ProgressDeadlineSeconds = ptr.To[int32](60)
		})).To(Succeed())
		policy, err := harness.WaitReady(ctx, c, name, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		done()
		Expect(gocmp.Diff(before, carriedOver(name))).To(BeEmpty(), "the pods, -before +after; the policy: %s", harness.Describe(policy))

		done = observe(name, 1)
		apps := identities(name, harness.AppContainer)
		Expect(harness.SetImage(ctx, c, name, name, image("agent:v3"))).To(Succeed())
		_, err = harness.WaitReady(ctx, c, name, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		done()
		Expect(identities(name, harness.AppContainer)).To(Equal(apps))
	})
})

// checkOut is the tree of a commit in a folder of its own. The test is skipped where git does not have the commit.
func checkOut(commit string) string {
	GinkgoHelper()
	if out, err := git("rev-parse", "--verify", commit+"^{commit}"); err != nil {
		Skip("NOT RUN, git has no " + commit + " (a shallow clone, or no repository?): " + out)
	}
	archive, tree := filepath.Join(GinkgoT().TempDir(), "tree.tar"), GinkgoT().TempDir()
	out, err := git("archive", "--output="+archive, commit)
	Expect(err).NotTo(HaveOccurred(), out)
	unpacked, err := exec.CommandContext(ctx, "tar", "-xf", archive, "-C", tree).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(unpacked))
	Expect(os.Remove(archive)).To(Succeed())
	return tree
}

func git(args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", harness.Root()}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// waitForLeader waits until a pod with the operator's image of the given name leads, and no other is left.
func waitForLeader(ref string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		pods := podsOf(operatorNamespace)
		g.Expect(pods).To(HaveLen(2))
		leader := &coordinationv1.Lease{}
		g.Expect(c.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: "sidecar-operator.fleet.sidecar.dev"}, leader)).To(Succeed())
		var leads []string
		for _, pod := range pods {
			g.Expect(pod.Spec.Containers[0].Image).To(Equal(image(ref)), "pod %s", pod.Name)
			g.Expect(harness.Ready(&pod)).To(BeTrue(), "pod %s: %s", pod.Name, pod.Status.String())
			if strings.HasPrefix(ptr.Deref(leader.Spec.HolderIdentity, ""), pod.Name+"_") {
				leads = append(leads, pod.Name)
			}
		}
		g.Expect(leads).To(HaveLen(1), "one of them holds the lease: %v", leader.Spec.HolderIdentity)
	}, settleTimeout, "200ms").Should(Succeed())
}

// carriedPod is all of a pod that an upgrade of the operator must leave as it is.
type carriedPod struct {
	UID                 types.UID
	Generation          int64
	Labels, Annotations map[string]string
	Spec                corev1.PodSpec
	Containers          map[string]harness.Identity
}

// carriedOver are the pods of a namespace, by name.
func carriedOver(namespace string) map[string]carriedPod {
	GinkgoHelper()
	pods := map[string]carriedPod{}
	for _, pod := range podsOf(namespace) {
		containers := map[string]harness.Identity{}
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for _, container := range list {
				containers[container.Name] = harness.IdentityOf(&pod, container.Name)
			}
		}
		pods[pod.Name] = carriedPod{pod.UID, pod.Generation, pod.Labels, pod.Annotations, pod.Spec, containers}
	}
	return pods
}
