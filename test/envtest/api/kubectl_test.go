package api

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
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

		Expect(rowOf(tableOf("sidecarpolicies", "", policy.Name))).To(And(
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

	It("shows reports of workloads with long names, in all namespaces, on 120 characters", func() {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "payments-eu"}}
		Expect(server.Client.Create(ctx, namespace)).To(Succeed())
		report := &v1alpha1.SidecarReport{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "deployment-" + strings.Repeat("a", 26)},
			Workload: v1alpha1.WorkloadReference{APIVersion: "apps/v1", Kind: "Deployment", Name: strings.Repeat("a", 26)},
			State:    v1alpha1.ReportUpdating, Reason: v1alpha1.ReasonContainerNameConflict, Message: "pod web: it has a container of that name",
			Since:     metav1.NewTime(time.Now().Add(-47 * time.Hour)),
			WrittenAt: metav1.Now(), Pods: v1alpha1.ReportCounts{Selected: 10000, Updated: 10000, Ready: 10000, Failed: 3, Missing: 4},
			Policies: []v1alpha1.ReportedPolicy{{Policy: "x", Revision: "r", State: v1alpha1.ReportUpdating, Since: metav1.Now(), Pods: v1alpha1.ReportCounts{Selected: 1}}}}
		Expect(server.Client.Create(ctx, report)).To(Succeed())

		table := tableOf("sidecarreports", namespace.Name, report.Name)
		Expect(rowOf(table)).To(And(HaveKeyWithValue("STATE", "Updating"), HaveKeyWithValue("UPDATED", BeNumerically("==", 10000)), HaveKeyWithValue("READY", BeNumerically("==", 10000)),
			HaveKeyWithValue("REASON", "ContainerNameConflict"), HaveKeyWithValue("FAILED", BeNumerically("==", 3)), HaveKeyWithValue("MISSING", BeNumerically("==", 4))))
		Expect(widthOf(table, namespace.Name)).To(BeNumerically("<=", 120))
	})

	It("can't write the status with the spec", func() {
		policy := harness.Policy("status-with-spec", "x", "agent:v1")
		policy.Status.Phase = v1alpha1.PhaseComplete
		Expect(server.Client.Create(ctx, policy)).To(Succeed())
		DeferCleanup(func() { Expect(server.Client.Delete(ctx, policy)).To(Succeed()) })
		Expect(policy.Status.Phase).To(BeEmpty())
	})
})

// rowOf is the only row of a table, by the names of the columns.
func rowOf(table *metav1.Table) map[string]any {
	GinkgoHelper()
	Expect(table.Rows).To(HaveLen(1))
	row := map[string]any{}
	for i, column := range table.ColumnDefinitions {
		row[column.Name] = table.Rows[0].Cells[i]
	}
	return row
}

// widthOf is how wide kubectl get -A draws a table: of each column the widest cell or the heading, and three blanks between them.
func widthOf(table *metav1.Table, namespace string) int {
	width := max(len("NAMESPACE"), len(namespace))
	for i, column := range table.ColumnDefinitions {
		if column.Priority > 0 {
			continue // with -o wide
		}
		cell := fmt.Sprint(table.Rows[0].Cells[i])
		if number, ok := table.Rows[0].Cells[i].(float64); ok {
			cell = strconv.Itoa(int(number))
		}
		width += 3 + max(len(column.Name), len(cell))
	}
	return width
}

// tableOf asks for an object as kubectl get does.
func tableOf(resource, namespace, name string) *metav1.Table {
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
	Expect(client.Get().NamespaceIfScoped(namespace, namespace != "").Resource(resource).Name(name).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Do(ctx).Into(table)).To(Succeed())
	return table
}
