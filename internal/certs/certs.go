// Package certs makes the webhook's certificates and serves them. They live in
// one Secret, so that all replicas serve the same.
package certs

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	corev1 "k8s.io/api/core/v1"
)

// Keys of the Secret.
const (
	caCertKey = "ca.crt"
	caKeyKey  = "ca.key"
)

const (
	caName = "sidecar-operator-ca"
	// lifetime is how long certificates are valid, renewBefore how long before their
	// end they are replaced.
	lifetime    = 365 * 24 * time.Hour
	renewBefore = 90 * 24 * time.Hour
)

// CheckEvery is how often the certificate should be looked at.
const CheckEvery = 12 * time.Hour

// CABundle is the certificate, in PEM, that clients verify the webhook with; nil while there is none.
func CABundle(secret *corev1.Secret) []byte { return secret.Data[caCertKey] }

// Renew fills the Secret with a certificate for the host, a DNS name or an IP
// address, where it holds none that is good for long enough. It says whether it did.
func Renew(secret *corev1.Secret, host string, now time.Time) (bool, error) {
	if valid(secret, host, now.Add(renewBefore)) {
		return false, nil
	}
	ca, err := (&rotator.CertRotator{CAName: caName, CAOrganization: "sidecar-operator"}).
		CreateCACert(now.Add(-time.Hour), now.Add(lifetime))
	if err != nil {
		return false, fmt.Errorf("creating the certificate authority: %w", err)
	}
	cert, key, err := sign(ca, host, now)
	if err != nil {
		return false, fmt.Errorf("signing the certificate for %s: %w", host, err)
	}
	secret.Type = corev1.SecretTypeOpaque
	secret.Data = map[string][]byte{
		caCertKey: ca.CertPEM, caKeyKey: ca.KeyPEM,
		corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key,
	}
	return true, nil
}

func valid(secret *corev1.Secret, host string, at time.Time) bool {
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	ok, err := rotator.ValidCert(secret.Data[caCertKey], secret.Data[corev1.TLSCertKey],
		secret.Data[corev1.TLSPrivateKeyKey], host, &usages, at)
	return ok && err == nil
}

// sign makes the serving certificate. The library's own signs DNS names alone, but
// a manager outside the cluster is often reached by its address.
func sign(ca *rotator.KeyPairArtifacts, host string, now time.Time) (cert, key []byte, err error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "sidecar-operator-webhook"},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(lifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Cert, private.Public(), ca.Key)
	if err != nil {
		return nil, nil, err
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	key = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)})
	return cert, key, nil
}

// Store holds the certificate that is being served. It is safe for concurrent use.
type Store struct {
	current atomic.Pointer[tls.Certificate]
}

var errNoCertificate = errors.New("the webhook's certificate is not there yet")

// Load takes over the certificate of a Secret.
func (s *Store) Load(secret *corev1.Secret) error {
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return fmt.Errorf("reading the certificate of Secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	s.current.Store(&pair)
	return nil
}

// GetCertificate serves the current certificate (tls.Config.GetCertificate).
func (s *Store) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if pair := s.current.Load(); pair != nil {
		return pair, nil
	}
	return nil, errNoCertificate
}

// Expiry is when the certificate that is served expires; zero where there is none.
func (s *Store) Expiry() time.Time {
	if pair := s.current.Load(); pair != nil && pair.Leaf != nil {
		return pair.Leaf.NotAfter
	}
	return time.Time{}
}

// Check fails until there is a certificate (healthz.Checker).
func (s *Store) Check(*http.Request) error {
	_, err := s.GetCertificate(nil)
	return err
}
