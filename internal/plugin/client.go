package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// fieldManager is whose the fields are that the plugin writes.
const fieldManager = "kubectl-sidecar"

// config is how the API server is reached.
func (a *app) config() (*rest.Config, error) {
	config, err := a.flags.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // the API server's priority and fairness is the limit
	config.UserAgent = fieldManager
	return config, nil
}

func (a *app) client() (client.WithWatch, error) {
	config, err := a.config()
	if err != nil {
		return nil, err
	}
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	return client.NewWithWatch(config, client.Options{Scheme: scheme})
}

// newScheme has all kinds that the plugin reads and writes.
func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return scheme, nil
}

// podNamespace is the namespace of -n, or that of the kubeconfig's context.
func (a *app) podNamespace() (string, error) {
	namespace, _, err := a.flags.ToRawKubeConfigLoader().Namespace()
	return namespace, err
}

// policyName takes log-agent, sidecarpolicy/log-agent and scp/log-agent.
func policyName(arg string) string {
	if _, name, found := strings.Cut(arg, "/"); found {
		return name
	}
	return arg
}

func getPolicy(ctx context.Context, c client.Reader, arg string) (*v1alpha1.SidecarPolicy, error) {
	policy := &v1alpha1.SidecarPolicy{}
	err := c.Get(ctx, client.ObjectKey{Name: policyName(arg)}, policy)
	if !apierrors.IsNotFound(err) {
		return policy, err
	}
	list, listErr := listPolicies(ctx, c)
	if listErr != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("there is no policy %q, and no other one either: apply one first", policyName(arg))
	}
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].Name
	}
	return nil, fmt.Errorf("there is no policy %q: write one of %s", policyName(arg), strings.Join(names, ", "))
}

// listPolicies are all policies by name.
func listPolicies(ctx context.Context, c client.Reader) ([]v1alpha1.SidecarPolicy, error) {
	list := &v1alpha1.SidecarPolicyList{}
	if err := c.List(ctx, list); err != nil {
		return nil, err
	}
	slices.SortFunc(list.Items, func(a, b v1alpha1.SidecarPolicy) int { return strings.Compare(a.Name, b.Name) })
	return list.Items, nil
}

// storedRevisions are a policy's, the newest first, each with the object that holds it.
func (a *app) storedRevisions(ctx context.Context, c client.Reader, policy string) ([]revision.Revision, []appsv1.ControllerRevision, error) {
	home, err := a.home(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	list := &appsv1.ControllerRevisionList{}
	if err := c.List(ctx, list, client.InNamespace(home), client.MatchingLabels{v1alpha1.PolicyLabel: policy}); err != nil {
		return nil, nil, fmt.Errorf("listing the revisions in namespace %s: %w", home, err)
	}
	slices.SortFunc(list.Items, func(a, b appsv1.ControllerRevision) int { return int(b.Revision - a.Revision) })
	revisions := make([]revision.Revision, len(list.Items))
	for i := range list.Items {
		if revisions[i], err = revision.Decode(&list.Items[i]); err != nil {
			return nil, nil, err
		}
	}
	return revisions, list.Items, nil
}

// revisionsOf are the stored revisions of a policy, of which there is one where its status names one.
func (a *app) revisionsOf(ctx context.Context, c client.Reader, policy *v1alpha1.SidecarPolicy) ([]revision.Revision, []appsv1.ControllerRevision, error) {
	revisions, objects, err := a.storedRevisions(ctx, c, policy.Name)
	if err == nil && len(revisions) == 0 {
		err = a.historyElsewhere(policy)
	}
	return revisions, objects, err
}

// historyElsewhere is the error where none of a policy's revisions was found; nil where it has none yet.
func (a *app) historyElsewhere(policy *v1alpha1.SidecarPolicy) error {
	if policy.Status.TargetRevision == "" {
		return nil
	}
	return fmt.Errorf("policy %s is at revision %s, and no revision of it is in namespace %s: say where the operator is installed by --operator-namespace", policy.Name, policy.Status.TargetRevision, a.namespace)
}

// advised is an error with what to do about it, where the API server's words don't say.
func advised(err error) error {
	switch {
	case meta.IsNoMatchError(err):
		return fmt.Errorf("this cluster does not serve the API of the sidecar operator (%w): install the operator, or choose another cluster with --context", err)
	case clientcmd.IsEmptyConfig(err):
		return fmt.Errorf("no cluster is configured: set KUBECONFIG, or write --kubeconfig (%w)", err)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w: ask for the ClusterRole sidecar-operator-sidecarpolicy-viewer-role (to see) or -editor-role (to steer); kubectl sidecar doctor says what is missing", err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%w: log in again, or choose another user with --context or --user", err)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case unreachable(err):
		return fmt.Errorf("%w: the API server can't be reached: see whether it runs, whether the network leads there (VPN, proxy), and whether it is the one that is meant (kubectl config get-contexts; --context chooses another)", err)
	}
	return err
}

// unreachable says whether nobody answered, by the errors that a connection ends with.
func unreachable(err error) bool {
	var name *net.DNSError
	var operation *net.OpError
	return errors.As(err, &name) || errors.As(err, &operation)
}
