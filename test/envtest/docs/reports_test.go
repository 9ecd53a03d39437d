package docs

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var _ = Describe("The manager's flag --reports", func() {
	const name = "reports-flag"

	It("turns reports off", func() {
		policy := harness.Policy(name, name, "agent:v1")
		Expect(server.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
		Expect(server.Client.Create(ctx, policy)).To(Succeed())
		DeferCleanup(func() {
			registration := &admissionregistrationv1.MutatingWebhookConfiguration{} // there is no garbage collector here
			registration.Name = "sidecar-operator-" + name
			Expect(server.Client.Delete(ctx, policy)).To(Succeed())
			Expect(client.IgnoreNotFound(server.Client.Delete(ctx, registration))).To(Succeed())
		})
		newWorkload(name)

		dir := GinkgoT().TempDir()
		binary, err := harness.BuildManager(ctx, dir)
		Expect(err).NotTo(HaveOccurred())
		kubeconfig := writeKubeconfig()
		reports := func() ([]v1alpha1.SidecarReport, error) {
			list := &v1alpha1.SidecarReportList{}
			err := server.Client.List(ctx, list, client.InNamespace(name))
			return list.Items, err
		}
		manager, err := harness.StartManager(ctx, binary, kubeconfig, dir, "--reports=false")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() { manager.Stop() })
		Eventually(func() (*v1alpha1.PodCounts, error) {
			err := server.Client.Get(ctx, client.ObjectKeyFromObject(policy), policy)
			return policy.Status.Pods, err
		}, "30s", "100ms").Should(HaveValue(HaveField("Selected", BeEquivalentTo(1))), "the manager has seen the pod")
		Consistently(reports, "2s", "100ms").Should(BeEmpty())
		manager.Stop()

		manager, err = harness.StartManager(ctx, binary, kubeconfig, dir)
		Expect(err).NotTo(HaveOccurred())
		Eventually(reports, "30s", "100ms").Should(ConsistOf(HaveField("Name", "deployment-web")), "without the flag")
	})
})

// newWorkload creates a Deployment with one pod, as controllers would.
func newWorkload(namespace string) {
	GinkgoHelper()
	labels := map[string]string{harness.FleetLabel: namespace}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:v1"}}}}
	selector := &metav1.LabelSelector{MatchLabels: labels}
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web"}, Spec: appsv1.DeploymentSpec{Selector: selector, Template: template}}
	Expect(server.Client.Create(ctx, deployment)).To(Succeed())
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web-1",
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(deployment, appsv1.SchemeGroupVersion.WithKind("Deployment"))}},
		Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template}}
	Expect(server.Client.Create(ctx, rs)).To(Succeed())
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web-1-a", Labels: labels,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}}, Spec: template.Spec}
	Expect(server.Client.Create(ctx, pod)).To(Succeed())
}
