package harness

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// WatchPods lists the pods of a namespace and watches every change of them from there on.
// A connection that the API server closes is opened again where it ended.
func WatchPods(ctx context.Context, c client.WithWatch, namespace string) ([]corev1.Pod, watch.Interface, error) {
	list := &corev1.PodList{}
	if err := c.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return nil, nil, err
	}
	w, err := watchtools.NewRetryWatcherWithContext(ctx, list.ResourceVersion, podWatcher{c, namespace})
	return list.Items, w, err
}

// podWatcher is a cache.WatcherWithContext for the pods of a namespace.
type podWatcher struct {
	client    client.WithWatch
	namespace string
}

func (w podWatcher) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	return w.client.Watch(ctx, &corev1.PodList{}, &client.ListOptions{Namespace: w.namespace, Raw: &options})
}
