package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/operator-framework/operator-registry/pkg/lib/bundle"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

const (
	kindCSV                = "ClusterServiceVersion"
	kindCRD                = "CustomResourceDefinition"
	kindDeployment         = "Deployment"
	kindNamespace          = "Namespace"
	kindServiceAccount     = "ServiceAccount"
	kindClusterRole        = "ClusterRole"
	kindClusterRoleBinding = "ClusterRoleBinding"
	kindRoleBinding        = "RoleBinding"
	kindScorecard          = "Configuration"
)

// parts are the manifests of an installation, by what becomes of them in a bundle. They are kept as they are
// written: types of OLM's libraries may be older than a field of ours, and would drop it.
type parts struct {
	// base is the part of the ClusterServiceVersion that people write.
	base *unstructured.Unstructured
	// deployment and namespace become parts of the ClusterServiceVersion.
	deployment, namespace *unstructured.Unstructured
	scorecard             *unstructured.Unstructured
	crds                  []*unstructured.Unstructured
	// examples are objects of the kinds that crds define.
	examples []*unstructured.Unstructured
	accounts []*unstructured.Unstructured
	roles    []*unstructured.Unstructured
	bindings []*unstructured.Unstructured
	// others are objects of their own in the bundle.
	others []*unstructured.Unstructured
}

// read sorts a stream of manifests into the parts.
func read(r io.Reader) (*parts, error) {
	objects, err := decode(r)
	if err != nil {
		return nil, err
	}
	p := &parts{}
	groups := map[string]bool{}
	for _, object := range objects {
		if object.GetKind() == kindCRD {
			group, _, _ := unstructured.NestedString(object.Object, "spec", "group")
			groups[group] = true
		}
	}
	for _, object := range objects {
		if groups[object.GroupVersionKind().Group] {
			p.examples = append(p.examples, object)
		} else if err := p.add(object); err != nil {
			return nil, err
		}
	}
	return p, p.complete()
}

func decode(r io.Reader) ([]*unstructured.Unstructured, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(r, 4096)
	var objects []*unstructured.Unstructured
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}

func (p *parts) add(object *unstructured.Unstructured) error {
	switch kind := object.GetKind(); kind {
	case kindCSV:
		return single(&p.base, object)
	case kindDeployment:
		return single(&p.deployment, object)
	case kindNamespace:
		return single(&p.namespace, object)
	case kindScorecard:
		return single(&p.scorecard, object)
	case kindCRD:
		p.crds = append(p.crds, object)
	case kindServiceAccount:
		p.accounts = append(p.accounts, object)
	case kindClusterRole:
		p.roles = append(p.roles, object)
	case kindClusterRoleBinding:
		p.bindings = append(p.bindings, object)
	default:
		if supported, _ := bundle.IsSupported(kind); !supported {
			return fmt.Errorf("OLM installs no %s: take %s out of config/manifests and describe in docs/guides/install-olm.md how it is applied", kind, object.GetName())
		}
		p.others = append(p.others, object)
	}
	return nil
}

func single(field **unstructured.Unstructured, object *unstructured.Unstructured) error {
	if *field != nil {
		return fmt.Errorf("there are two objects of kind %s: %s and %s", object.GetKind(), (*field).GetName(), object.GetName())
	}
	*field = object
	return nil
}

// complete says which part is missing.
func (p *parts) complete() error {
	for _, part := range []struct {
		kind   string
		object *unstructured.Unstructured
	}{
		{kindCSV, p.base},
		{kindDeployment, p.deployment},
		{kindNamespace, p.namespace},
		{"scorecard " + kindScorecard, p.scorecard},
	} {
		if part.object == nil {
			return fmt.Errorf("there is no %s", part.kind)
		}
	}
	return nil
}
