// Package certs makes the webhook's certificates and serves them. They live in
// one Secret, so that all replicas serve the same.
package certs

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Keys of the Secret, besides those of its certificate.
const (
	// bundleKey holds the authorities that clients are to trust: that of the certificate, and those
	// of the one before it and of the one that comes next.
	bundleKey = "ca.crt"
	// nextCertKey and nextKeyKey hold the certificate that comes next.
	nextCertKey = "next.crt"
	nextKeyKey  = "next.key"
)

// trustedSince is an annotation of the Secret: since when all clients have been told to trust its bundle.
const trustedSince = "fleet.sidecar.dev/trusted-since"

// backdate is how long before it is made a certificate begins to be valid: clocks differ.
const backdate = time.Hour

// Schedule says when certificates are replaced. What is 0 is as in the default.
type Schedule struct {
	// Lifetime is how long a certificate is valid. Default: 365 days.
	Lifetime time.Duration
	// RenewBefore is how long before its end the next one is made. Default: 90 days.
	RenewBefore time.Duration
	// Overlap is how long all clients are told to trust the next one before it is served, so that API
	// servers have heard of it. Default: 1 hour.
	Overlap time.Duration
}

func (s Schedule) defaulted() Schedule {
	const day = 24 * time.Hour
	return Schedule{Lifetime: cmp.Or(s.Lifetime, 365*day), RenewBefore: cmp.Or(s.RenewBefore, 90*day), Overlap: cmp.Or(s.Overlap, time.Hour)}
}

// CheckEvery is how often certificates are looked at where nothing is due.
const CheckEvery = 12 * time.Hour

// CABundle is what clients verify the webhook with, in PEM; nil while there is nothing.
func CABundle(secret *corev1.Secret) []byte { return secret.Data[bundleKey] }

// Renew takes the next step that is due with the certificate in a Secret, which is for the host, a DNS name or an IP
// address, and says whether it changed something. Before a certificate ends, a next one is put beside it, and its
// authority into the bundle; it is served when all clients have trusted it for long enough. Trusted says whether they do
// by now. Where no good certificate is served at all, another one is at once.
func (s Schedule) Renew(secret *corev1.Secret, host string, trusted bool, now time.Time) (bool, error) {
	s = s.defaulted()
	current := leaf(secret, corev1.TLSCertKey, corev1.TLSPrivateKeyKey, host, now)
	next := leaf(secret, nextCertKey, nextKeyKey, host, now)
	switch {
	case current == nil && next != nil:
		serveNext(secret)
		return true, nil
	case current == nil:
		return true, s.start(secret, host, now)
	case next == nil && now.Add(s.RenewBefore).After(current.NotAfter):
		return true, s.prepare(secret, host, now)
	case next == nil:
		return false, nil
	}
	return s.advance(secret, trusted, now), nil
}

// advance brings the next certificate closer to its service, and says whether it changed something.
func (s Schedule) advance(secret *corev1.Secret, trusted bool, now time.Time) bool {
	since := trustedFrom(secret)
	switch {
	case trusted && since.IsZero():
		metav1.SetMetaDataAnnotation(&secret.ObjectMeta, trustedSince, now.UTC().Format(time.RFC3339Nano))
	case !trusted && !since.IsZero():
		delete(secret.Annotations, trustedSince)
	case trusted && !now.Before(since.Add(s.Overlap)):
		serveNext(secret)
	default:
		return false
	}
	return true
}

// Due is how long nothing is to be done, unless somebody changes something.
func (s Schedule) Due(secret *corev1.Secret, host string, now time.Time) time.Duration {
	s = s.defaulted()
	at := now.Add(CheckEvery)
	if current := leaf(secret, corev1.TLSCertKey, corev1.TLSPrivateKeyKey, host, now); current != nil {
		due := current.NotAfter.Add(-s.RenewBefore)
		if since := trustedFrom(secret); !since.IsZero() {
			due = since.Add(s.Overlap)
		} else if leaf(secret, nextCertKey, nextKeyKey, host, now) != nil {
			due = at // until the registrations change
		}
		if due.Before(at) {
			at = due
		}
	}
	return max(at.Sub(now), time.Second)
}

