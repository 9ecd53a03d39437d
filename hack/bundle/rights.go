package main

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// rights are what the service account of the Deployment may do, as the ClusterServiceVersion says it.
type rights struct {
	// cluster are the clusterPermissions, from which OLM makes ClusterRoles, bindings and the account.
	cluster []any
	// objects are RBAC objects of their own in the bundle.
	objects []*unstructured.Unstructured
}

// split turns what is bound to the account in the whole cluster into clusterPermissions.
//
// Roles of the operator's own namespace stay objects, and never become the ClusterServiceVersion's permissions: for an
// operator that watches all namespaces OLM makes ClusterRoles of those, and the operator could read every Secret.
func (p *parts) split() (rights, error) {
	account, _, _ := unstructured.NestedString(p.deployment.Object, "spec", "template", "spec", "serviceAccountName")
	var r rights
	var used []string
	for _, binding := range p.bindings {
		role, _, _ := unstructured.NestedString(binding.Object, "roleRef", "name")
		if !binds(binding, account) {
			r.objects = append(r.objects, binding)
			continue
		}
		rules, err := p.rulesOf(role)
		if err != nil {
			return rights{}, fmt.Errorf("binding %s: %w", binding.GetName(), err)
		}
		used = append(used, role)
		r.cluster = append(r.cluster, map[string]any{"serviceAccountName": account, "rules": rules})
	}
	if len(r.cluster) == 0 {
		return rights{}, fmt.Errorf("no ClusterRoleBinding names the Deployment's service account %q", account)
	}
	for _, role := range p.roles {
		if !slices.Contains(used, role.GetName()) {
			r.objects = append(r.objects, role)
		}
	}
	for _, object := range p.accounts {
		if object.GetName() != account { // OLM makes that one
			r.objects = append(r.objects, object)
		}
	}
	return r, nil
}

func (p *parts) rulesOf(clusterRole string) ([]any, error) {
	for _, role := range p.roles {
		if role.GetName() == clusterRole {
			rules, _, err := unstructured.NestedSlice(role.Object, "rules")
			return rules, err
		}
	}
	return nil, fmt.Errorf("there is no ClusterRole %q", clusterRole)
}

func binds(binding *unstructured.Unstructured, account string) bool {
	subjects, _, _ := unstructured.NestedSlice(binding.Object, "subjects")
	return slices.ContainsFunc(subjects, func(subject any) bool {
		fields, _ := subject.(map[string]any)
		return fields["kind"] == kindServiceAccount && fields["name"] == account
	})
}

// anyNamespace makes an object installable into whichever namespace the user chose. The subject of a RoleBinding is then
// the service account of the binding's own namespace.
func anyNamespace(object *unstructured.Unstructured, namespace string) {
	if object.GetNamespace() == namespace {
		object.SetNamespace("")
	}
	if object.GetKind() != kindRoleBinding {
		return
	}
	subjects, _, _ := unstructured.NestedSlice(object.Object, "subjects")
	for _, subject := range subjects {
		if fields, ok := subject.(map[string]any); ok && fields["namespace"] == namespace {
			delete(fields, "namespace")
		}
	}
	object.Object["subjects"] = subjects
}
