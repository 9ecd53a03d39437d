package plugin

import (
	"context"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completed asks the cluster for words. A shell that completes has nobody to tell of an error.
func (a *app) completed(words func(ctx context.Context, c client.Reader) ([]string, error)) completion {
	return func(command *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		c, err := a.open()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		list, err := words(command.Context(), c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}

// completePolicy offers policies as the first argument.
func (a *app) completePolicy(command *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completed(func(ctx context.Context, c client.Reader) ([]string, error) {
		policies, err := listPolicies(ctx, c)
		names := make([]string, len(policies))
		for i := range policies {
			names[i] = policies[i].Name
		}
		return names, err
	})(command, args, word)
}

// completeRevision offers the revisions of the policy that is the first argument.
func (a *app) completeRevision(command *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	return a.completed(func(ctx context.Context, c client.Reader) ([]string, error) {
		if len(args) == 0 {
			return nil, nil
		}
		revisions, _, err := a.storedRevisions(ctx, c, policyName(args[0]))
		names := make([]string, len(revisions))
		for i := range revisions {
			names[i] = revisions[i].Hash
		}
		return names, err
	})(command, args, word)
}

// completePod offers the pods of the namespace.
func (a *app) completePod(command *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completed(func(ctx context.Context, c client.Reader) ([]string, error) {
		namespace, err := a.podNamespace()
		if err != nil {
			return nil, err
		}
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
		err = c.List(ctx, list, client.InNamespace(namespace))
		names := make([]string, len(list.Items))
		for i := range list.Items {
			names[i] = list.Items[i].Name
		}
		return names, err
	})(command, args, word)
}