func trustedFrom(secret *corev1.Secret) time.Time {
	since, _ := time.Parse(time.RFC3339Nano, secret.Annotations[trustedSince]) // what can't be read is not said
	return since
}

// start makes the first certificate, which nobody can have been told to trust.
func (s Schedule) start(secret *corev1.Secret, host string, now time.Time) error {
	made, err := s.make(host, now)
	if err != nil {
		return err
	}
	delete(secret.Annotations, trustedSince)
	secret.Type = corev1.SecretTypeOpaque
	secret.Data = map[string][]byte{bundleKey: made.authority, corev1.TLSCertKey: made.cert, corev1.TLSPrivateKeyKey: made.key}
	return nil
}

// prepare puts a next certificate beside the one that is served.
func (s Schedule) prepare(secret *corev1.Secret, host string, now time.Time) error {
	made, err := s.make(host, now)
	if err != nil {
		return err
	}
	delete(secret.Annotations, trustedSince)
	secret.Data = map[string][]byte{
		bundleKey:         append(authorities(secret, now), made.authority...),
		corev1.TLSCertKey: secret.Data[corev1.TLSCertKey], corev1.TLSPrivateKeyKey: secret.Data[corev1.TLSPrivateKeyKey],
		nextCertKey: made.cert, nextKeyKey: made.key,
	}
	return nil
}

// serveNext takes the next certificate into service. The bundle stays as it is: another replica may serve the old
// one for a moment longer.
func serveNext(secret *corev1.Secret) {
	delete(secret.Annotations, trustedSince)
	secret.Data = map[string][]byte{
		bundleKey:         secret.Data[bundleKey],
		corev1.TLSCertKey: secret.Data[nextCertKey], corev1.TLSPrivateKeyKey: secret.Data[nextKeyKey],
	}
}

// authorities is the bundle without those that have expired. That of the certificate before stays, since a replica that lags
// may serve it where the next one was held back for long.
func authorities(secret *corev1.Secret, now time.Time) []byte {
	var good []byte
	for rest := secret.Data[bundleKey]; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return good
		}
		if authority, err := x509.ParseCertificate(block.Bytes); err == nil && now.Before(authority.NotAfter) {
			good = append(good, pem.EncodeToMemory(block)...)
		}
	}
}

func parse(data []byte) *x509.Certificate {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return certificate
}

// leaf is a certificate of the Secret, where it can be served for the host and clients that know the bundle take
// it; else nil.
func leaf(secret *corev1.Secret, certKey, keyKey, host string, at time.Time) *x509.Certificate {
	certificate := parse(secret.Data[certKey])
	if _, err := tls.X509KeyPair(secret.Data[certKey], secret.Data[keyKey]); err != nil || certificate == nil {
		return nil
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(secret.Data[bundleKey])
	if _, err := certificate.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: at}); err != nil {
		return nil
	}
	return certificate
}

// made is a certificate with its key, and the authority that signed it, in PEM. An authority signs no second one: its
// key is not kept.
type made struct{ authority, cert, key []byte }

func (s Schedule) make(host string, now time.Time) (made, error) {
	authority := s.template("sidecar-operator-ca", now)
	authority.KeyUsage, authority.IsCA, authority.BasicConstraintsValid = x509.KeyUsageCertSign, true, true
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return made{}, fmt.Errorf("generating the authority's key: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return made{}, fmt.Errorf("generating a key: %w", err)
	}
	signed, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		return made{}, fmt.Errorf("creating the certificate authority: %w", err)
	}
	cert, err := x509.CreateCertificate(rand.Reader, s.serving(host, now), authority, key.Public(), authorityKey)
	if err != nil {
		return made{}, fmt.Errorf("signing the certificate for %s: %w", host, err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return made{}, fmt.Errorf("encoding the key: %w", err)
	}
	encode := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return made{authority: encode("CERTIFICATE", signed), cert: encode("CERTIFICATE", cert), key: encode("EC PRIVATE KEY", private)}, nil
}

func (s Schedule) template(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: name, Organization: []string{"sidecar-operator"}},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(s.Lifetime),
	}
}

// serving is a certificate for a host: a name, or the address by which a manager outside of the cluster is often reached.
func (s Schedule) serving(host string, now time.Time) *x509.Certificate {
	template := s.template("sidecar-operator-webhook", now)
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	return template
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
