package controllers

import (
	"context"
	"fmt"

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

	"github.com/sidecar-dev/sidecar-operator/internal/certs"
	"github.com/sidecar-dev/sidecar-operator/internal/metrics"
)

// CertificateReconciler keeps a valid certificate for the webhook in its Secret.
type CertificateReconciler struct {
	client.Client
	Clock    clock.PassiveClock
	Endpoint WebhookEndpoint
	Key      client.ObjectKey
}

// +kubebuilder:rbac:groups="",namespace=system,resources=secrets,verbs=list;watch;create;update

func setupCertificate(mgr ctrl.Manager, o Options) error {
	r := &CertificateReconciler{Client: mgr.GetClient(), Clock: o.Clock, Endpoint: o.Webhook, Key: o.secretKey()}
	// There may be no Secret to be told of: the first look is asked for.
	start := make(chan event.GenericEvent, 1)
	start <- event.GenericEvent{Object: secretNamed(r.Key)}
	return ctrl.NewControllerManagedBy(mgr).Named("certificate").
		For(&corev1.Secret{}, builder.WithPredicates(only(r.Key))).
		WatchesRawSource(source.Channel(start, &handler.EnqueueRequestForObject{})).
		Complete(r)
}

// Reconcile renews the certificate when that is due.
func (r *CertificateReconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	secret := secretNamed(r.Key)
	err := r.Get(ctx, r.Key, secret)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	missing := err != nil
	renewed, err := certs.Renew(secret, r.Endpoint.TLSHost(), r.Clock.Now())
	if err != nil || !renewed {
		return ctrl.Result{RequeueAfter: certs.CheckEvery}, err
	}
	write := func() error { return r.Update(ctx, secret) }
	if missing {
		write = func() error { return r.Create(ctx, secret) }
	}
	if err := write(); err != nil && !apierrors.IsAlreadyExists(err) {
		return ctrl.Result{}, fmt.Errorf("writing the certificate to Secret %s: %w", r.Key, err)
	}
	ctrl.LoggerFrom(ctx).Info("renewed the webhook's certificate", "secret", r.Key, "host", r.Endpoint.TLSHost())
	return ctrl.Result{RequeueAfter: certs.CheckEvery}, nil
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
