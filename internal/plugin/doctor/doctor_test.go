package doctor_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/certs"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/doctor"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

const namespace = "sidecar-operator-system"

var now = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

func policy(name string) v1alpha1.SidecarPolicy {
	p := v1alpha1.SidecarPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 1}}
	p.Spec.Selector.PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{name: "yes"}}
	p.Spec.Template = builders.Template(name+"-agent", "agent:1").Obj()
	p.Status.ObservedGeneration = 1
	p.Status.Conditions = []metav1.Condition{
		{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: string(v1alpha1.ReasonValid)},
		{Type: v1alpha1.ConditionInjecting, Status: metav1.ConditionTrue, Reason: string(v1alpha1.ReasonRegistered)},
	}
	return p
}

func registration(policy string, ca []byte) admissionregistrationv1.MutatingWebhookConfiguration {
	return admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "sidecar-operator-" + policy, Labels: map[string]string{v1alpha1.PolicyLabel: policy}},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{FailurePolicy: ptr.To(admissionregistrationv1.Ignore),
			ClientConfig: admissionregistrationv1.WebhookClientConfig{CABundle: ca, Service: &admissionregistrationv1.ServiceReference{Name: "webhook"}}}},
	}
}

func crd(name string) apiextensionsv1.CustomResourceDefinition {
	c := apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: name}}
	c.Spec.Group = v1alpha1.GroupVersion.Group
	c.Spec.Versions = []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1alpha1", Served: true}}
	c.Status.Conditions = []apiextensionsv1.CustomResourceDefinitionCondition{{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue}}
	return c
}

// secret is a webhook's certificate, which takes a while to make.
var secret = func() *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cert"}}
	if _, err := (certs.Schedule{}).Renew(s, "webhook", true, now); err != nil {
		panic(err)
	}
	return s
}()

func pod(name string, labels ...string) metav1.PartialObjectMetadata {
	p := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{}}}
	for _, label := range labels {
		p.Labels[label] = "yes"
	}
	return p
}

func node(kubelet string) corev1.Node {
	n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	n.Status.NodeInfo.KubeletVersion = kubelet
	return n
}

func running(image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "manager", Image: image}}}}
}

// healthy is an installation in which nothing is wrong.
func healthy() *doctor.Facts {
	return &doctor.Facts{Now: now, Namespace: namespace, ServerVersion: "v1.37.2", Unread: map[string]string{},
		CRDs:         []apiextensionsv1.CustomResourceDefinition{crd("sidecarpolicies.fleet.sidecar.dev"), crd("sidecarreports.fleet.sidecar.dev")},
		Deployment:   &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "manager"}, Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](2), Template: running("ghcr.io/sidecar-dev/sidecar-operator:v0.1.0")}, Status: appsv1.DeploymentStatus{ReadyReplicas: 2}},
		Rights:       []doctor.Right{{Verb: "list", Resource: "pods", Allowed: true}},
		Account:      "system:serviceaccount:sidecar-operator-system:manager",
		Grants:       []doctor.Right{{Verb: "patch", Resource: "pods", Allowed: true}, {Verb: "list", Resource: "secrets", Namespace: namespace, Allowed: true}},
		ClusterRoles: []string{"sidecar-operator-sidecarpolicy-editor-role", "sidecar-operator-sidecarpolicy-viewer-role"},
		Policies:     []v1alpha1.SidecarPolicy{policy("logs"), policy("mesh")},
		Registrations: []admissionregistrationv1.MutatingWebhookConfiguration{
			registration("logs", certs.CABundle(secret)), registration("mesh", certs.CABundle(secret))},
		Certificate: secret,
		Endpoints:   []discoveryv1.EndpointSlice{{Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}}}},
		Nodes:       []corev1.Node{node("v1.37.2")},
		Lease: &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To("manager-1"), LeaseDurationSeconds: ptr.To[int32](15),
			RenewTime: &metav1.MicroTime{Time: now.Add(-5 * time.Second)}}},
		Namespaces: []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}},
		Pods:       []metav1.PartialObjectMetadata{pod("cart-1", "logs", "mesh"), pod("cart-2", "logs", "mesh"), pod("till-1", "logs")},
	}
}

