package controllers_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	testclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/controllers"
	"github.com/sidecar-dev/sidecar-operator/internal/certs"
)

var _ = Describe("The webhook's certificate", func() {
	It("is made when there is none, kept while it is good, and renewed in time", func() {
		clock := testclock.NewFakeClock(time.Now())
		key := client.ObjectKey{Namespace: operatorNamespace, Name: "renewed"}
		r := &controllers.CertificateReconciler{Client: server.Client, Clock: clock, Key: key,
			Endpoint: controllers.WebhookEndpoint{Namespace: operatorNamespace, Service: "webhook", Secret: key.Name}}
		reconcile := func() *corev1.Secret {
			GinkgoHelper()
			result, err := r.Reconcile(ctx, ctrl.Request{NamespacedName: key})
			Expect(err).NotTo(HaveOccurred())
			Expect(result.RequeueAfter).To(Equal(certs.CheckEvery))
			secret := &corev1.Secret{}
			Expect(server.Client.Get(ctx, key, secret)).To(Succeed())
			return secret
		}
		first := reconcile()
		Expect((&certs.Store{}).Load(first)).To(Succeed())
		Expect(reconcile().ResourceVersion).To(Equal(first.ResourceVersion))

		clock.Step(274 * 24 * time.Hour)
		Expect(reconcile().ResourceVersion).To(Equal(first.ResourceVersion), "there are 91 days left")
		clock.Step(2 * 24 * time.Hour)
		Expect(certs.CABundle(reconcile())).NotTo(Equal(certs.CABundle(first)), "there are 89 days left")
	})
})
