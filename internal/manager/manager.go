// Package manager puts the operator together: caches, controllers, the webhook, probes.
package manager

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/controllers"
	"github.com/sidecar-dev/sidecar-operator/internal/admission"
	"github.com/sidecar-dev/sidecar-operator/internal/certs"
	"github.com/sidecar-dev/sidecar-operator/internal/report"
	"github.com/sidecar-dev/sidecar-operator/internal/workload"
)

// Options is what the operator's flags say.
type Options struct {
	// Namespace is the operator's own.
	Namespace string
	// LeaderElect lets one of several replicas act.
	LeaderElect bool
	// MetricsAddress is where metrics are served, "0" turns them off; MetricsSecure serves
	// them over HTTPS to those whom RBAC allows it.
	MetricsAddress string
	MetricsSecure  bool
	// ProbeAddress is where /healthz and /readyz are served; "0" turns them off.
	ProbeAddress string
	// WebhookBind is the address that the webhook listens on; empty means all.
	WebhookBind string
	// Webhook is how the API server reaches the webhook.
	Webhook controllers.WebhookEndpoint
	// Certificates says when the webhook's certificate is renewed; the zero value is for production.
	Certificates certs.Schedule
	// PrefetchImage is the operator's own image, of which the pods are made that bring images
	// onto nodes. Where it is empty it is read from the pod PodName, if there is one.
	PrefetchImage, PodName string
	// Reports has SidecarReports written.
	Reports bool
	// Repeatable allows more than one manager in a process, one after another: for tests.
	Repeatable bool
}

// New makes a manager with all that the operator does. It is not started.
func New(cluster *rest.Config, o Options) (ctrl.Manager, error) {
	store := &certs.Store{}
	mgr, err := bare(cluster, &o, store)
	if err != nil {
		return nil, fmt.Errorf("creating the manager: %w", err)
	}
	if err := watchLimits(mgr); err != nil {
		return nil, err
	}
	admission.Register(mgr.GetWebhookServer(), &admission.Injector{
		Reader:    mgr.GetCache(),
		Live:      mgr.GetAPIReader(),
		Recorder:  mgr.GetEventRecorder("sidecar-operator"),
		Namespace: o.Namespace,
	})
	if err := o.findImage(mgr.GetAPIReader()); err != nil {
		return nil, err
	}
	version, err := newServerVersion(cluster)
	if err != nil {
		return nil, err
	}
	options := controllers.Options{
		Namespace: o.Namespace, Webhook: o.Webhook, Certificates: store, CertificateSchedule: o.Certificates, Clock: clock.RealClock{},
		PrefetchImage: o.PrefetchImage, ServerVersion: version.get,
	}
	if o.Reports {
		options.Reports = &report.Board{}
	}
	if err := controllers.Setup(mgr, options); err != nil {
		return nil, err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return nil, err
	}
	if err := mgr.AddReadyzCheck("certificate", store.Check); err != nil {
		return nil, err
	}
	if err := mgr.AddReadyzCheck("webhook", mgr.GetWebhookServer().StartedChecker()); err != nil {
		return nil, err
	}
	return mgr, nil
}

// bare makes a manager that does nothing yet.
func bare(cluster *rest.Config, o *Options, store *certs.Store) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	cluster = rest.CopyConfig(cluster)
	cluster.QPS = -1 // the API server's priority and fairness is the limit
	cluster.UserAgent = "sidecar-operator"
	// An API server that compresses a watch makes an archive of each event: for 3 KB of a pod it takes longer than to send them.
	cluster.DisableCompression = true
	return ctrl.NewManager(cluster, ctrl.Options{
		Scheme:                 scheme,
		Cache:                  cacheOptions(o),
		Client:                 client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: ptr.To(true)}},
		Controller:             config.Controller{SkipNameValidation: &o.Repeatable},
		Metrics:                metricsOptions(o),
		HealthProbeBindAddress: o.ProbeAddress,
		WebhookServer: webhook.NewServer(webhook.Options{Host: o.WebhookBind, Port: o.Webhook.Port, TLSOpts: []func(*tls.Config){
			// Without HTTP/2, whose streams cost the API server and the webhook a few goroutines more for each call, and the
			// latter its resistance to resets of streams (CVE-2023-44487): connections are kept.
			func(t *tls.Config) { t.GetCertificate, t.NextProtos = store.GetCertificate, []string{"http/1.1"} },
		}}),
		LeaderElection:                o.LeaderElect,
		LeaderElectionID:              "sidecar-operator.fleet.sidecar.dev",
		LeaderElectionNamespace:       o.Namespace,
		LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout:       ptr.To(20 * time.Second),
	})
}

func metricsOptions(o *Options) metricsserver.Options {
	options := metricsserver.Options{BindAddress: o.MetricsAddress, SecureServing: o.MetricsSecure}
	if o.MetricsSecure {
		options.FilterProvider = filters.WithAuthenticationAndAuthorization
	}
	return options
}

// watchLimits has the cache hold what limits namespaces from the beginning: else the first pod would wait for it.
func watchLimits(mgr ctrl.Manager) error {
	for _, limits := range []client.Object{&corev1.LimitRange{}, &corev1.ResourceQuota{}} {
		if _, err := mgr.GetCache().GetInformer(context.Background(), limits, cache.BlockUntilSynced(false)); err != nil {
			return fmt.Errorf("caching the limits of namespaces: %w", err)
		}
	}
	return nil
}

// cacheOptions keep the cache to what is read: own objects by namespace, pods
// and their owners without the parts that nobody looks at.
func cacheOptions(o *Options) cache.Options {
	own := map[string]cache.Config{o.Namespace: {}}
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:                {Transform: (&controllers.PodStripper{}).Strip},
			&corev1.Node{}:               {Transform: controllers.StripNode},
			&appsv1.Deployment{}:         {Transform: workload.Strip},
			&appsv1.ReplicaSet{}:         {Transform: workload.Strip},
			&appsv1.StatefulSet{}:        {Transform: workload.Strip},
			&appsv1.DaemonSet{}:          {Transform: workload.Strip},
			&batchv1.Job{}:               {Transform: workload.Strip},
			&batchv1.CronJob{}:           {Transform: workload.Strip},
			&corev1.Secret{}:             {Namespaces: own, Field: fields.OneTermEqualSelector("metadata.name", o.Webhook.Secret)},
			&appsv1.ControllerRevision{}: {Namespaces: own},
		},
	}
}
