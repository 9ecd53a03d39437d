package plugin

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/render"
)

// pageSize is how many pods are asked for at once.
const pageSize = 500

func (a *app) history() *cobra.Command {
	command := &cobra.Command{
		Use:   "history POLICY",
		Short: "The revisions of a policy, and how many pods carry each",
		Args:  onePolicy, ValidArgsFunction: a.completePolicy,
	}
	f := addFormat(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		return a.showHistory(command.Context(), args[0], f)
	}
	return command
}

func (a *app) showHistory(ctx context.Context, name string, f *format) error {
	c, err := a.open()
	if err != nil {
		return err
	}
	policy, err := getPolicy(ctx, c, name)
	if err != nil {
		return err
	}
	revisions, objects, err := a.revisionsOf(ctx, c, policy)
	if err != nil {
		return err
	}
	if len(revisions) == 0 && f.forPeople() {
		return fmt.Errorf("policy %s has no revision yet: kubectl sidecar status %[1]s says why", policy.Name)
	}
	pods, err := countCarriers(ctx, c, policy.Name)
	if err != nil {
		return err
	}
	created := make([]time.Time, len(objects))
	for i := range objects {
		created[i] = objects[i].CreationTimestamp.Time
	}
	list := render.HistoryOf(policy, revisions, created, pods)
	return a.write(f, list, func() string { return render.History(list, f.wide(), a.clock.Now()) })
}

// countCarriers counts the pods that carry each revision of a policy. It reads their metadata alone: the
// API server counts nothing that a selector restricts.
func countCarriers(ctx context.Context, c client.Reader, policy string) (map[string]int, error) {
	counts := map[string]int{}
	label := v1alpha1.RevisionLabel(policy)
	alive := client.MatchingFieldsSelector{Selector: fields.ParseSelectorOrDie("status.phase!=Succeeded,status.phase!=Failed")}
	err := eachPod(ctx, c, func(pod *metav1.PartialObjectMetadata) {
		if pod.DeletionTimestamp == nil {
			counts[pod.Labels[label]]++
		}
	}, client.HasLabels{label}, alive)
	if err != nil {
		return nil, fmt.Errorf("counting the pods of policy %s: %w", policy, err)
	}
	return counts, nil
}

// eachPod visits the metadata of pods, of which it asks for a page at a time.
func eachPod(ctx context.Context, c client.Reader, visit func(*metav1.PartialObjectMetadata), options ...client.ListOption) error {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	for {
		page := append(slices.Clip(options), client.Limit(pageSize), client.Continue(list.Continue))
		if err := c.List(ctx, list, page...); err != nil {
			return err
		}
		for i := range list.Items {
			visit(&list.Items[i])
		}
		if list.Continue == "" {
			return nil
		}
	}
}
