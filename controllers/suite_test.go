package controllers_test

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/sidecar-dev/sidecar-operator/internal/certs"
	"github.com/sidecar-dev/sidecar-operator/test/envtest/apiserver"
)

// operatorNamespace is where the operator of this suite keeps its things.
const operatorNamespace = "sidecar-operator-system"

// certificate is the Secret of the webhook's certificate.
const certificate = "webhook-cert"

var (
	ctx    = context.Background()
	server *apiserver.Server
)

// The reconcilers are called directly, against a real API server: nothing runs unless a
// test says so, and time stands still until a test moves it.
func TestControllers(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "Controllers")
}

var _ = BeforeSuite(func() {
	ctrl.SetLogger(GinkgoLogr)
	var err error
	server, err = apiserver.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(server.Stop()).To(Succeed()) })
	namespace := &corev1.Namespace{}
	namespace.Name = operatorNamespace
	Expect(server.Client.Create(ctx, namespace)).To(Succeed())
	secret := &corev1.Secret{}
	secret.Namespace, secret.Name = operatorNamespace, certificate
	_, err = certs.Schedule{}.Renew(secret, "127.0.0.1", true, time.Now())
	Expect(err).NotTo(HaveOccurred())
	Expect(server.Client.Create(ctx, secret)).To(Succeed())
})
