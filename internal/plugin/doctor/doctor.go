// Package doctor judges an installation of the operator by what was read of it: an ordered list of checks,
// each of which says what is wrong and what to do next. It is pure.
package doctor

import (
	"fmt"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// Level is how bad a finding is.
type Level string

// The levels of findings.
const (
	// OK: nothing is wrong.
	OK Level = "ok"
	// Warning: it works, but not all of it, or not for long.
	Warning Level = "warning"
	// Broken: something does not work.
	Broken Level = "broken"
)

// Finding is the outcome of a check.
type Finding struct {
	Check   string `json:"check"`
	Level   Level  `json:"level"`
	Message string `json:"message"`
	// Next is what to do; empty where nothing is wrong.
	Next string `json:"next,omitempty"`
}

// Right is something that the user may do, or not.
type Right struct {
	Verb, Resource string
	// Namespace is where; empty for the whole cluster.
	Namespace string
	Allowed   bool
	// For says what it is needed for.
	For string
}

// Facts are what was read of a cluster. What is empty is not there, or could not be read: see Unread.
type Facts struct {
	Now time.Time
	// Namespace is where the operator should be.
	Namespace     string
	ServerVersion string
	// Version is the plugin's.
	Version    string
	CRDs       []apiextensionsv1.CustomResourceDefinition
	Deployment *appsv1.Deployment
	Rights     []Right
	// Account is whom the manager is for the API server, Grants are what it needs.
	Account string
	Grants  []Right
	// ClusterRoles are the names of those that exist.
	ClusterRoles []string
	Policies     []v1alpha1.SidecarPolicy
	// Registrations are the operator's, by which the API server calls it for new pods.
	Registrations []admissionregistrationv1.MutatingWebhookConfiguration
	// Compiled are the policies that the API server injects for by itself.
	Compiled []string
	// Certificate is the Secret with the webhook's.
	Certificate *corev1.Secret
	// Endpoints are those of the webhook's Service.
	Endpoints []discoveryv1.EndpointSlice
	Nodes     []corev1.Node
	// Lease is the leader's.
	Lease *coordinationv1.Lease
	// Namespaces and Pods are those of the cluster, their metadata alone.
	Namespaces []corev1.Namespace
	Pods       []metav1.PartialObjectMetadata
	// Unread says of what could not be read why.
	Unread map[string]string
}

// check is one look at the facts.
type check struct {
	name string
	// needs are the facts that it can't do without, by their key in Unread.
	needs []string
	look  func(*Facts) []Finding
}

// checks are in the order in which a person would ask.
var checks = []check{
	// Can this Kubernetes do what is needed?
	{"api server", []string{FactVersion}, checkServer},
	// Is our API there, in our version?
	{"crds", []string{FactCRDs}, checkCRDs},
	// Does the operator run?
	{"manager", []string{FactDeployment}, checkManager},
	// Does one of its replicas lead?
	{"leader", []string{FactLease}, checkLeader},
	// Is it of the release that this plugin is of?
	{"version", []string{FactDeployment}, checkVersion},
	// May it do its work?
	{"access", []string{FactDeployment, FactGrants}, checkAccess},
	// Are the roles for people there?
	{"roles", []string{FactClusterRoles}, checkRoles},
	// What may you do?
	{"permissions", nil, checkRights},
	// Does every policy that injects have its registration, and the other way around?
	{"registrations", []string{FactRegistrations, FactPolicies}, checkRegistrations},
	// Will the API server believe the webhook?
	{"certificate", []string{FactCertificate}, checkCertificate},
	// Does it reach the webhook?
	{"endpoints", []string{FactEndpoints, FactRegistrations}, checkEndpoints},
	// Do kubelets restart a sidecar for a new image?
	{"kubelets", []string{FactNodes}, checkKubelets},
	// Do policies get into each other's way?
	{"overlaps", []string{FactPods, FactNamespaces, FactPolicies}, checkOverlaps},
	// What do the policies themselves say?
	{"policies", []string{FactPolicies}, checkPolicies},
}

// The keys of facts that may be unread.
const (
	FactVersion       = "the API server's version"
	FactCRDs          = "CustomResourceDefinitions"
	FactDeployment    = "the manager's Deployment"
	FactLease         = "the leader's Lease"
	FactGrants        = "what the operator's service account may do"
	FactClusterRoles  = "ClusterRoles"
	FactRegistrations = "MutatingWebhookConfigurations"
	FactCertificate   = "the certificate's Secret"
	FactEndpoints     = "EndpointSlices"
	FactNodes         = "Nodes"
	FactPods          = "Pods"
	FactNamespaces    = "Namespaces"
	FactPolicies      = "SidecarPolicies"
)

// Check makes all checks.
func Check(f *Facts) []Finding {
	var findings []Finding
	for _, c := range checks {
		found := c.unread(f)
		if len(found) == 0 {
			found = c.look(f)
		}
		for i := range found {
			found[i].Check = c.name
		}
		findings = append(findings, found...)
	}
	return findings
}

// unread says what a check could not look at.
func (c *check) unread(f *Facts) []Finding {
	var found []Finding
	for _, fact := range c.needs {
		if why := f.Unread[fact]; why != "" {
			found = append(found, warning("not checked, as "+fact+" could not be read: "+why, "run it as somebody who may, with --as or --context"))
		}
	}
	return found
}

// Sick says whether something is broken.
func Sick(findings []Finding) bool {
	for _, f := range findings {
		if f.Level == Broken {
			return true
		}
	}
	return false
}

func ok(format string, args ...any) []Finding {
	return []Finding{{Level: OK, Message: fmt.Sprintf(format, args...)}}
}

func warning(message, next string) Finding {
	return Finding{Level: Warning, Message: message, Next: next}
}

func broken(message, next string) Finding {
	return Finding{Level: Broken, Message: message, Next: next}
}

// orOK is what was found, or that all is well.
func orOK(found []Finding, format string, args ...any) []Finding {
	if len(found) > 0 {
		return found
	}
	return ok(format, args...)
}

// Text is the findings for people.
func Text(findings []Finding) string {
	var out strings.Builder
	counts := map[Level]int{}
	for _, f := range findings {
		counts[f.Level]++
		fmt.Fprintf(&out, "%-8s %-14s %s\n", f.Level, f.Check, f.Message)
		if f.Next != "" {
			fmt.Fprintf(&out, "%-8s %-14s -> %s\n", "", "", f.Next)
		}
	}
	fmt.Fprintf(&out, "\n%d broken, %d warnings, %d ok\n", counts[Broken], counts[Warning], counts[OK])
	return out.String()
}