// The entries of a registration are alike: what is wrong with all of them is said once.
func TestSaysOnceWhatIsWrongWithARegistration(t *testing.T) {
	f := healthy()
	r := registration("gone", []byte("other"))
	r.Webhooks = append(r.Webhooks, r.Webhooks[0], r.Webhooks[0])
	f.Registrations = append(f.Registrations, r)
	said := map[string]int{}
	for _, finding := range doctor.Check(f) {
		if strings.Contains(finding.Message, "gone") {
			said[finding.Message]++
		}
	}
	if len(said) != 2 {
		t.Errorf("said %v, and not that the registration is left, and trusts another authority", said)
	}
	for message, times := range said {
		if times != 1 {
			t.Errorf("%q is said %d times", message, times)
		}
	}
}

func TestNothingIsWrong(t *testing.T) {
	for _, f := range doctor.Check(healthy()) {
		if f.Level != doctor.OK || f.Next != "" {
			t.Errorf("%s: %s: %s (%s)", f.Check, f.Level, f.Message, f.Next)
		}
	}
}

func TestFindings(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(*doctor.Facts)
		check string
		level doctor.Level
		says  string
	}{
		{"old API server", func(f *doctor.Facts) { f.ServerVersion = "v1.32.9" }, "api server", doctor.Broken, "older than 1.33"},
		{"no CRD", func(f *doctor.Facts) { f.CRDs = f.CRDs[:1] }, "crds", doctor.Broken, "sidecarreports.fleet.sidecar.dev is not there"},
		{"another version", func(f *doctor.Facts) { f.CRDs[0].Spec.Versions[0].Name = "v1" }, "crds", doctor.Broken, "not served in v1alpha1"},
		{"not established", func(f *doctor.Facts) { f.CRDs[0].Status.Conditions = nil }, "crds", doctor.Broken, "not established"},
		{"no manager", func(f *doctor.Facts) { f.Deployment = nil }, "manager", doctor.Broken, "there is no manager in namespace sidecar-operator-system"},
		{"a manager elsewhere", func(f *doctor.Facts) {
			f.Deployment = nil
			f.Registrations[0].Webhooks[0].ClientConfig.URL = ptr.To("https://here")
		}, "manager", doctor.Warning, "runs outside of the cluster"},
		{"no replica is ready", func(f *doctor.Facts) { f.Deployment.Status.ReadyReplicas = 0 }, "manager", doctor.Broken, "none of 2 replicas"},
		{"one replica is ready", func(f *doctor.Facts) { f.Deployment.Status.ReadyReplicas = 1 }, "manager", doctor.Warning, "1 of 2 replicas"},
		{"nobody leads", func(f *doctor.Facts) { f.Lease = nil }, "leader", doctor.Broken, "no replica leads"},
		{"the leader is gone", func(f *doctor.Facts) { f.Lease.Spec.RenewTime.Time = now.Add(-time.Minute) }, "leader", doctor.Broken, "has not renewed its lease since 2026-03-01T08:59:00Z"},
		{"no role", func(f *doctor.Facts) { f.ClusterRoles = f.ClusterRoles[1:] }, "roles", doctor.Warning, "ClusterRole sidecar-operator-sidecarpolicy-editor-role is not there"},
		{"no binding", func(f *doctor.Facts) { f.Grants[0].Allowed, f.Grants[1].Allowed = false, false }, "access", doctor.Broken,
			"system:serviceaccount:sidecar-operator-system:manager may not do 2 of the 2 things that the operator does: patch pods, list secrets in namespace sidecar-operator-system"},
		{"nobody may be asked", func(f *doctor.Facts) { f.Unread[doctor.FactGrants] = "forbidden" }, "access", doctor.Warning, "not checked, as what the operator's service account may do could not be read: forbidden"},
		{"another release", func(f *doctor.Facts) { f.Version = "v0.2.0" }, "version", doctor.Warning, "the plugin is of release v0.2.0, and the operator of v0.1.0"},
		{"no right", func(f *doctor.Facts) { f.Rights[0] = doctor.Right{Verb: "list", Resource: "pods", For: "plan"} }, "permissions", doctor.Warning, "you may not list pods, which plan needs"},
		{"no registration", func(f *doctor.Facts) { f.Registrations = f.Registrations[1:] }, "registrations", doctor.Broken, "policy logs says that it injects"},
		{"no injection", func(f *doctor.Facts) {
			f.Policies[0].Status.Conditions[1] = metav1.Condition{Type: v1alpha1.ConditionInjecting, Status: metav1.ConditionFalse, Reason: "WaitingForCertificate", Message: "not there yet"}
		}, "registrations", doctor.Broken, "policy logs does not inject (WaitingForCertificate): not there yet"},
		{"a registration is left", func(f *doctor.Facts) { f.Policies = f.Policies[1:] }, "registrations", doctor.Broken, `left of policy "logs"`},
		{"another failure policy", func(f *doctor.Facts) { f.Policies[0].Spec.Injection.FailurePolicy = v1alpha1.FailurePolicyFail }, "registrations", doctor.Warning, "another failurePolicy"},
		{"no certificate", func(f *doctor.Facts) { f.Certificate = nil }, "certificate", doctor.Broken, "is not there"},
		{"an empty certificate", func(f *doctor.Facts) { f.Certificate = &corev1.Secret{} }, "certificate", doctor.Broken, "can be read"},
		{"an expired certificate", func(f *doctor.Facts) { f.Now = now.AddDate(1, 1, 0) }, "certificate", doctor.Broken, "has expired at"},
		{"a certificate that expires soon", func(f *doctor.Facts) { f.Now = now.AddDate(0, 11, 20) }, "certificate", doctor.Warning, "expires at"},
		{"a leftover of the API server's", func(f *doctor.Facts) { f.Compiled = []string{"gone"} }, "registrations", doctor.Broken, `a MutatingAdmissionPolicy is left of policy "gone", which is gone`},
		{"another authority", func(f *doctor.Facts) { f.Registrations[0].Webhooks[0].ClientConfig.CABundle = []byte("other") }, "certificate", doctor.Broken, "policy logs trusts another authority"},
		{"no endpoint", func(f *doctor.Facts) { f.Endpoints = nil }, "endpoints", doctor.Broken, "new pods start without sidecars"},
		{"no ready endpoint, and failurePolicy Fail", func(f *doctor.Facts) {
			f.Endpoints[0].Endpoints[0].Conditions.Ready = ptr.To(false)
			f.Registrations[1].Webhooks[0].FailurePolicy = ptr.To(admissionregistrationv1.Fail)
		}, "endpoints", doctor.Broken, "are refused"},
		{"an old kubelet", func(f *doctor.Facts) { f.Nodes[0] = node("v1.31.4") }, "kubelets", doctor.Warning, "n1 (1.31.4)"},
		{"policies that clash", func(f *doctor.Facts) { f.Policies[1].Spec.Template = f.Policies[0].Spec.Template }, "overlaps", doctor.Broken, "both select 2 pods, like shop/cart-1, and both bring container logs-agent"},
		{"the same port", func(f *doctor.Facts) {
			for i := range f.Policies {
				f.Policies[i].Spec.Template.Sidecars[0].Ports = []corev1.ContainerPort{{ContainerPort: 9090}}
			}
		}, "overlaps", doctor.Broken, "port 9090/TCP"},
		{"not accepted", func(f *doctor.Facts) {
			f.Policies[0].Status.Conditions[0] = metav1.Condition{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionFalse, Message: "write five fields"}
		}, "policies", doctor.Broken, "policy logs is not accepted: write five fields"},
		{"degraded", func(f *doctor.Facts) {
			f.Policies[0].Status.Conditions = append(f.Policies[0].Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionDegraded, Status: metav1.ConditionTrue, Reason: "UpgradeFailed", Message: "see"})
		}, "policies", doctor.Warning, "needs a person (UpgradeFailed): see"},
		{"not looked at", func(f *doctor.Facts) { f.Policies[0].Generation++ }, "policies", doctor.Warning, "has not looked at the last change"},
		{"policies are unread", func(f *doctor.Facts) { f.Policies, f.Unread[doctor.FactPolicies] = nil, "forbidden" }, "registrations", doctor.Warning, "SidecarPolicies could not be read: forbidden"},
		{"unread", func(f *doctor.Facts) { f.Unread[doctor.FactCertificate] = "forbidden" }, "certificate", doctor.Warning, "could not be read: forbidden"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			facts := healthy()
			tc.spoil(facts)
			findings := doctor.Check(facts)
			found := false
			for _, f := range findings {
				found = found || (f.Check == tc.check && f.Level == tc.level && strings.Contains(f.Message, tc.says) && f.Next != "")
			}
			if !found {
				t.Errorf("no finding %s %s with %q and what to do next:\n%s", tc.check, tc.level, tc.says, doctor.Text(findings))
			}
			if doctor.Sick(findings) != (tc.level == doctor.Broken || tc.name == "a certificate that expires soon") {
				t.Errorf("Sick() = %t:\n%s", doctor.Sick(findings), doctor.Text(findings))
			}
		})
	}
}

