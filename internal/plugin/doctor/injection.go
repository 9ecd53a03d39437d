package doctor

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/certs"
	"github.com/sidecar-dev/sidecar-operator/internal/selection"
)

// soon is how long before its end a certificate is warned about: the operator renews it long before.
const soon = 30 * 24 * time.Hour

// hook is one way in which the API server calls the operator.
type hook struct {
	policy string
	config *admissionregistrationv1.WebhookClientConfig
	fails  bool
}

func (h hook) same(other hook) bool {
	return h.policy == other.policy && h.fails == other.fails && equality.Semantic.DeepEqual(h.config, other.config)
}

// hooks are those of all registrations. The entries of one are all alike, unless somebody has edited them.
func (f *Facts) hooks() []hook {
	var hooks []hook
	for i := range f.Registrations {
		r := &f.Registrations[i]
		for j := range r.Webhooks {
			w := &r.Webhooks[j]
			h := hook{r.Labels[v1alpha1.PolicyLabel], &w.ClientConfig, ptr.Deref(w.FailurePolicy, "") == admissionregistrationv1.Fail}
			if !slices.ContainsFunc(hooks, h.same) {
				hooks = append(hooks, h)
			}
		}
	}
	return hooks
}

func checkRegistrations(f *Facts) []Finding {
	var found []Finding
	hooks := f.hooks()
	for i := range f.Policies {
		found = append(found, checkRegistration(&f.Policies[i], hooks, f.Compiled)...)
	}
	for i := range f.Registrations {
		found = append(found, f.leftOver("MutatingWebhookConfiguration", f.Registrations[i].Labels[v1alpha1.PolicyLabel])...)
	}
	for _, policy := range f.Compiled {
		found = append(found, f.leftOver("MutatingAdmissionPolicy", policy)...)
	}
	return orOK(found, "%d policies, %d registrations", len(f.Policies), len(f.Registrations)+len(f.Compiled))
}

// leftOver finds a registration of a policy that is gone.
func (f *Facts) leftOver(kind, policy string) []Finding {
	if slices.ContainsFunc(f.Policies, func(p v1alpha1.SidecarPolicy) bool { return p.Name == policy }) {
		return nil
	}
	return []Finding{broken(fmt.Sprintf("a %s is left of policy %q, which is gone", kind, policy), "kubectl delete "+strings.ToLower(kind)+" -l "+v1alpha1.PolicyLabel+"="+policy)}
}

// checkRegistration holds what a policy says of its injection against what is registered.
func checkRegistration(p *v1alpha1.SidecarPolicy, hooks []hook, compiled []string) []Finding {
	const byItself = "the operator puts it right by itself: where it does not, see the manager's log"
	at := slices.IndexFunc(hooks, func(h hook) bool { return h.policy == p.Name })
	injecting := condition(p, v1alpha1.ConditionInjecting)
	if injecting == nil {
		return nil // it has not been looked at yet
	}
	switch {
	case at < 0 && !slices.Contains(compiled, p.Name) && injecting.Status == metav1.ConditionTrue && injecting.Reason == string(v1alpha1.ReasonRegistered):
		return []Finding{broken("policy "+p.Name+" says that it injects, and has no MutatingWebhookConfiguration or MutatingAdmissionPolicy", byItself)}
	case injecting.Status == metav1.ConditionFalse && !p.Spec.Injection.Paused:
		return []Finding{broken(fmt.Sprintf("policy %s does not inject (%s): %s", p.Name, injecting.Reason, injecting.Message), "kubectl sidecar status "+p.Name)}
	case at >= 0 && hooks[at].fails != (p.Spec.Injection.FailurePolicy == v1alpha1.FailurePolicyFail):
		return []Finding{warning("the registration of policy "+p.Name+" has another failurePolicy than the policy", byItself)}
	}
	return nil
}

func checkCertificate(f *Facts) []Finding {
	if f.Certificate == nil {
		return []Finding{broken("the webhook's certificate is not there", "the operator makes it at its start: see the manager's log")}
	}
	name := f.Certificate.Namespace + "/" + f.Certificate.Name
	remake := fmt.Sprintf("kubectl -n %s delete secret %s: the operator makes another", f.Certificate.Namespace, f.Certificate.Name)
	block, _ := pem.Decode(f.Certificate.Data[corev1.TLSCertKey])
	if block == nil {
		return []Finding{broken("Secret "+name+" holds no certificate that can be read", remake)}
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return []Finding{broken("Secret "+name+" holds no certificate that can be read: "+err.Error(), remake)}
	}
	end := certificate.NotAfter.UTC().Format(time.RFC3339)
	var found []Finding
	switch {
	case f.Now.After(certificate.NotAfter):
		found = append(found, broken("the webhook's certificate has expired at "+end, remake))
	case f.Now.Add(soon).After(certificate.NotAfter):
		found = append(found, warning("the webhook's certificate expires at "+end+", and was to be renewed long ago", remake))
	}
	for _, h := range f.hooks() {
		if !bytes.Equal(h.config.CABundle, certs.CABundle(f.Certificate)) {
			found = append(found, broken("the registration of policy "+h.policy+" trusts another authority than the certificate's: its calls fail", "the operator puts it right by itself: where it does not, see the manager's log"))
		}
	}
	return orOK(found, "the certificate is good until %s, and all registrations trust it", end)
}

