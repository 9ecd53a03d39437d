package doctor

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/config/rbac"
)

// Needs is all that the manager has to be allowed, where it is installed in that namespace.
func Needs(namespace string) ([]authorizationv1.ResourceAttributes, error) {
	var needs []authorizationv1.ResourceAttributes
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(rbac.ManagerRoles)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return needs, nil
		}
		if err != nil {
			return nil, err
		}
		role := rbacv1.Role{} // a ClusterRole has the same rules
		if err := yaml.Unmarshal(document, &role); err != nil {
			return nil, err
		}
		in := ""
		if role.Kind == "Role" {
			in = namespace
		}
		for i := range role.Rules {
			needs = append(needs, allowedBy(&role.Rules[i], in)...)
		}
	}
}

// allowedBy are the single things that a rule allows.
func allowedBy(rule *rbacv1.PolicyRule, namespace string) []authorizationv1.ResourceAttributes {
	var list []authorizationv1.ResourceAttributes
	for _, group := range rule.APIGroups {
		for _, name := range rule.Resources {
			resource, subresource, _ := strings.Cut(name, "/")
			for _, verb := range rule.Verbs {
				list = append(list, authorizationv1.ResourceAttributes{Namespace: namespace, Group: group, Resource: resource, Subresource: subresource, Verb: verb})
			}
		}
	}
	return list
}

// checkAccess asks whether the manager may do its work. Roles may have any name, be bound to nobody, or not be what
// decides: so what counts is what the API server says of its service account.
func checkAccess(f *Facts) []Finding {
	switch {
	case f.Deployment == nil && f.outside():
		return ok("the operator runs outside of the cluster, as whom its own kubeconfig says")
	case f.Deployment == nil:
		return []Finding{warning("not checked, as no Deployment names the operator's service account", "see the check of the manager")}
	}
	var denied []string
	for _, r := range f.Grants {
		if !r.Allowed {
			denied = append(denied, r.what())
		}
	}
	if len(denied) == 0 {
		return ok("%s may do all that the operator does", f.Account)
	}
	return []Finding{broken(fmt.Sprintf("%s may not do %d of the %d things that the operator does: %s", f.Account, len(denied), len(f.Grants), few(denied)),
		"see whether its roles are there and bound to it; "+f.reinstall())}
}

func (r *Right) what() string {
	if r.Namespace == "" {
		return r.Verb + " " + r.Resource
	}
	return r.Verb + " " + r.Resource + " in namespace " + r.Namespace
}

// peoplesRoles are the ClusterRoles that people may be given.
var peoplesRoles = []string{"sidecar-operator-sidecarpolicy-editor-role", "sidecar-operator-sidecarpolicy-viewer-role"}

func checkRoles(f *Facts) []Finding {
	var found []Finding
	for _, role := range peoplesRoles {
		if !slices.Contains(f.ClusterRoles, role) {
			found = append(found, warning("ClusterRole "+role+" is not there, and nobody has rights by it", f.reinstall()))
		}
	}
	return orOK(found, "the ClusterRoles for people are there")
}

func checkRights(f *Facts) []Finding {
	var found []Finding
	for _, r := range f.Rights {
		if !r.Allowed {
			found = append(found, warning(fmt.Sprintf("you may not %s %s, which %s needs", r.Verb, r.Resource, r.For), "ask for the ClusterRole sidecar-operator-sidecarpolicy-viewer-role (to see) or -editor-role (to steer), and for view on what the fleet is made of"))
		}
	}
	return orOK(found, "you may do all that this plugin does")
}
