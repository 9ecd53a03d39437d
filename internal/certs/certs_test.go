package certs_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/sidecar-dev/sidecar-operator/internal/certs"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

func renew(t *testing.T, secret *corev1.Secret, host string, now time.Time) bool {
	t.Helper()
	renewed, err := certs.Schedule{}.Renew(secret, host, true, now)
	if err != nil {
		t.Fatal(err)
	}
	return renewed
}

func TestMakesAnotherAtOnceWhereNoneIsGood(t *testing.T) {
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

// story is a Secret that is renewed as time goes by.
type story struct {
	t        *testing.T
	secret   corev1.Secret
	schedule certs.Schedule
	now      time.Time
}

const storyHost = "127.0.0.1"

func (s *story) serves() string { return string(s.secret.Data[corev1.TLSCertKey]) }

// step lets time pass and takes the step that is due.
func (s *story) step(after time.Duration, trusted bool) (changed bool) {
	s.t.Helper()
	s.now = s.now.Add(after)
	changed, err := s.schedule.Renew(&s.secret, storyHost, trusted, s.now)
	if err != nil {
		s.t.Fatal(err)
	}
	return changed
}

// trusts says whether clients with the bundle take the certificate.
func (s *story) trusts(bundle []byte, certificate string) bool {
	s.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	block, _ := pem.Decode([]byte(certificate))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = leaf.Verify(x509.VerifyOptions{DNSName: storyHost, Roots: roots, CurrentTime: s.now})
	return err == nil
}

func TestTheNextCertificateIsServedOnlyWhenAllTrustIt(t *testing.T) {
	s := &story{t: t, now: builders.Epoch, schedule: certs.Schedule{Lifetime: 100 * time.Hour, RenewBefore: 40 * time.Hour, Overlap: 2 * time.Hour}}
	s.step(0, true)
	first, before := s.serves(), certs.CABundle(&s.secret)
	if got := s.schedule.Due(&s.secret, storyHost, s.now); got != certs.CheckEvery {
		t.Errorf("due in %s, want %s", got, certs.CheckEvery)
	}
	if s.step(59*time.Hour, true) {
		t.Error("41 hours before its end the certificate was changed")
	}
	if got, want := s.schedule.Due(&s.secret, storyHost, s.now), time.Hour; got != want {
		t.Errorf("due in %s, want %s", got, want)
	}
	for _, step := range []struct {
		name    string
		after   time.Duration
		trusted bool
		changed bool
		serves  bool
	}{
		{"the next one is made", 2 * time.Hour, true, true, true},
		{"not everybody has heard of it", 10 * time.Hour, false, false, true},
		{"all have", 0, true, true, true},
		{"not for long enough", time.Hour, true, false, true},
		{"there is one more that has not", time.Minute, false, true, true},
		{"now all have", time.Minute, true, true, true},
		{"that is too short ago", 119 * time.Minute, true, false, true},
		{"it is served", time.Minute, true, true, false},
		{"it stays", time.Hour, true, false, false},
	} {
		if changed := s.step(step.after, step.trusted); changed != step.changed {
			t.Errorf("%s: changed %t, want %t", step.name, changed, step.changed)
		}
		if serves := s.serves() == first; serves != step.serves {
			t.Errorf("%s: serves the first %t, want %t", step.name, serves, step.serves)
		}
		if !s.trusts(certs.CABundle(&s.secret), first) || !s.trusts(certs.CABundle(&s.secret), s.serves()) {
			t.Errorf("%s: the bundle does not cover what replicas may serve", step.name)
		}
	}
	if s.trusts(before, s.serves()) {
		t.Error("the certificate is the same authority's: whoever stole that one's key can go on")
	}
}

// Nobody can be told in time where the operator was away for too long: what all may trust is better than nothing.
func TestTheNextCertificateIsServedWhenTheFirstHasExpired(t *testing.T) {
	s := &story{t: t, now: builders.Epoch}
	s.step(0, true)
	s.step(276*24*time.Hour, true)
	prepared := certs.CABundle(&s.secret)
	s.step(90*24*time.Hour, false)
	if !s.trusts(prepared, s.serves()) {
		t.Error("a third certificate was made, which nobody trusts")
	}
}

// Through a thousand steps of any length, whoever has heard of the bundle of the last step but one (no longer ago
// than the overlap) trusts what replicas that lag a step behind serve.
func TestNoClientIsEverLeftBehind(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := &story{t: t, now: builders.Epoch, schedule: certs.Schedule{Lifetime: 100 * time.Hour, RenewBefore: 60 * time.Hour, Overlap: 2 * time.Hour}}
		s.step(0, true)
		bundle, served := certs.CABundle(&s.secret), s.serves() // what the slowest client and replica know
		for range rapid.IntRange(1, 30).Draw(r, "steps") {
			trusted := bytes.Equal(bundle, certs.CABundle(&s.secret))
			s.step(time.Duration(rapid.IntRange(1, 10*60).Draw(r, "minutes"))*time.Minute, trusted)
			if !s.trusts(bundle, served) || !s.trusts(bundle, s.serves()) {
				r.Fatalf("a client that was told everything in time does not trust what is served")
			}
			if rapid.Bool().Draw(r, "the client hears") || s.secret.Annotations["fleet.sidecar.dev/trusted-since"] != "" {
				bundle = certs.CABundle(&s.secret)
			}
			if rapid.Bool().Draw(r, "the replica hears") {
				served = s.serves()
			}
		}
	})
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
