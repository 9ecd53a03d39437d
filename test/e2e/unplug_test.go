//go:build e2e

package e2e

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var _ = Describe("Plugging and unplugging", func() {
	It("replaces pods that missed the sidecar, and takes it out when the policy goes, under a PodDisruptionBudget", func() {
		const name = "unplug"
		fleet := newFleet(name, 2, 2, func(p *v1alpha1.SidecarPolicy) {
			all := intstr.FromString("100%")
			p.Spec.OnRemoval = v1alpha1.RemovalRecreate
			p.Spec.Rollout.Budgets = []v1alpha1.Budget{{Per: v1alpha1.PerFleet, MaxUnavailable: &all}, {Per: v1alpha1.PerWorkload, MaxUnavailable: &all}}
		})
		DeferCleanup(func() { // or a failure in the middle would keep the policy
			err := harness.Edit(ctx, c, name, func(p *v1alpha1.SidecarPolicy) { p.Spec.OnRemoval = v1alpha1.RemovalKeep })
			Expect(client.IgnoreNotFound(err)).To(Succeed())
		})

		By("restarting an app while the operator is away")
		manager.Kill()
		kubectl(nil, "rollout", "restart", "-n", name, "deployment/app-00")
		kubectl(nil, "rollout", "status", "-n", name, "deployment/app-00", "--timeout=2m")
		Eventually(func() int { return len(podsOf(name)) }, settleTimeout, "200ms").Should(Equal(fleet.Pods()))
		Expect(carrying(name)).To(HaveLen(2))
		for i := range fleet.Deployments {
			protect(name, fmt.Sprintf("app-%02d", i), 1)
		}
		startManager()
		policy, err := harness.WaitForPolicy(ctx, c, name, settleTimeout, func(p *v1alpha1.SidecarPolicy) bool { return p.Status.Pods.Missing == 2 })
		Expect(err).NotTo(HaveOccurred())
		Expect(policy.Status.Unhealthy).To(ContainElement(And(HaveField("Workload", "Deployment/unplug/app-00"), HaveField("Reason", v1alpha1.ReasonMissing))))
		Expect(carrying(name)).To(HaveLen(2), "they are only reported")

		By("replacing them")
		observer, err := harness.Observe(ctx, c, name)
		Expect(err).NotTo(HaveOccurred())
		Expect(harness.Edit(ctx, c, name, func(p *v1alpha1.SidecarPolicy) { p.Spec.Missing = v1alpha1.MissingRecreate })).To(Succeed())
		_, err = harness.WaitForPolicy(ctx, c, name, settleTimeout, func(p *v1alpha1.SidecarPolicy) bool {
			return p.Status.Pods.Missing == 0 && int(p.Status.Pods.Updated) == fleet.Pods()
		})
		Expect(err).NotTo(HaveOccurred())
		Expect(carrying(name)).To(HaveLen(fleet.Pods()))

		By("deleting the policy")
		before := podsOf(name)
		Expect(c.Delete(ctx, policy)).To(Succeed())
		Eventually(func() bool { return apierrors.IsNotFound(c.Get(ctx, client.ObjectKey{Name: name}, policy)) }, settleTimeout, "200ms").
			Should(BeTrue(), func() string { return harness.Describe(policy) })
		Expect(carrying(name)).To(BeEmpty())
		Expect(harness.WaitPodsReady(ctx, c, name, fleet.Pods(), settleTimeout)).To(Succeed())
		observer.Stop()
		Expect(observer.Violations()).To(BeEmpty())
		for workload, down := range observer.MaxUnavailable() {
			Expect(down).To(BeNumerically("<=", 1), "pods of %s that were not ready at once", workload)
		}
		for _, pod := range podsOf(name) {
			Expect(before).NotTo(ContainElement(HaveField("UID", pod.UID)))
		}
		Expect(registered(name)).To(BeFalse())
	})

	It("leaves nothing in the way where the operator and its CRD are removed together", func() {
		const name = "uninstall"
		fleet := newFleet(name, 1, 2, func(p *v1alpha1.SidecarPolicy) { p.Spec.Injection.FailurePolicy = v1alpha1.FailurePolicyFail })
		agents := identities(name, name)
		manager.Kill()
		DeferCleanup(func() {
			Expect(harness.InstallCRDs(node.Config())).To(Succeed())
			startManager()
		})
		kubectl(nil, "delete", "crd", "sidecarpolicies.fleet.sidecar.dev", "--timeout=1m")
		Eventually(func() bool { return registered(name) }, settleTimeout, "200ms").Should(BeFalse(), "the garbage collector removes the registration")
		Expect(identities(name, name)).To(Equal(agents), "the sidecars run on")
		deployment := &appsv1.Deployment{}
		Expect(c.Get(ctx, client.ObjectKey{Namespace: name, Name: "app-00"}, deployment)).To(Succeed())
		deployment.Spec.Replicas = ptr.To[int32](3)
		Expect(c.Update(ctx, deployment)).To(Succeed())
		Expect(harness.WaitPodsReady(ctx, c, name, fleet.Pods()+1, time.Minute)).To(Succeed())
	})
})

// carrying names the pods of a namespace that have the sidecar of the policy of the same name.
func carrying(name string) []string {
	GinkgoHelper()
	var pods []string
	for _, pod := range podsOf(name) {
		for _, container := range pod.Spec.InitContainers {
			if container.Name == name && pod.DeletionTimestamp == nil {
				pods = append(pods, pod.Name)
			}
		}
	}
	return pods
}

// protect makes a PodDisruptionBudget for a Deployment.
func protect(namespace, app string, minAvailable int32) {
	GinkgoHelper()
	Expect(c.Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: app},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: ptr.To(intstr.FromInt32(minAvailable)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{harness.AppLabel: app}},
		},
	})).To(Succeed())
}

// registered says whether the API server asks anybody about a policy's pods.
func registered(policy string) bool {
	GinkgoHelper()
	err := c.Get(ctx, client.ObjectKey{Name: "sidecar-operator-" + policy}, &admissionregistrationv1.MutatingWebhookConfiguration{})
	Expect(client.IgnoreNotFound(err)).To(Succeed())
	return err == nil
}
