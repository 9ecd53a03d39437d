package controllers_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/controllers"
	"github.com/sidecar-dev/sidecar-operator/internal/certs"
	"github.com/sidecar-dev/sidecar-operator/internal/selection"
)

func caBundle() []byte {
	GinkgoHelper()
	secret := &corev1.Secret{}
	Expect(server.Client.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: certificate}, secret)).To(Succeed())
	Expect(certs.CABundle(secret)).NotTo(BeEmpty())
	return certs.CABundle(secret)
}

var _ = Describe("The registration of a policy", func() {
	It("has the API server call for the pods that the policy selects, and for no others", func() {
		w := newReadyWorld(func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Selector.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"logs": "on"}}
		})
		registration := w.registration()
		Expect(registration.Labels).To(HaveKeyWithValue(v1alpha1.PolicyLabel, w.name))
		Expect(registration.OwnerReferences).To(HaveLen(1))
		Expect(registration.OwnerReferences[0].UID).To(Equal(w.policy().UID))
		Expect(registration.Webhooks).To(HaveLen(2))
		webhook := registration.Webhooks[1]
		Expect(webhook.NamespaceSelector).To(Equal(&metav1.LabelSelector{
			MatchLabels: map[string]string{"logs": "on"},
			MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"kube-system", operatorNamespace}},
				{Key: "fleet.sidecar.dev/inject", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"false"}},
			},
		}))
		Expect(webhook.ObjectSelector).To(Equal(&metav1.LabelSelector{
			MatchLabels: map[string]string{"fleet": w.name},
			MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: "app.kubernetes.io/name", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"sidecar-operator"}},
				{Key: "fleet.sidecar.dev/prefetch", Operator: metav1.LabelSelectorOpDoesNotExist},
				{Key: "fleet.sidecar.dev/inject", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"false"}},
				{Key: v1alpha1.RevisionLabel(w.name), Operator: metav1.LabelSelectorOpDoesNotExist},
			},
		}))
		Expect(webhook.MatchConditions).To(BeEmpty(), "it costs each pod that is created half a millisecond")
		Expect(webhook.Rules).To(ConsistOf(admissionregistrationv1.RuleWithOperations{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
			Rule: admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"},
				Scope: ptr.To(admissionregistrationv1.NamespacedScope)},
		}))
		Expect(webhook.FailurePolicy).To(HaveValue(Equal(admissionregistrationv1.Ignore)))
		Expect(webhook.ReinvocationPolicy).To(HaveValue(Equal(admissionregistrationv1.NeverReinvocationPolicy)))
		Expect(webhook.SideEffects).To(HaveValue(Equal(admissionregistrationv1.SideEffectClassNoneOnDryRun)))
		Expect(webhook.ClientConfig).To(Equal(admissionregistrationv1.WebhookClientConfig{
			URL: ptr.To("https://127.0.0.1:1/inject/ignore"), CABundle: caBundle(),
		}))

		By("asking about pods that are labelled already only where they lack a sidecar")
		labelled := registration.Webhooks[0]
		Expect(labelled.NamespaceSelector).To(Equal(webhook.NamespaceSelector))
		last := len(labelled.ObjectSelector.MatchExpressions) - 1
		Expect(labelled.ObjectSelector.MatchExpressions[last]).To(Equal(
			metav1.LabelSelectorRequirement{Key: v1alpha1.RevisionLabel(w.name), Operator: metav1.LabelSelectorOpExists}))
		Expect(labelled.MatchConditions).To(HaveLen(1))
	})

	It("has entries for each way to opt in, and goes back to those of one", func() {
		w := newReadyWorld(func(p *v1alpha1.SidecarPolicy) { p.Spec.Selector.Mode = v1alpha1.SelectOptIn })
		pairs := selection.Pairs(&w.policy().Spec.Selector, operatorNamespace)
		webhooks := w.registration().Webhooks
		Expect(webhooks).To(HaveLen(4))
		for i := range webhooks {
			labelled, others := pairs[i/2].Split(v1alpha1.RevisionLabel(w.name))
			want := []selection.Pair{labelled, others}[i%2]
			Expect(webhooks[i].NamespaceSelector).To(Equal(want.Namespaces))
			Expect(webhooks[i].ObjectSelector).To(Equal(want.Pods))
			Expect(webhooks[i].ClientConfig).To(Equal(webhooks[0].ClientConfig))
			Expect(webhooks[i].FailurePolicy).To(HaveValue(Equal(admissionregistrationv1.Ignore)))
		}
		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Selector.Mode = v1alpha1.SelectOptOut })
		w.settle()
		Expect(w.registration().Webhooks).To(HaveLen(2))
	})

	It("names the Service inside a cluster", func() {
		w := newWorld()
		w.reconciler.Webhook = controllers.WebhookEndpoint{Namespace: operatorNamespace, Service: "webhook", Secret: certificate, Port: 9443}
		w.settle()
		Expect(w.registration().Webhooks[0].ClientConfig).To(Equal(admissionregistrationv1.WebhookClientConfig{
			CABundle: caBundle(),
			Service: &admissionregistrationv1.ServiceReference{
				Namespace: operatorNamespace, Name: "webhook", Path: ptr.To("/inject/ignore"), Port: ptr.To[int32](443),
			},
		}))
	})

	It("follows the policy's selector and failurePolicy", func() {
		w := newReadyWorld()
		w.edit(func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Injection.FailurePolicy = v1alpha1.FailurePolicyFail
			p.Spec.Selector.PodSelector.MatchLabels = map[string]string{"other": "pods"}
		})
		w.settle()
		webhook := w.registration().Webhooks[0]
		Expect(webhook.FailurePolicy).To(HaveValue(Equal(admissionregistrationv1.Fail)))
		Expect(webhook.ObjectSelector.MatchLabels).To(Equal(map[string]string{"other": "pods"}))
	})

	It("is put right when somebody deletes or edits it", func() {
		w := newReadyWorld()
		want := w.registration()
		Expect(server.Client.Delete(ctx, want)).To(Succeed())
		w.settle()
		Expect(w.registration()).NotTo(BeNil())

		edited := w.registration()
		edited.Webhooks[0].NamespaceSelector = nil
		edited.Webhooks[0].FailurePolicy = ptr.To(admissionregistrationv1.Fail)
		edited.Labels, edited.OwnerReferences = nil, nil
		Expect(server.Client.Update(ctx, edited)).To(Succeed())
		w.settle()
		got := w.registration()
		Expect(got.Webhooks).To(Equal(want.Webhooks))
		Expect(got.Labels).To(Equal(want.Labels))
		Expect(got.OwnerReferences).To(Equal(want.OwnerReferences))
	})

	It("is removed while injection is paused, and running pods are still upgraded", func() {
		w := newReadyWorld()
		w.newFleet(1, 1)
		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Injection.Paused = true })
		w.settle()
		Expect(w.registration()).To(BeNil())
		Expect(w.condition(v1alpha1.ConditionInjecting)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonInjectionPaused))
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete))

		w.setImage("agent:v2")
		w.rollOut(func() {})
		Expect(w.images()).To(HaveEach("agent:v2"))

		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Injection.Paused = false })
		w.settle()
		Expect(w.registration()).NotTo(BeNil())
	})

	It("is written once, and not again while nothing changes", func() {
		w := newReadyWorld()
		before := w.registration().ResourceVersion
		w.settle()
		w.restartOperator()
		w.settle()
		Expect(w.registration().ResourceVersion).To(Equal(before))
	})
})
