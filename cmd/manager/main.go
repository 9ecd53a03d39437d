// The manager of the sidecar operator.
package main

import (
	"flag"
	"os"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/sidecar-dev/sidecar-operator/internal/manager"
	"github.com/sidecar-dev/sidecar-operator/internal/prefetch"
)

// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=system,resources=leases,verbs=get;create;update
// +kubebuilder:rbac:groups="",namespace=system,resources=pods,verbs=get
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

func main() {
	if len(os.Args) > 1 && os.Args[1] == prefetch.IdleArgument {
		return // all that a prefetch pod runs: its images were pulled before
	}
	options, zapOptions := parseFlags()
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(zapOptions)))
	if err := run(options); err != nil {
		ctrl.Log.Error(err, "the manager stopped")
		os.Exit(1)
	}
}

func parseFlags() (*manager.Options, *zap.Options) {
	o := &manager.Options{}
	flag.StringVar(&o.Namespace, "namespace", namespaceDefault(), "The operator's own namespace, for revisions, the certificate and the leader's lease. Defaults to $POD_NAMESPACE.")
	flag.BoolVar(&o.LeaderElect, "leader-elect", false, "Let one of several replicas act, the others stand by. All of them serve admission.")
	flag.StringVar(&o.MetricsAddress, "metrics-bind-address", ":8443", "Where metrics are served; 0 turns them off.")
	flag.BoolVar(&o.MetricsSecure, "metrics-secure", true, "Serve metrics over HTTPS, to those whom RBAC allows it.")
	flag.StringVar(&o.ProbeAddress, "health-probe-bind-address", ":8081", "Where /healthz and /readyz are served.")
	flag.StringVar(&o.WebhookBind, "webhook-bind-address", "", "The address that the webhook listens on. Empty: all of them.")
	flag.IntVar(&o.Webhook.Port, "webhook-port", 9443, "The port that the webhook listens on.")
	flag.StringVar(&o.Webhook.Host, "webhook-host", "", "Outside of a cluster: the name or address by which the API server reaches this process. Registrations then carry a URL instead of the Service.")
	flag.StringVar(&o.Webhook.Service, "webhook-service", "sidecar-operator-webhook-service", "The Service in the operator's namespace by which the API server reaches the webhook.")
	flag.StringVar(&o.Webhook.Secret, "webhook-secret", "sidecar-operator-webhook-cert", "The Secret in the operator's namespace that holds the webhook's certificate. It is made when it is not there.")
	flag.StringVar(&o.PrefetchImage, "prefetch-image", "", "The operator's own image, of which the pods are made that bring images onto nodes. Defaults to that of the pod $POD_NAME.")
	flag.BoolVar(&o.Reports, "reports", true, "Write a SidecarReport beside each workload that has or should have sidecars.")
	zapOptions := &zap.Options{}
	zapOptions.BindFlags(flag.CommandLine)
	flag.Parse()
	o.Webhook.Namespace, o.PodName = o.Namespace, os.Getenv("POD_NAME")
	return o, zapOptions
}

func namespaceDefault() string {
	if namespace := os.Getenv("POD_NAMESPACE"); namespace != "" {
		return namespace
	}
	return "sidecar-operator-system"
}

func run(o *manager.Options) error {
	if os.Getenv("GOGC") == "" {
		paceCollections()
	}
	cluster, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	mgr, err := manager.New(cluster, *o)
	if err != nil {
		return err
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}
