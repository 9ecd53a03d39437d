package plugin

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/doctor"
)

// What an installation is called where nobody has said otherwise.
const (
	webhookService = "sidecar-operator-webhook-service"
	webhookSecret  = "sidecar-operator-webhook-cert"
	leaderLease    = "sidecar-operator.fleet.sidecar.dev"
)

func (a *app) doctor() *cobra.Command {
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Check the installation of the operator",
		Long:  "Check the installation of the operator: each finding says what to do next. Exits with 1 where something is broken.",
		Args:  takes(0, 0, "it takes no arguments"),
	}
	f := addFormat(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		if err := f.check(); err != nil {
			return err
		}
		facts, err := a.facts(command.Context())
		if err != nil {
			return err
		}
		findings := doctor.Check(facts)
		if err := a.write(f, findings, func() string { return doctor.Text(findings) }); err != nil {
			return err
		}
		if doctor.Sick(findings) {
			return exitCode(exitError)
		}
		return nil
	}
	return command
}

// facts reads the cluster. What can't be read is a fact too; an error is where nobody can be asked at all.
func (a *app) facts(ctx context.Context) (*doctor.Facts, error) {
	c, err := a.open()
	if err != nil {
		return nil, err
	}
	f := &doctor.Facts{Now: a.clock.Now(), Version: version(), Unread: map[string]string{}}
	if f.Namespace, err = a.home(ctx, c); err != nil {
		return nil, err
	}
	if f.ServerVersion, err = a.ask(); err != nil {
		return nil, err
	}
	if f.Policies, err = listPolicies(ctx, c); err != nil && !meta.IsNoMatchError(err) { // without the API there are none
		f.Unread[doctor.FactPolicies] = err.Error()
	}
	if f.Rights, err = rights(ctx, c, f.Namespace); err != nil {
		return nil, err
	}
	if f.Deployment, err = a.deployment(ctx, c); err != nil {
		f.Unread[doctor.FactDeployment] = err.Error()
	}
	if f.Deployment != nil {
		if err := grants(ctx, c, f); err != nil {
			f.Unread[doctor.FactGrants] = err.Error()
		}
	}
	readLists(ctx, c, f)
	readObjects(ctx, c, f)
	return f, ctx.Err()
}

// readLists reads what there may be several of.
func readLists(ctx context.Context, c client.Reader, f *doctor.Facts) {
	crds, roles := &apiextensionsv1.CustomResourceDefinitionList{}, &rbacv1.ClusterRoleList{}
	registrations, endpoints := &admissionregistrationv1.MutatingWebhookConfigurationList{}, &discoveryv1.EndpointSliceList{}
	nodes, namespaces := &corev1.NodeList{}, &corev1.NamespaceList{}
	for _, read := range []struct {
		fact    string
		list    client.ObjectList
		options []client.ListOption
	}{
		{doctor.FactCRDs, crds, nil},
		{doctor.FactClusterRoles, roles, nil},
		{doctor.FactRegistrations, registrations, []client.ListOption{client.HasLabels{v1alpha1.PolicyLabel}}},
		{doctor.FactEndpoints, endpoints, []client.ListOption{client.InNamespace(f.Namespace), client.MatchingLabels{discoveryv1.LabelServiceName: webhookService}}},
		{doctor.FactNodes, nodes, nil},
		{doctor.FactNamespaces, namespaces, nil},
	} {
		if err := c.List(ctx, read.list, read.options...); err != nil {
			f.Unread[read.fact] = err.Error()
		}
	}
	if err := eachPod(ctx, c, func(pod *metav1.PartialObjectMetadata) { f.Pods = append(f.Pods, labelsOf(pod)) }); err != nil {
		f.Pods, f.Unread[doctor.FactPods] = nil, err.Error()
	}
	compiled := &admissionregistrationv1.MutatingAdmissionPolicyList{}
	if err := c.List(ctx, compiled, client.HasLabels{v1alpha1.PolicyLabel}); err != nil && !meta.IsNoMatchError(err) { // older API servers have none
		f.Unread[doctor.FactRegistrations] = err.Error()
	}
	for i := range compiled.Items {
		f.Compiled = append(f.Compiled, compiled.Items[i].Labels[v1alpha1.PolicyLabel])
	}
	f.CRDs, f.Registrations, f.Endpoints = crds.Items, registrations.Items, endpoints.Items
	f.Nodes, f.Namespaces = nodes.Items, namespaces.Items
	for i := range roles.Items {
		f.ClusterRoles = append(f.ClusterRoles, roles.Items[i].Name)
	}
}

