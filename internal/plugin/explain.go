package plugin

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/controllers"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/explain"
)

func (a *app) explain() *cobra.Command {
	var policy string
	command := &cobra.Command{
		Use:     "explain POD",
		Short:   "Why a pod has, lacks or waits for its sidecars",
		Example: example("kubectl sidecar explain -n shop cart-5d4f8", "kubectl sidecar explain shop/cart-5d4f8 --policy log-agent"),
		Args:    takes(1, 1, "name one pod, as POD, pod/POD or NAMESPACE/POD"), ValidArgsFunction: a.completePod,
	}
	f := addFormat(command)
	command.Flags().StringVar(&policy, "policy", "", "Ask about this policy alone.")
	_ = command.RegisterFlagCompletionFunc("policy", func(command *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return a.completePolicy(command, nil, word)
	})
	command.RunE = func(command *cobra.Command, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		return a.explainPod(command.Context(), args[0], policy, f)
	}
	return command
}

func (a *app) explainPod(ctx context.Context, arg, only string, f *format) error {
	c, err := a.open()
	if err != nil {
		return err
	}
	onlooker, err := a.onlooker(ctx, c)
	if err != nil {
		return err
	}
	subject, err := a.subject(ctx, c, arg, onlooker.Namespace)
	if err != nil {
		return err
	}
	policies, err := asked(ctx, c, only)
	if err != nil {
		return err
	}
	answers := make([]explain.Answer, len(policies))
	for i := range policies {
		if answers[i], err = a.answer(ctx, onlooker, *subject, &policies[i]); err != nil {
			return fmt.Errorf("looking at policy %s: %w", policies[i].Name, err)
		}
	}
	return a.write(f, answers, func() string { return explain.Text(subject.Pod, answers) })
}

// asked are the policies that are asked about: the one of that name, or all.
func asked(ctx context.Context, c client.Reader, only string) ([]v1alpha1.SidecarPolicy, error) {
	if only == "" {
		return listPolicies(ctx, c)
	}
	policy, err := getPolicy(ctx, c, only)
	if err != nil {
		return nil, err
	}
	return []v1alpha1.SidecarPolicy{*policy}, nil
}

// subject reads the pod, which is named POD, pod/POD or NAMESPACE/POD.
func (a *app) subject(ctx context.Context, c client.Reader, arg, operatorNamespace string) (*explain.Subject, error) {
	namespace, err := a.podNamespace()
	if err != nil {
		return nil, err
	}
	before, name, found := strings.Cut(arg, "/")
	switch {
	case !found:
		name = arg
	case before != "pod" && before != "pods" && before != "po":
		namespace = before
	}
	pod := &corev1.Pod{}
	err = c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, pod)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is no pod %q in namespace %s: choose another namespace with -n, or write NAMESPACE/POD", name, namespace)
	}
	if err != nil {
		return nil, err
	}
	home := &corev1.Namespace{}
	if err := c.Get(ctx, client.ObjectKey{Name: namespace}, home); err != nil {
		return nil, err
	}
	return &explain.Subject{Pod: pod, NamespaceLabels: home.Labels, OperatorNamespace: operatorNamespace}, nil
}

func (a *app) answer(ctx context.Context, o *controllers.Onlooker, subject explain.Subject, policy *v1alpha1.SidecarPolicy) (explain.Answer, error) {
	if answer, not := explain.NotSelected(subject, policy); not {
		return answer, nil
	}
	sight, err := a.look(ctx, o, policy, a.clock.Now())
	if err != nil {
		return explain.Answer{}, err
	}
	return explain.Selected(subject, explain.Sight{Policy: policy, Problem: sight.Problem, Input: sight.Input, Plan: sight.Plan}), nil
}
