package plugin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/internal/plugin/doctor"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// found is what doctor finds in a check.
func found(check string) []doctor.Finding {
	GinkgoHelper()
	r := sidecar("doctor", "-o", "json")
	var all, findings []doctor.Finding
	Expect(json.Unmarshal([]byte(r.out), &all)).To(Succeed(), r.out+r.err)
	for _, f := range all {
		if f.Check == check {
			findings = append(findings, f)
		}
	}
	return findings
}

// installed applies what dist/install.yaml has of a kind.
func installed(kind string) {
	GinkgoHelper()
	data, err := os.ReadFile(filepath.Join(harness.Root(), "dist", "install.yaml"))
	Expect(err).NotTo(HaveOccurred())
	for _, document := range strings.Split(string(data), "\n---\n") {
		object := &unstructured.Unstructured{}
		Expect(yaml.Unmarshal([]byte(document), &object.Object)).To(Succeed())
		if object.GetKind() == kind {
			Expect(server.Client.Create(ctx, object)).To(Succeed())
			DeferCleanup(func() { Expect(server.Client.Delete(ctx, object)).To(Succeed()) })
		}
	}
}

var _ = Describe("The doctor", func() {
	It("says what an installation lacks, and what to do", func() {
		newPolicy("sick")
		r := sidecar("doctor")
		Expect(r.code).To(Equal(0), "the operator of this suite runs outside of the cluster, and lacks nothing that it needs")
		Expect(r.out).To(And(
			MatchRegexp(`ok +crds +sidecarpolicies and sidecarreports are served in v1alpha1`),
			MatchRegexp(`warning +roles +ClusterRole sidecar-operator-sidecarpolicy-editor-role is not there.*\n +-> install the operator again`),
			MatchRegexp(`ok +access +the operator runs outside of the cluster`),
			MatchRegexp(`ok +permissions +you may do all`),
			MatchRegexp(`ok +certificate +the certificate is good until`)))
		Expect(found("registrations")).To(ConsistOf(HaveField("Message", "1 policies, 1 registrations")))

		installed("ClusterRole")
		Expect(found("roles")).To(ConsistOf(HaveField("Level", doctor.OK)))
		installed("Deployment")
		Expect(sidecar("doctor").code).To(Equal(1))
		Expect(found("manager")).To(ConsistOf(HaveField("Message", ContainSubstring("none of 2 replicas of Deployment sidecar-operator-system/sidecar-operator-controller-manager is ready"))))
		deployment := &appsv1.Deployment{}
		Expect(server.Client.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: "sidecar-operator-controller-manager"}, deployment)).To(Succeed())
		deployment.Status.Replicas, deployment.Status.ReadyReplicas, deployment.Status.AvailableReplicas = 2, 2, 2
		Expect(server.Client.Status().Update(ctx, deployment)).To(Succeed())
		Expect(found("manager")).To(ConsistOf(HaveField("Message", ContainSubstring("2 replicas of ghcr.io/"))))

		By("binding its roles last")
		installed("Role")
		Expect(found("access")).To(ConsistOf(And(HaveField("Level", doctor.Broken), HaveField("Message",
			ContainSubstring("system:serviceaccount:sidecar-operator-system:sidecar-operator-controller-manager may not do ")))))
		installed("ClusterRoleBinding")
		access := func() []doctor.Finding { return found("access") }
		Eventually(access).Should(ConsistOf(HaveField("Message", ContainSubstring(" in namespace sidecar-operator-system"))), "the authorizer has seen it")
		installed("RoleBinding")
		Eventually(access).Should(ConsistOf(HaveField("Level", doctor.OK)), "the authorizer has seen it")
		Expect(sidecar("doctor").code).To(Equal(0), sidecar("doctor").out)
	})

	It("tells what somebody without rights can't do", func() {
		r := sidecar("doctor", "--as", "nobody")
		Expect(r.out).To(And(ContainSubstring("you may not patch sidecarpolicies.fleet.sidecar.dev, which steering needs"), ContainSubstring("could not be read")))
		Expect(refuse("status", "--as", "nobody")).To(ContainSubstring("ask for the ClusterRole sidecar-operator-sidecarpolicy-viewer-role"))
	})
})
