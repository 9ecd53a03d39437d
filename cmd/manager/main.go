// The manager of the sidecar operator.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"os"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	webhookadmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/controllers"
	"github.com/sidecar-dev/sidecar-operator/internal/admission"
	"github.com/sidecar-dev/sidecar-operator/internal/certs"
)

// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=system,resources=leases,verbs=get;create;update
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

// config is what the flags say.
type config struct {
	namespace      string
	leaderElect    bool
	metricsAddress string
	metricsSecure  bool
	probeAddress   string
	webhookBind    string
	webhook        controllers.WebhookEndpoint
}

func main() {
	c, zapOptions := parseFlags()
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(zapOptions)))
	if err := run(c); err != nil {
		ctrl.Log.Error(err, "the manager stopped")
		os.Exit(1)
	}
}

func parseFlags() (*config, *zap.Options) {
	c := &config{}
	flag.StringVar(&c.namespace, "namespace", namespaceDefault(), "The operator's own namespace, for revisions, the certificate and the leader's lease. Defaults to $POD_NAMESPACE.")
	flag.BoolVar(&c.leaderElect, "leader-elect", false, "Let one of several replicas act, the others stand by. All of them serve admission.")
	flag.StringVar(&c.metricsAddress, "metrics-bind-address", ":8443", "Where metrics are served; 0 turns them off.")
	flag.BoolVar(&c.metricsSecure, "metrics-secure", true, "Serve metrics over HTTPS, to those whom RBAC allows it.")
	flag.StringVar(&c.probeAddress, "health-probe-bind-address", ":8081", "Where /healthz and /readyz are served.")
	flag.StringVar(&c.webhookBind, "webhook-bind-address", "", "The address that the webhook listens on. Empty: all of them.")
	flag.IntVar(&c.webhook.Port, "webhook-port", 9443, "The port that the webhook listens on.")
	flag.StringVar(&c.webhook.Host, "webhook-host", "", "Outside of a cluster: the name or address by which the API server reaches this process. Registrations then carry a URL instead of the Service.")
	flag.StringVar(&c.webhook.Service, "webhook-service", "sidecar-operator-webhook-service", "The Service in the operator's namespace by which the API server reaches the webhook.")
	flag.StringVar(&c.webhook.Secret, "webhook-secret", "sidecar-operator-webhook-cert", "The Secret in the operator's namespace that holds the webhook's certificate. It is made when it is not there.")
	options := &zap.Options{}
	options.BindFlags(flag.CommandLine)
	flag.Parse()
	c.webhook.Namespace = c.namespace
	return c, options
}

func namespaceDefault() string {
	if namespace := os.Getenv("POD_NAMESPACE"); namespace != "" {
		return namespace
	}
	return "sidecar-operator-system"
}

func run(c *config) error {
	store := &certs.Store{}
	mgr, err := newManager(c, store)
	if err != nil {
		return err
	}
	admission.Register(mgr.GetWebhookServer(), &admission.Injector{
		Reader:    mgr.GetClient(),
		Decoder:   webhookadmission.NewDecoder(mgr.GetScheme()),
		Recorder:  mgr.GetEventRecorder("sidecar-operator"),
		Namespace: c.namespace,
	})
	if err := controllers.Setup(mgr, controllers.Options{
		Namespace: c.namespace, Webhook: c.webhook, Certificates: store, Clock: clock.RealClock{},
	}); err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("certificate", store.Check); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("webhook", mgr.GetWebhookServer().StartedChecker()); err != nil {
		return err
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}

func newManager(c *config, store *certs.Store) (ctrl.Manager, error) {
	rest, err := ctrl.GetConfig()
	if err != nil {
		return nil, err
	}
	rest.QPS = -1 // the API server's priority and fairness is the limit
	rest.UserAgent = "sidecar-operator"
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	mgr, err := ctrl.NewManager(rest, ctrl.Options{
		Scheme:                 scheme,
		Cache:                  cacheOptions(c),
		Client:                 client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: ptr.To(true)}},
		Metrics:                metricsOptions(c),
		HealthProbeBindAddress: c.probeAddress,
		WebhookServer: webhook.NewServer(webhook.Options{Host: c.webhookBind, Port: c.webhook.Port, TLSOpts: []func(*tls.Config){
			func(t *tls.Config) { t.GetCertificate = store.GetCertificate },
		}}),
		LeaderElection:                c.leaderElect,
		LeaderElectionID:              "sidecar-operator.fleet.sidecar.dev",
		LeaderElectionNamespace:       c.namespace,
		LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout:       ptr.To(20 * time.Second),
	})
	if err != nil {
		return nil, fmt.Errorf("creating the manager: %w", err)
	}
	return mgr, nil
}

func metricsOptions(c *config) metricsserver.Options {
	options := metricsserver.Options{BindAddress: c.metricsAddress, SecureServing: c.metricsSecure}
	if c.metricsSecure {
		options.FilterProvider = filters.WithAuthenticationAndAuthorization
	}
	return options
}

// cacheOptions keep the cache to what is read: own objects by namespace, pods
// without the parts that nobody looks at.
func cacheOptions(c *config) cache.Options {
	own := map[string]cache.Config{c.namespace: {}}
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:                {Transform: controllers.StripPod},
			&corev1.Secret{}:             {Namespaces: own, Field: fields.OneTermEqualSelector("metadata.name", c.webhook.Secret)},
			&appsv1.ControllerRevision{}: {Namespaces: own},
		},
	}
}
