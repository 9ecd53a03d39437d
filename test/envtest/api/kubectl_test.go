package api

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var _ = Describe("kubectl", func() {
	It("knows the short name scp, the categories and the status subresource", func() {
		client, err := discovery.NewDiscoveryClientForConfig(server.Config)
		Expect(err).NotTo(HaveOccurred())
		list, err := client.ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String())
		Expect(err).NotTo(HaveOccurred())
		resources := map[string]metav1.APIResource{}
		for _, r := range list.APIResources {
			resources[r.Name] = r
		}
		policies := resources["sidecarpolicies"]
		Expect(policies.ShortNames).To(ConsistOf("scp"))
		Expect(policies.Categories).To(ContainElements("all", "fleet"))
		Expect(policies.Namespaced).To(BeFalse())
		Expect(resources).To(HaveKey("sidecarpolicies/status"))
	})

	It("shows where the roll-out stands", func() {
		policy := harness.Policy("columns", "columns", "agent:v1")
		Expect(server.Client.Create(ctx, policy)).To(Succeed())
		DeferCleanup(func() { Expect(server.Client.Delete(ctx, policy)).To(Succeed()) })
		policy.Status = v1alpha1.SidecarPolicyStatus{
			Phase: v1alpha1.PhaseProgressing, StableRevision: "aaaa", TargetRevision: "bbbb",
			Pods: &v1alpha1.PodCounts{Selected: 7, Updated: 6, Ready: 5, Unavailable: 4},
		}
		Expect(server.Client.Status().Update(ctx, policy)).To(Succeed())

		table := tableOf("sidecarpolicies", policy.Name)
		Expect(table.Rows).To(HaveLen(1))
		row := map[string]any{}
		for i, column := range table.ColumnDefinitions {
			row[column.Name] = table.Rows[0].Cells[i]
		}
		Expect(row).To(And(
			HaveKeyWithValue("Name", "columns"),
			HaveKeyWithValue("PHASE", "Progressing"),
			HaveKeyWithValue("SELECTED", BeNumerically("==", 7)),
			HaveKeyWithValue("UPDATED", BeNumerically("==", 6)),
			HaveKeyWithValue("READY", BeNumerically("==", 5)),
			HaveKeyWithValue("UNAVAILABLE", BeNumerically("==", 4)),
			HaveKeyWithValue("STABLE", "aaaa"),
			HaveKeyWithValue("TARGET", "bbbb"),
			HaveKeyWithValue("AGE", Not(BeEmpty())),
		))
	})

	It("can't write the status with the spec", func() {
		policy := harness.Policy("status-with-spec", "x", "agent:v1")
		policy.Status.Phase = v1alpha1.PhaseComplete
		Expect(server.Client.Create(ctx, policy)).To(Succeed())
		DeferCleanup(func() { Expect(server.Client.Delete(ctx, policy)).To(Succeed()) })
		Expect(policy.Status.Phase).To(BeEmpty())
	})
})

// tableOf asks for an object as kubectl get does.
func tableOf(resource, name string) *metav1.Table {
	GinkgoHelper()
	scheme := runtime.NewScheme()
	Expect(metav1.AddMetaToScheme(scheme)).To(Succeed())
	config := rest.CopyConfig(server.Config)
	config.GroupVersion = ptr.To(v1alpha1.GroupVersion)
	config.APIPath = "/apis"
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	Expect(err).NotTo(HaveOccurred())
	table := &metav1.Table{}
	Expect(client.Get().Resource(resource).Name(name).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Do(ctx).Into(table)).To(Succeed())
	return table
}
