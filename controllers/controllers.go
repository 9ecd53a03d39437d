// Package controllers holds the operator's reconcilers and the I/O around its pure
// decisions. Setup is the table of contents.
package controllers

import (
	"fmt"
	"net"
	"strconv"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/admission"
	"github.com/sidecar-dev/sidecar-operator/internal/certs"
	"github.com/sidecar-dev/sidecar-operator/internal/report"
)

// Options is what all controllers share.
type Options struct {
	// Namespace is the operator's own: revisions and the certificate are kept there.
	Namespace string
	// Webhook is how the API server reaches this operator.
	Webhook WebhookEndpoint
	// Certificates serves the webhook's certificate.
	Certificates *certs.Store
	// CertificateSchedule says when it is renewed.
	CertificateSchedule certs.Schedule
	// PrefetchImage is the operator's own image; nothing is prefetched where it is empty.
	PrefetchImage string
	// ServerVersion asks the API server for its version.
	ServerVersion func() (string, error)
	// Reports is where SidecarReports are made from; nil where none are written.
	Reports *report.Board
	// Clock tells the time.
	Clock clock.PassiveClock
}

func (o *Options) secretKey() client.ObjectKey {
	return client.ObjectKey{Namespace: o.Namespace, Name: o.Webhook.Secret}
}

// WebhookEndpoint is how the API server reaches the webhook: by a Service, or by
// a host's name or address when the operator runs outside of the cluster.
type WebhookEndpoint struct {
	// Host and Port, where Host is set, make the URL in registrations.
	Host string
	Port int
	// Service in Namespace is used where Host is empty.
	Namespace, Service string
	// Secret in the operator's namespace holds the certificate.
	Secret string
}

// TLSHost is the name that the API server expects in the certificate.
func (e *WebhookEndpoint) TLSHost() string {
	if e.Host != "" {
		return e.Host
	}
	return e.Service + "." + e.Namespace + ".svc"
}

// clientConfig tells the API server where the pods of policies with a failure policy are sent.
func (e *WebhookEndpoint) clientConfig(failurePolicy v1alpha1.InjectionFailurePolicy, caBundle []byte) admissionregistrationv1.WebhookClientConfig {
	path := admission.Path(failurePolicy)
	if e.Host != "" {
		url := "https://" + net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) + path
		return admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: caBundle}
	}
	return admissionregistrationv1.WebhookClientConfig{CABundle: caBundle,
		Service: &admissionregistrationv1.ServiceReference{
			Namespace: e.Namespace, Name: e.Service, Path: &path, Port: ptr.To[int32](443),
		}}
}

// Setup adds every controller to the manager.
func Setup(mgr ctrl.Manager, o Options) error {
	for _, c := range []struct {
		name  string
		setup func(ctrl.Manager, Options) error
	}{
		// Rolls out policies: accepts templates, registers injection, upgrades pods, reports.
		{"sidecarpolicy", setupSidecarPolicy},
		// Tells the owners of workloads how their sidecars do.
		{"sidecarreport", setupSidecarReport},
		// Keeps the webhook's certificate valid.
		{"certificate", setupCertificate},
		// Serves the certificate, in every replica.
		{"certificate-store", setupCertificateStore},
	} {
		if err := c.setup(mgr, o); err != nil {
			return fmt.Errorf("setting up the %s controller: %w", c.name, err)
		}
	}
	return nil
}
