package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// reinstall is what puts right what an installation lacks. OLM's is OLM's to put right: a second one over it would fight it.
func (f *Facts) reinstall() string {
	if f.byOLM() {
		return "OLM installed the operator: see what it says of it, kubectl get csv,subscription,installplan -n " + f.Namespace
	}
	return "install the operator again: kubectl apply --server-side -f install.yaml"
}

// byOLM says whether the Operator Lifecycle Manager installed the operator.
func (f *Facts) byOLM() bool {
	if d := f.Deployment; d != nil && d.Labels["olm.owner.kind"] == "ClusterServiceVersion" {
		return true
	}
	return slices.ContainsFunc(f.CRDs, func(crd apiextensionsv1.CustomResourceDefinition) bool {
		return crd.Spec.Group == v1alpha1.GroupVersion.Group && crd.Labels["olm.managed"] == "true"
	})
}

// The oldest versions that do what is needed: of the API server, and of a kubelet that restarts a native
// sidecar for a new image.
var (
	oldestServer  = version.MajorMinor(1, 33)
	oldestKubelet = version.MajorMinor(1, 32)
)

func checkServer(f *Facts) []Finding {
	parsed, err := version.ParseGeneric(f.ServerVersion)
	if err == nil && parsed.LessThan(oldestServer) {
		return []Finding{broken(fmt.Sprintf("the API server is %s, older than %s", f.ServerVersion, oldestServer), "upgrade the control plane")}
	}
	return ok("the API server is %s", f.ServerVersion)
}

// resources are those of our API.
var resources = []string{"sidecarpolicies", "sidecarreports"}

func checkCRDs(f *Facts) []Finding {
	var found []Finding
	for _, resource := range resources {
		name := resource + "." + v1alpha1.GroupVersion.Group
		i := slices.IndexFunc(f.CRDs, func(crd apiextensionsv1.CustomResourceDefinition) bool { return crd.Name == name })
		if i < 0 {
			found = append(found, broken("CustomResourceDefinition "+name+" is not there", f.reinstall()))
			continue
		}
		found = append(found, checkCRD(&f.CRDs[i])...)
	}
	return orOK(found, "%s are served in %s", strings.Join(resources, " and "), v1alpha1.GroupVersion.Version)
}

func checkCRD(crd *apiextensionsv1.CustomResourceDefinition) []Finding {
	ours := v1alpha1.GroupVersion.Version
	served := slices.ContainsFunc(crd.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Name == ours && v.Served })
	established := slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
	})
	switch {
	case !served:
		return []Finding{broken(fmt.Sprintf("%s is not served in %s, which this plugin speaks", crd.Name, ours), "use the plugin of the operator's release")}
	case !established:
		return []Finding{broken(crd.Name+" is not established", "kubectl describe crd "+crd.Name)}
	}
	return nil
}

// outside says whether the API server reaches the operator by a URL: it runs outside of the cluster then.
func (f *Facts) outside() bool {
	return slices.ContainsFunc(f.hooks(), func(h hook) bool { return h.config.URL != nil })
}

func checkManager(f *Facts) []Finding {
	d := f.Deployment
	if d == nil && f.outside() {
		return []Finding{warning("the operator has no Deployment in namespace "+f.Namespace+", and registrations name a URL: it runs outside of the cluster", "nothing, where that is meant")}
	}
	if d == nil {
		return []Finding{broken("there is no manager in namespace "+f.Namespace, f.reinstall()+", or say where it is: --operator-namespace")}
	}
	wanted, ready := ptr.Deref(d.Spec.Replicas, 1), d.Status.ReadyReplicas
	logs := fmt.Sprintf("kubectl -n %s describe pods -l control-plane=controller-manager; kubectl -n %[1]s logs deploy/%s", d.Namespace, d.Name)
	switch {
	case ready == 0:
		return []Finding{broken(fmt.Sprintf("none of %d replicas of Deployment %s/%s is ready: nothing is injected or rolled out", wanted, d.Namespace, d.Name), logs)}
	case ready < wanted:
		return []Finding{warning(fmt.Sprintf("%d of %d replicas of Deployment %s/%s are ready", ready, wanted, d.Namespace, d.Name), logs)}
	}
	return ok("%d replicas of %s are ready", ready, imageOf(d))
}

func imageOf(d *appsv1.Deployment) string {
	if len(d.Spec.Template.Spec.Containers) == 0 {
		return d.Name
	}
	return d.Spec.Template.Spec.Containers[0].Image
}

func checkLeader(f *Facts) []Finding {
	l := f.Lease
	if l == nil || l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity == "" {
		if f.outside() {
			return ok("nobody leads, which one replica outside of the cluster need not")
		}
		return []Finding{broken("no replica leads: nothing is rolled out, though new pods are injected", "see the manager's log")}
	}
	renewed, lasts := ptr.Deref(l.Spec.RenewTime, metav1.MicroTime{}).Time, time.Duration(ptr.Deref(l.Spec.LeaseDurationSeconds, 15))*time.Second
	if f.Now.After(renewed.Add(lasts)) {
		return []Finding{broken(fmt.Sprintf("the leader %s has not renewed its lease since %s", *l.Spec.HolderIdentity, renewed.UTC().Format(time.RFC3339)), "see the manager's log; another replica takes over by itself")}
	}
	return ok("%s leads", *l.Spec.HolderIdentity)
}

func checkKubelets(f *Facts) []Finding {
	var old []string
	for i := range f.Nodes {
		parsed, err := version.ParseGeneric(f.Nodes[i].Status.NodeInfo.KubeletVersion)
		if err == nil && parsed.LessThan(oldestKubelet) {
			old = append(old, fmt.Sprintf("%s (%s)", f.Nodes[i].Name, parsed))
		}
	}
	if len(old) == 0 {
		return ok("all %d nodes restart a sidecar in place", len(f.Nodes))
	}
	return []Finding{warning(fmt.Sprintf("the kubelets of %d nodes are older than %s and don't restart a native sidecar for a new image: %s", len(old), oldestKubelet, few(old)),
		"upgrade them; until then pods there are stale, or recreated where spec.rollout.method allows it")}
}

// maxNamed is how many things a message names.
const maxNamed = 5

func few(names []string) string {
	if len(names) <= maxNamed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
}

func checkPolicies(f *Facts) []Finding {
	var found []Finding
	for i := range f.Policies {
		p := &f.Policies[i]
		look := "kubectl sidecar status " + p.Name
		accepted, degraded := condition(p, v1alpha1.ConditionAccepted), condition(p, v1alpha1.ConditionDegraded)
		switch {
		case p.Status.ObservedGeneration != p.Generation:
			found = append(found, warning("the operator has not looked at the last change of policy "+p.Name, "wait a moment; where that does not help, see the manager's log"))
		case accepted != nil && accepted.Status != metav1.ConditionTrue:
			found = append(found, broken(fmt.Sprintf("policy %s is not accepted: %s", p.Name, accepted.Message), "write what the message says; "+look))
		case degraded != nil && degraded.Status == metav1.ConditionTrue:
			found = append(found, warning(fmt.Sprintf("policy %s needs a person (%s): %s", p.Name, degraded.Reason, degraded.Message), look))
		}
	}
	return orOK(found, "%d policies, none of which needs a person", len(f.Policies))
}

func condition(p *v1alpha1.SidecarPolicy, kind string) *metav1.Condition {
	return meta.FindStatusCondition(p.Status.Conditions, kind)
}
