package plugin

import (
	"context"
	"fmt"
	"reflect"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/controllers"
)

// onlooker looks with the manager's own eyes.
func (a *app) onlooker(ctx context.Context, c client.Client) (*controllers.Onlooker, error) {
	home, err := a.home(ctx, c)
	if err != nil {
		return nil, err
	}
	image, err := a.operatorImage(ctx, c)
	if err != nil {
		return nil, err
	}
	return &controllers.Onlooker{Client: newBulkReader(c), Namespace: home, PrefetchImage: image, ServerVersion: a.ask}, nil
}

// look looks at a policy, and refuses to judge it by a history that it did not find.
func (a *app) look(ctx context.Context, o *controllers.Onlooker, policy *v1alpha1.SidecarPolicy, now time.Time) (*controllers.Sight, error) {
	sight, err := o.Look(ctx, policy, now)
	if err != nil {
		return nil, err
	}
	if len(sight.Revisions) == 0 || (sight.New && len(sight.Revisions) == 1) {
		return sight, a.historyElsewhere(policy)
	}
	return sight, nil
}

func (a *app) serverVersion() (string, error) {
	config, err := a.config()
	if err != nil {
		return "", err
	}
	asker, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return "", err
	}
	info, err := asker.ServerVersion()
	if err != nil {
		return "", err
	}
	return info.GitVersion, nil
}

// operatorImage is the operator's own; empty where it is not there, or nobody may know.
func (a *app) operatorImage(ctx context.Context, c client.Reader) (string, error) {
	deployment, err := a.deployment(ctx, c)
	if apierrors.IsForbidden(err) || (err == nil && deployment == nil) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return deployment.Spec.Template.Spec.Containers[0].Image, nil
}

// deployment is the operator's; nil where there is none.
func (a *app) deployment(ctx context.Context, c client.Reader) (*appsv1.Deployment, error) {
	home, err := a.home(ctx, c)
	if err != nil {
		return nil, err
	}
	list := &appsv1.DeploymentList{}
	err = c.List(ctx, list, client.InNamespace(home), operatorLabels)
	if err != nil || len(list.Items) == 0 {
		return nil, err
	}
	return &list.Items[0], nil
}

// bulkReader answers gets of workloads from one list of their namespace: a fleet has thousands of
// owners, and one request each would take minutes.
type bulkReader struct {
	client.Client
	seen map[bulk]map[string]client.Object
}

type bulk struct {
	kind      schema.GroupVersionKind
	namespace string
}

func newBulkReader(c client.Client) *bulkReader {
	return &bulkReader{Client: c, seen: map[bulk]map[string]client.Object{}}
}

// Get implements client.Reader.
func (r *bulkReader) Get(ctx context.Context, key client.ObjectKey, object client.Object, opts ...client.GetOption) error {
	list := listOf(object)
	if list == nil {
		return r.Client.Get(ctx, key, object, opts...)
	}
	kind, err := apiutil.GVKForObject(object, r.Scheme())
	if err != nil {
		return err
	}
	known, err := r.all(ctx, bulk{kind, key.Namespace}, list)
	if err != nil {
		return err
	}
	found := known[key.Name]
	if found == nil {
		return apierrors.NewNotFound(schema.GroupResource{Group: kind.Group, Resource: kind.Kind}, key.Name)
	}
	reflect.ValueOf(object).Elem().Set(reflect.ValueOf(found).Elem())
	return nil
}

func listOf(object client.Object) client.ObjectList {
	switch object.(type) {
	case *appsv1.ReplicaSet:
		return &appsv1.ReplicaSetList{}
	case *appsv1.Deployment:
		return &appsv1.DeploymentList{}
	case *appsv1.StatefulSet:
		return &appsv1.StatefulSetList{}
	case *appsv1.DaemonSet:
		return &appsv1.DaemonSetList{}
	}
	return nil
}

// all are the objects of a kind in a namespace, by name.
func (r *bulkReader) all(ctx context.Context, which bulk, list client.ObjectList) (map[string]client.Object, error) {
	if known := r.seen[which]; known != nil {
		return known, nil
	}
	if err := r.List(ctx, list, client.InNamespace(which.namespace)); err != nil {
		return nil, fmt.Errorf("listing %ss: %w", which.kind.Kind, err)
	}
	known := map[string]client.Object{}
	err := meta.EachListItem(list, func(item runtime.Object) error {
		object := item.(client.Object)
		known[object.GetName()] = object
		return nil
	})
	r.seen[which] = known
	return known, err
}
