package plugin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/selection"
)

// operatorLabels are those of the operator's Deployment, whoever installed it.
var operatorLabels = client.MatchingLabels{"control-plane": "controller-manager", "app.kubernetes.io/name": selection.OperatorName}

// home is the operator's namespace, where the revisions are: the one that was named or, where none was, the one that
// it is found in.
func (a *app) home(ctx context.Context, c client.Reader) (string, error) {
	if a.namespace != "" {
		return a.namespace, nil
	}
	found, err := findOperator(ctx, c)
	if err != nil {
		return "", err
	}
	a.namespace = found
	return found, nil
}

// findOperator asks what the operator has registered, then for its Deployment. Whoever may read neither gets the default.
func findOperator(ctx context.Context, c client.Reader) (string, error) {
	for _, look := range []func(context.Context, client.Reader) ([]string, error){registeredIn, deployedIn} {
		namespaces, err := look(ctx, c)
		if err != nil && !apierrors.IsForbidden(err) {
			return "", fmt.Errorf("looking for the operator: %w", err)
		}
		slices.Sort(namespaces)
		namespaces = slices.Compact(namespaces)
		switch {
		case len(namespaces) == 1:
			return namespaces[0], nil
		case len(namespaces) > 1 && !slices.Contains(namespaces, defaultNamespace):
			return "", fmt.Errorf("the operator is in several namespaces: choose one of %s by --operator-namespace", strings.Join(namespaces, ", "))
		case len(namespaces) > 1:
			return defaultNamespace, nil
		}
	}
	return defaultNamespace, nil
}

// registeredIn are the namespaces of the Services that new pods are sent to.
func registeredIn(ctx context.Context, c client.Reader) ([]string, error) {
	list := &admissionregistrationv1.MutatingWebhookConfigurationList{}
	if err := c.List(ctx, list, client.HasLabels{v1alpha1.PolicyLabel}); err != nil {
		return nil, err
	}
	var namespaces []string
	for i := range list.Items {
		for j := range list.Items[i].Webhooks {
			if service := list.Items[i].Webhooks[j].ClientConfig.Service; service != nil {
				namespaces = append(namespaces, service.Namespace)
			}
		}
	}
	return namespaces, nil
}

// deployedIn are the namespaces of the operator's Deployments.
func deployedIn(ctx context.Context, c client.Reader) ([]string, error) {
	list := &appsv1.DeploymentList{}
	if err := c.List(ctx, list, operatorLabels); err != nil {
		return nil, err
	}
	var namespaces []string
	for i := range list.Items {
		namespaces = append(namespaces, list.Items[i].Namespace)
	}
	return namespaces, nil
}
