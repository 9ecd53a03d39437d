package admission

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/certs"
)

var _ = Describe("A certificate that is good for seconds", Serial, func() {
	BeforeEach(func() {
		operator.stop()
		DeferCleanup(func() { operator.start() })
	})

	It("is replaced again and again in both replicas, and no pod is refused", func() {
		port := freePort()
		address := func(host string) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
		replicas := []string{address("127.0.0.2"), address("127.0.0.3")}
		service := balance(address("127.0.0.1"), replicas...)
		for _, host := range []string{"127.0.0.2", "127.0.0.3"} {
			o := &runningOperator{options: operatorOptions(port)}
			o.options.WebhookBind, o.options.LeaderElect, o.options.Webhook.Secret = host, true, "short-lived"
			o.options.Certificates = certs.Schedule{Lifetime: 16 * time.Second, RenewBefore: 14 * time.Second, Overlap: time.Second}
			o.start()
			DeferCleanup(o.stop)
		}
		createNamespace("rotating", nil)
		createPolicy("rotating", func(p *v1alpha1.SidecarPolicy) { p.Spec.Injection.FailurePolicy = v1alpha1.FailurePolicyFail })
		policy := waitReady("rotating")

		known := bundle("rotating") // what an API server has heard of that is a little behind
		served := map[string]map[string]bool{}
		var firstEnds time.Time
		created := 0
		for begun := time.Now(); !all(replicas, served, 4) || time.Now().Before(firstEnds); created++ {
			Expect(time.Since(begun)).To(BeNumerically("<", 2*patience), "certificates are not replaced; served so far: %v", served)
			service.drain()
			p := pod("rotating", fmt.Sprintf("web-%d", created))
			Expect(c.Create(ctx, p)).To(Succeed(), "pod %d; served so far: %v", created, served)
			Expect(checkInjected(p, policy)).To(Succeed())
			Expect(server.Client.Delete(ctx, p, client.GracePeriodSeconds(0))).To(Succeed())
			next := bundle("rotating")
			for _, replica := range replicas {
				for _, trusted := range [][]byte{known, next} {
					certificate, err := handshake(replica, trusted)
					Expect(err).NotTo(HaveOccurred(), "replica %s after pod %d", replica, created)
					if firstEnds.IsZero() {
						firstEnds = certificate.NotAfter
					}
					if served[replica] == nil {
						served[replica] = map[string]bool{}
					}
					served[replica][certificate.SerialNumber.String()] = true
				}
			}
			known = next
		}
		AddReportEntry("pods", created)
	})
})

// all says whether every replica has served as many certificates.
func all(replicas []string, served map[string]map[string]bool, want int) bool {
	for _, replica := range replicas {
		if len(served[replica]) < want {
			return false
		}
	}
	return true
}

// bundle is what the API server is to trust for a policy.
func bundle(policy string) []byte {
	GinkgoHelper()
	registration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	Expect(server.Client.Get(ctx, client.ObjectKey{Name: "sidecar-operator-" + policy}, registration)).To(Succeed())
	return registration.Webhooks[0].ClientConfig.CABundle
}

// handshake connects to a replica as an API server does that trusts the bundle.
func handshake(address string, bundle []byte) (*x509.Certificate, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	connection, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = connection.Close() }()
	return connection.ConnectionState().PeerCertificates[0], nil
}