// What nobody could look at is no ground to delete anything.
func TestUnreadPolicies(t *testing.T) {
	facts := healthy()
	facts.Policies, facts.Unread[doctor.FactPolicies] = nil, "forbidden"
	for _, f := range doctor.Check(facts) {
		unread := strings.HasPrefix(f.Message, "not checked, as SidecarPolicies could not be read")
		needs := f.Check == "policies" || f.Check == "overlaps" || f.Check == "registrations"
		if unread != needs || f.Level == doctor.Broken {
			t.Errorf("%s: %s: %s (%s)", f.Check, f.Level, f.Message, f.Next)
		}
	}
}

func find(t *testing.T, f *doctor.Facts, check string) doctor.Finding {
	t.Helper()
	for _, found := range doctor.Check(f) {
		if found.Check == check {
			return found
		}
	}
	t.Fatal("nothing is found by the check " + check)
	return doctor.Finding{}
}

// What OLM installed is not to be installed again beside OLM.
func TestWhatOLMInstalled(t *testing.T) {
	for name, spoil := range map[string]func(*doctor.Facts){
		"its Deployment": func(f *doctor.Facts) {
			f.Deployment.Labels, f.Grants[0].Allowed = map[string]string{"olm.owner.kind": "ClusterServiceVersion"}, false
		},
		"its CRDs": func(f *doctor.Facts) {
			f.CRDs[0].Labels, f.Grants[0].Allowed = map[string]string{"olm.managed": "true"}, false
		},
	} {
		facts := healthy()
		spoil(facts)
		if next := find(t, facts, "access").Next; strings.Contains(next, "install.yaml") || !strings.Contains(next, "kubectl get csv,subscription,installplan -n "+namespace) {
			t.Errorf("told by %s: %s", name, next)
		}
	}
	facts := healthy()
	facts.Grants[0].Allowed = false
	if next := find(t, facts, "access").Next; !strings.Contains(next, "install.yaml") {
		t.Errorf("not OLM's: %s", next)
	}
}

