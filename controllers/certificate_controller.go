package controllers

import (
	"bytes"
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/certs"
	"github.com/sidecar-dev/sidecar-operator/internal/metrics"
)

// CertificateReconciler keeps a valid certificate for the webhook in its Secret, and has every registration trust it.
type CertificateReconciler struct {
	client.Client
	Clock    clock.PassiveClock
	Endpoint WebhookEndpoint
	Key      client.ObjectKey
	Schedule certs.Schedule
}

// +kubebuilder:rbac:groups="",namespace=system,resources=secrets,verbs=list;watch;create;update

func setupCertificate(mgr ctrl.Manager, o Options) error {
	r := &CertificateReconciler{Client: mgr.GetClient(), Clock: o.Clock, Endpoint: o.Webhook, Key: o.secretKey(), Schedule: o.CertificateSchedule}
	// There may be no Secret to be told of: the first look is asked for.
	start := make(chan event.GenericEvent, 1)
	start <- event.GenericEvent{Object: secretNamed(r.Key)}
	theSecret := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []ctrl.Request { return []ctrl.Request{{NamespacedName: r.Key}} })
	return ctrl.NewControllerManagedBy(mgr).Named("certificate").
		For(&corev1.Secret{}, builder.WithPredicates(only(r.Key))).
		Watches(&admissionregistrationv1.MutatingWebhookConfiguration{}, theSecret, builder.WithPredicates(registrations)).
		WatchesRawSource(source.Channel(start, &handler.EnqueueRequestForObject{})).
		Complete(r)
}

// registrations are the policies'.
var registrations = predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetLabels()[v1alpha1.PolicyLabel] != "" })

// Reconcile renews the certificate when that is due.
func (r *CertificateReconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	secret := secretNamed(r.Key)
	err := r.Get(ctx, r.Key, secret)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	missing := err != nil
	trusted, err := r.publish(ctx, certs.CABundle(secret))
	if err != nil {
		return ctrl.Result{}, err
	}
	host, now := r.Endpoint.TLSHost(), r.Clock.Now()
	changed, err := r.Schedule.Renew(secret, host, trusted, now)
	if err != nil || !changed {
		return ctrl.Result{RequeueAfter: r.Schedule.Due(secret, host, now)}, err
	}
	write := func() error { return r.Update(ctx, secret) }
	if missing {
		write = func() error { return r.Create(ctx, secret) }
	}
	if err := write(); err != nil && !apierrors.IsAlreadyExists(err) {
		return ctrl.Result{}, fmt.Errorf("writing the certificate to Secret %s: %w", r.Key, err)
	}
	ctrl.LoggerFrom(ctx).Info("wrote the webhook's certificate", "secret", r.Key, "host", host)
	return ctrl.Result{RequeueAfter: r.Schedule.Due(secret, host, now)}, nil
}

// publish has every registration carry the bundle, also those of policies whose spec is not accepted and whose
// passes leave them alone. It says whether all of them did before.
func (r *CertificateReconciler) publish(ctx context.Context, bundle []byte) (trusted bool, err error) {
	if len(bundle) == 0 {
		return false, nil
	}
	list := &admissionregistrationv1.MutatingWebhookConfigurationList{}
	if err := r.List(ctx, list, client.HasLabels{v1alpha1.PolicyLabel}); err != nil {
		return false, fmt.Errorf("listing registrations: %w", err)
	}
	trusted = true
	for i := range list.Items {
		registration := &list.Items[i]
		if !setBundle(registration, bundle) {
			continue
		}
		trusted = false
		if err := r.Update(ctx, registration); client.IgnoreNotFound(err) != nil {
			return false, fmt.Errorf("writing the CA bundle into registration %s: %w", registration.Name, err)
		}
	}
	return trusted, nil
}

// setBundle says whether the registration lacked the bundle.
func setBundle(registration *admissionregistrationv1.MutatingWebhookConfiguration, bundle []byte) bool {
	lacked := false
	for i := range registration.Webhooks {
		if config := &registration.Webhooks[i].ClientConfig; !bytes.Equal(config.CABundle, bundle) {
			config.CABundle, lacked = bundle, true
		}
	}
	return lacked
}

// setupCertificateStore hands the Secret's certificate to the server, in every replica.
func setupCertificateStore(mgr ctrl.Manager, o Options) error {
	everywhere := false
	load := func(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
		secret := &corev1.Secret{}
		if err := mgr.GetClient().Get(ctx, req.NamespacedName, secret); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
		err := o.Certificates.Load(secret)
		metrics.SetCertificateExpiry(o.Certificates.Expiry())
		return ctrl.Result{}, err
	}
	return ctrl.NewControllerManagedBy(mgr).Named("certificate-store").
		For(&corev1.Secret{}, builder.WithPredicates(only(o.secretKey()))).
		WithOptions(controller.Options{NeedLeaderElection: &everywhere}).
		Complete(reconcile.Func(load))
}

func secretNamed(key client.ObjectKey) *corev1.Secret {
	secret := &corev1.Secret{}
	secret.Namespace, secret.Name = key.Namespace, key.Name
	return secret
}

func only(key client.ObjectKey) predicate.Predicate {
	return predicate.NewPredicateFuncs(func(o client.Object) bool { return client.ObjectKeyFromObject(o) == key })
}
