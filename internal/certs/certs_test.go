package certs_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/internal/certs"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

func renew(t *testing.T, secret *corev1.Secret, host string, now time.Time) bool {
	t.Helper()
	renewed, err := certs.Renew(secret, host, now)
	if err != nil {
		t.Fatal(err)
	}
	return renewed
}

func TestRenewsWhatIsNotGoodForLongEnough(t *testing.T) {
	const host, day = "webhook.sidecars.svc", 24 * time.Hour
	made := &corev1.Secret{}
	if !renew(t, made, host, builders.Epoch) {
		t.Fatal("an empty Secret was left as it is")
	}
	for _, tc := range []struct {
		name  string
		host  string
		after time.Duration
		spoil string
		want  bool
	}{
		{"fresh", host, 0, "", false},
		{"before the time to renew", host, 274 * day, "", false},
		{"90 days before the end", host, 276 * day, "", true},
		{"expired", host, 400 * day, "", true},
		{"another host", "127.0.0.1", 0, "", true},
		{"a key that does not fit", host, 0, corev1.TLSPrivateKeyKey, true},
		{"no authority", host, 0, "ca.crt", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			secret := made.DeepCopy()
			delete(secret.Data, tc.spoil)
			if got := renew(t, secret, tc.host, builders.Epoch.Add(tc.after)); got != tc.want {
				t.Errorf("renewed: %t, want %t", got, tc.want)
			}
			if changed := !bytes.Equal(secret.Data[corev1.TLSCertKey], made.Data[corev1.TLSCertKey]); changed != tc.want {
				t.Errorf("changed: %t, want %t", changed, tc.want)
			}
		})
	}
}

func TestServesNamesAndAddresses(t *testing.T) {
	for _, host := range []string{"webhook.sidecars.svc", "127.0.0.1", "::1"} {
		secret := &corev1.Secret{}
		renew(t, secret, host, builders.Epoch)
		store := &certs.Store{}
		if err := store.Check(nil); err == nil {
			t.Error("a store without a certificate is ready")
		}
		if err := store.Load(secret); err != nil {
			t.Fatal(err)
		}
		if err := store.Check(nil); err != nil {
			t.Error(err)
		}
		pair, err := store.GetCertificate(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(certs.CABundle(secret)) {
			t.Fatal("the CA bundle is no PEM")
		}
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: builders.Epoch}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestBrokenSecretLeavesTheOldCertificate(t *testing.T) {
	secret := &corev1.Secret{}
	renew(t, secret, "127.0.0.1", builders.Epoch)
	store := &certs.Store{}
	if err := store.Load(secret); err != nil {
		t.Fatal(err)
	}
	if err := store.Load(&corev1.Secret{}); err == nil {
		t.Error("an empty Secret was loaded")
	}
	if err := store.Check(nil); err != nil {
		t.Errorf("the old certificate is gone: %v", err)
	}
}