// labelsOf is what selectors look at: a cluster has many pods.
func labelsOf(pod *metav1.PartialObjectMetadata) metav1.PartialObjectMetadata {
	return metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, Labels: pod.Labels}}
}

// readObjects reads what there is one of.
func readObjects(ctx context.Context, c client.Reader, f *doctor.Facts) {
	secret, lease := &corev1.Secret{}, &coordinationv1.Lease{}
	err := c.Get(ctx, client.ObjectKey{Namespace: f.Namespace, Name: argument(f, "webhook-secret", webhookSecret)}, secret)
	switch {
	case err == nil:
		f.Certificate = secret
	case !apierrors.IsNotFound(err):
		f.Unread[doctor.FactCertificate] = err.Error()
	}
	err = c.Get(ctx, client.ObjectKey{Namespace: f.Namespace, Name: leaderLease}, lease)
	switch {
	case err == nil:
		f.Lease = lease
	case !apierrors.IsNotFound(err):
		f.Unread[doctor.FactLease] = err.Error()
	}
}

// argument is the value of a flag that the manager is started with.
func argument(f *doctor.Facts, name, fallback string) string {
	if f.Deployment == nil {
		return fallback
	}
	for _, container := range f.Deployment.Spec.Template.Spec.Containers {
		for _, arg := range container.Args {
			if value, found := strings.CutPrefix(arg, "--"+name+"="); found {
				return value
			}
		}
	}
	return fallback
}

// rights asks what the user may do.
func rights(ctx context.Context, c client.Client, home string) ([]doctor.Right, error) {
	group := v1alpha1.GroupVersion.Group
	var rights []doctor.Right
	for _, r := range []struct{ verb, group, resource, namespace, use string }{
		{"list", group, "sidecarpolicies", "", "status"},
		{"watch", group, "sidecarpolicies", "", "status --watch"},
		{"patch", group, "sidecarpolicies", "", "steering"},
		{"list", "apps", "controllerrevisions", home, "history, diff, undo and explain"},
		{"list", "", "pods", "", "history, plan and explain"},
		{"list", "", "nodes", "", "plan and explain"},
		{"list", "", "namespaces", "", "plan and explain"},
		{"list", "apps", "replicasets", "", "plan and explain"},
		{"list", "policy", "poddisruptionbudgets", "", "plan and explain"},
	} {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: r.verb, Group: r.group, Resource: r.resource, Namespace: r.namespace}}}
		if err := c.Create(ctx, review); err != nil {
			return nil, err
		}
		rights = append(rights, doctor.Right{Verb: r.verb, Resource: resourceName(review.Spec.ResourceAttributes), Allowed: review.Status.Allowed, For: r.use})
	}
	return rights, nil
}

// resourceName is what kubectl calls a resource: pods/eviction, deployments.apps.
func resourceName(on *authorizationv1.ResourceAttributes) string {
	name := on.Resource
	if on.Group != "" {
		name += "." + on.Group
	}
	if on.Subresource != "" {
		name += "/" + on.Subresource
	}
	return name
}

// askedAtOnce is how many questions about rights are under way at once.
const askedAtOnce = 10

// grants asks what the service account of the operator's Deployment may do.
func grants(ctx context.Context, c client.Client, f *doctor.Facts) error {
	needs, err := doctor.Needs(f.Namespace)
	if err != nil {
		return err
	}
	name := f.Deployment.Spec.Template.Spec.ServiceAccountName
	if name == "" {
		name = "default"
	}
	const accounts = "system:serviceaccounts"
	f.Account = "system:serviceaccount:" + f.Namespace + ":" + name
	f.Grants = make([]doctor.Right, len(needs))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(askedAtOnce)
	for i := range needs {
		group.Go(func() error {
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
				User: f.Account, Groups: []string{accounts, accounts + ":" + f.Namespace, "system:authenticated"}, ResourceAttributes: &needs[i]}}
			if err := c.Create(ctx, review); err != nil {
				return err
			}
			f.Grants[i] = doctor.Right{Verb: needs[i].Verb, Resource: resourceName(&needs[i]), Namespace: needs[i].Namespace, Allowed: review.Status.Allowed}
			return nil
		})
	}
	return group.Wait()
}
