package controllers_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	testclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/controllers"
	"github.com/sidecar-dev/sidecar-operator/internal/certs"
)

var _ = Describe("The webhook's certificate", func() {
	It("is made when there is none, and followed in time by another, which is served when every registration trusts it", func() {
		clock := testclock.NewFakeClock(time.Now())
		key := client.ObjectKey{Namespace: operatorNamespace, Name: "renewed"}
		r := &controllers.CertificateReconciler{Client: server.Client, Clock: clock, Key: key,
			Endpoint: controllers.WebhookEndpoint{Namespace: operatorNamespace, Service: "webhook", Secret: key.Name}}
		reconcile := func(due time.Duration) *corev1.Secret {
			GinkgoHelper()
			result, err := r.Reconcile(ctx, ctrl.Request{NamespacedName: key})
			Expect(err).NotTo(HaveOccurred())
			Expect(result.RequeueAfter).To(BeNumerically("~", due, time.Second))
			secret := &corev1.Secret{}
			Expect(server.Client.Get(ctx, key, secret)).To(Succeed())
			return secret
		}
		serves := func(s *corev1.Secret) string { return string(s.Data[corev1.TLSCertKey]) }
		first := reconcile(certs.CheckEvery)
		Expect((&certs.Store{}).Load(first)).To(Succeed())
		Expect(reconcile(certs.CheckEvery).ResourceVersion).To(Equal(first.ResourceVersion))

		// Of a policy whose spec is not accepted, say: its passes don't touch the registration.
		registration := &admissionregistrationv1.MutatingWebhookConfiguration{Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "inject.fleet.sidecar.dev", AdmissionReviewVersions: []string{"v1"}, SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone),
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: ptr.To("https://127.0.0.1:1/"), CABundle: certs.CABundle(first)}}}}
		registration.Name, registration.Labels = "left-alone", map[string]string{v1alpha1.PolicyLabel: "left-alone"}
		Expect(server.Client.Create(ctx, registration)).To(Succeed())
		DeferCleanup(func() { Expect(server.Client.Delete(ctx, registration)).To(Succeed()) })

		clock.Step(274 * 24 * time.Hour)
		Expect(reconcile(certs.CheckEvery).ResourceVersion).To(Equal(first.ResourceVersion), "there are 91 days left")
		clock.Step(2 * 24 * time.Hour)
		second := reconcile(certs.CheckEvery)
		Expect(serves(second)).To(Equal(serves(first)), "nobody trusts another one yet")
		Expect(certs.CABundle(second)).To(HavePrefix(string(certs.CABundle(first))))
		Expect(certs.CABundle(second)).NotTo(Equal(certs.CABundle(first)), "there are 89 days left")

		clock.Step(24 * time.Hour)
		Expect(serves(reconcile(certs.CheckEvery))).To(Equal(serves(first)), "the registration lacked the bundle till now")
		Expect(server.Client.Get(ctx, client.ObjectKeyFromObject(registration), registration)).To(Succeed())
		Expect(registration.Webhooks[0].ClientConfig.CABundle).To(Equal(certs.CABundle(second)))
		Expect(serves(reconcile(time.Hour))).To(Equal(serves(first)), "API servers are still to hear of it")
		clock.Step(time.Hour)
		last := reconcile(certs.CheckEvery)
		Expect(serves(last)).NotTo(Equal(serves(first)))
		Expect(certs.CABundle(last)).To(Equal(certs.CABundle(second)), "another replica may still serve the first one")
	})
})