func TestVersions(t *testing.T) {
	const image = "registry.example:5000/sidecar-operator"
	for _, tc := range []struct {
		plugin, image string
		level         doctor.Level
		says          string
	}{
		{"v0.1.0", image + ":v0.1.0", doctor.OK, "the plugin and the operator are of release v0.1.0"},
		{"v0.1.0+dirty", image + ":v0.1.0@sha256:" + strings.Repeat("a", 64), doctor.OK, "of release v0.1.0"},
		{"v0.1.0", image + ":0.1.0", doctor.OK, "of release v0.1.0"},
		{"v0.1.1", image + ":v0.1.0", doctor.Warning, "use the plugin of release v0.1.0"},
		{"v0.1.0-rc.1", image + ":v0.1.0", doctor.Warning, "use the plugin of release v0.1.0"},
		{"v0.0.0-20261123205317-ede3d5ce7d4e", image + ":v0.1.0", doctor.OK, "no release is known"},
		{"(devel)", image + ":v0.1.0", doctor.OK, "no release is known"},
		{"v0.1.0", image + ":latest", doctor.OK, "no release is known"},
		{"v0.1.0", image, doctor.OK, "no release is known"},
		{"", image + ":v0.1.0", doctor.OK, "the plugin is of an unknown version"},
	} {
		facts := healthy()
		facts.Version, facts.Deployment.Spec.Template = tc.plugin, running(tc.image)
		if found := find(t, facts, "version"); found.Level != tc.level || !strings.Contains(found.Message+found.Next, tc.says) {
			t.Errorf("plugin %s, operator %s: %s: %s (%s)", tc.plugin, tc.image, found.Level, found.Message, found.Next)
		}
	}
}

func TestNeeds(t *testing.T) {
	needs, err := doctor.Needs("home")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []authorizationv1.ResourceAttributes{
		{Verb: "create", Resource: "pods", Subresource: "eviction"},
		{Verb: "list", Group: "fleet.sidecar.dev", Resource: "sidecarpolicies"},
		{Verb: "update", Resource: "secrets", Namespace: "home"},
	} {
		if !slices.Contains(needs, want) {
			t.Errorf("%+v is not among the %d things that the manager needs", want, len(needs))
		}
	}
	if slices.Contains(needs, authorizationv1.ResourceAttributes{Verb: "update", Resource: "secrets"}) {
		t.Error("the manager needs no Secrets of other namespaces")
	}
}