func checkEndpoints(f *Facts) []Finding {
	if len(f.Registrations) == 0 {
		return ok("nothing is registered that would have to be reached")
	}
	if f.outside() {
		return []Finding{warning("registrations name a URL, which nobody can try from here", "see the metrics apiserver_admission_webhook_* of the API server")}
	}
	ready := 0
	for i := range f.Endpoints {
		for _, e := range f.Endpoints[i].Endpoints {
			if readyEndpoint(&e) {
				ready++
			}
		}
	}
	if ready > 0 {
		return ok("%d endpoints of the webhook are ready", ready)
	}
	refused := ""
	for _, h := range f.hooks() {
		if h.fails {
			refused = "; those that a policy with failurePolicy Fail selects are refused"
		}
	}
	return []Finding{broken("the webhook's Service has no endpoint that is ready: new pods start without sidecars"+refused, "see the check of the manager")}
}

func readyEndpoint(e *discoveryv1.Endpoint) bool { return ptr.Deref(e.Conditions.Ready, true) }

// pair is two policies that select the same pods.
type pair struct{ one, other int }

func checkOverlaps(f *Facts) []Finding {
	counts, examples := f.overlaps()
	var found []Finding
	shared := 0
	for one := range f.Policies {
		for other := one + 1; other < len(f.Policies); other++ {
			n := counts[pair{one, other}]
			shared = max(shared, n)
			clash := clashes(&f.Policies[one].Spec.Template, &f.Policies[other].Spec.Template)
			if n > 0 && len(clash) > 0 {
				found = append(found, broken(fmt.Sprintf("policies %s and %s both select %d pods, like %s, and both bring %s: each pod gets only one of them",
					f.Policies[one].Name, f.Policies[other].Name, n, examples[pair{one, other}], few(clash)), "rename these in one of the policies, or make its selector narrower"))
			}
		}
	}
	return orOK(found, "no two policies clash; at most %d pods are selected by the same two", shared)
}

// overlaps counts the pods that each two policies select, with the first of them.
func (f *Facts) overlaps() (counts map[pair]int, examples map[pair]string) {
	counts, examples = map[pair]int{}, map[pair]string{}
	selected := f.selected()
	for i := range f.Pods {
		by := selected(&f.Pods[i])
		for a := range by {
			for _, other := range by[a+1:] {
				p := pair{by[a], other}
				if counts[p]++; counts[p] == 1 {
					examples[p] = f.Pods[i].Namespace + "/" + f.Pods[i].Name
				}
			}
		}
	}
	return counts, examples
}

// selected says which policies select a pod, by their place.
func (f *Facts) selected() func(*metav1.PartialObjectMetadata) []int {
	homes := map[string]labels.Set{}
	for i := range f.Namespaces {
		homes[f.Namespaces[i].Name] = f.Namespaces[i].Labels
	}
	selectors := map[int]selection.Selector{}
	for i := range f.Policies {
		if s, err := selection.New(&f.Policies[i].Spec.Selector, f.Namespace); err == nil { // else it is not accepted
			selectors[i] = s
		}
	}
	return func(pod *metav1.PartialObjectMetadata) []int {
		var by []int
		for i := range f.Policies {
			if in := selectors[i].In(homes[pod.Namespace]); in != nil && in.Matches(labels.Set(pod.Labels)) {
				by = append(by, i)
			}
		}
		return by
	}
}

// clashes names what two templates can't both bring into a pod.
func clashes(a, b *v1alpha1.SidecarTemplate) []string {
	var list []string
	for _, s := range a.Sidecars {
		if slices.ContainsFunc(b.Sidecars, func(o v1alpha1.Sidecar) bool { return o.Name == s.Name }) {
			list = append(list, "container "+s.Name)
		}
	}
	for _, v := range a.Volumes {
		if slices.ContainsFunc(b.Volumes, func(o corev1.Volume) bool { return o.Name == v.Name }) {
			list = append(list, "volume "+v.Name)
		}
	}
	ports := portsOf(a)
	for _, p := range portsOf(b) {
		if slices.Contains(ports, p) {
			list = append(list, "port "+p)
		}
	}
	return list
}

func portsOf(t *v1alpha1.SidecarTemplate) []string {
	var ports []string
	for i := range t.Sidecars {
		for _, p := range t.Sidecars[i].Ports {
			protocol := p.Protocol
			if protocol == "" {
				protocol = corev1.ProtocolTCP
			}
			ports = append(ports, fmt.Sprintf("%d/%s", p.ContainerPort, protocol))
		}
	}
	return ports
}
