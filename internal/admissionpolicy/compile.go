// Package admissionpolicy writes a policy as a MutatingAdmissionPolicy, with which the API server
// injects by itself. It says in CEL what internal/inject says in Go: both give a pod the same. It is pure.
package admissionpolicy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/limits"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/selection"
)

// maxExpression is how many characters the API server reads of one expression.
const maxExpression = 100_000

// Input is what is compiled.
type Input struct {
	// Policy gives its name, its selection, and how it injects.
	Policy *v1alpha1.SidecarPolicy
	// Births says which revisions new pods get.
	Births rollout.Births
	// Revisions has at least those that Births names.
	Revisions []revision.Revision
	// Namespace is the operator's own, in which no pod is selected.
	Namespace string
	// Ahead are policies that bring the same, and whose names come first: pods that they select are theirs.
	Ahead []*v1alpha1.SidecarPolicy
	// Limits is what limits the pods of those namespaces that the policy selects, by their names.
	Limits map[string]limits.Namespace
}

// Registration is what the API server has to know to inject by itself.
type Registration struct {
	Policy *admissionregistrationv1.MutatingAdmissionPolicy
	// Bindings are those of the selected pods, and at last that of CheckPod, in the order in which
	// they have to be written. See CheckPod.
	Bindings []*admissionregistrationv1.MutatingAdmissionPolicyBinding
	// Digest names what was compiled.
	Digest string
}

// Name is the name of a policy's MutatingAdmissionPolicy and of its first binding.
func Name(policy string) string { return "sidecar-operator-" + policy }

// Compile writes a policy as a MutatingAdmissionPolicy and its bindings. Every field that the API
// server would fill in is written, so that they compare equal. The error names what can't be compiled; see
// Unsupported for what to write instead.
func Compile(in *Input) (*Registration, error) {
	spec, err := compileSpec(in)
	if err != nil {
		return nil, err
	}
	return in.register(Name(in.Policy.Name), spec)
}

// register gives a specification its name, its digest and its bindings.
func (in *Input) register(name string, spec *admissionregistrationv1.MutatingAdmissionPolicySpec) (*Registration, error) {
	pairs := selection.Pairs(&in.Policy.Spec.Selector, in.Namespace)
	digest, err := digestOf(spec, pairs)
	if err != nil {
		return nil, err
	}
	spec.Variables = append([]admissionregistrationv1.Variable{{Name: "digest", Expression: quote(digest)}}, spec.Variables...)
	r := &Registration{Digest: digest, Policy: &admissionregistrationv1.MutatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.PolicyLabel: in.Policy.Name}}, Spec: *spec}}
	for i, pair := range pairs {
		r.Bindings = append(r.Bindings, r.binding(bindingPrefixes[i], pair))
	}
	r.Bindings = append(r.Bindings, r.binding(checkPrefix, checkedBy(digest, in.Namespace)))
	for _, v := range spec.Variables {
		if len(v.Expression) > maxExpression {
			return nil, fmt.Errorf("the template is too big for an AdmissionPolicy (%s has %d characters, and the API server reads %d): "+
				"move texts into a ConfigMap, or write spec.injection.engine: Webhook", v.Name, len(v.Expression), maxExpression)
		}
	}
	return r, nil
}

// bindingPrefixes tell the bindings of one policy apart: a selection has two pairs at most.
var bindingPrefixes = []string{"", "opted-in."}

func (r *Registration) binding(prefix string, selects selection.Pair) *admissionregistrationv1.MutatingAdmissionPolicyBinding {
	return &admissionregistrationv1.MutatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: prefix + r.Policy.Name, Labels: r.Policy.Labels},
		Spec: admissionregistrationv1.MutatingAdmissionPolicyBindingSpec{
			PolicyName: r.Policy.Name,
			MatchResources: &admissionregistrationv1.MatchResources{
				NamespaceSelector: selects.Namespaces, ObjectSelector: selects.Pods,
				MatchPolicy: ptr.To(admissionregistrationv1.Equivalent),
			},
		},
	}
}

func compileSpec(in *Input) (*admissionregistrationv1.MutatingAdmissionPolicySpec, error) {
	c := &compiler{policy: in.Policy.Name, drain: in.Policy.Spec.Rollout.Drain.Seconds > 0, limits: in.Limits}
	for _, policy := range in.Ahead {
		c.ahead = append(c.ahead, selection.Pairs(&policy.Spec.Selector, in.Namespace)...)
	}
	c.defineCommon(&in.Births)
	var patches []string
	for _, name := range in.Births.Revisions() {
		r := revision.Get(in.Revisions, name)
		if r == nil {
			return nil, fmt.Errorf("revision %s of policy %s is not there", name, in.Policy.Name)
		}
		if problems := Unsupported(&r.Template, "revision "+name); len(problems) > 0 {
			return nil, fmt.Errorf("%s", strings.Join(problems, "; "))
		}
		patch, err := c.compileRevision(r)
		if err != nil {
			return nil, fmt.Errorf("revision %s: %w", name, err)
		}
		patches = append(patches, patch)
	}
	expression := patches[0]
	if len(patches) > 1 {
		expression = fmt.Sprintf("variables.reached ? (%s) : (%s)", patches[1], patches[0])
	}
	failurePolicy := admissionregistrationv1.Ignore
	if in.Policy.Spec.Injection.FailurePolicy == v1alpha1.FailurePolicyFail {
		failurePolicy = admissionregistrationv1.Fail
	}
	return &admissionregistrationv1.MutatingAdmissionPolicySpec{
		MatchConstraints: newPods(),
		MatchConditions: []admissionregistrationv1.MatchCondition{
			{Name: "not-a-mirror-pod", Expression: notMirror},
			{Name: "not-injected", Expression: "!" + injected(in.Policy.Name)},
		},
		Variables: c.variables,
		Mutations: []admissionregistrationv1.Mutation{{
			PatchType: admissionregistrationv1.PatchTypeJSONPatch,
			JSONPatch: &admissionregistrationv1.JSONPatch{Expression: answer(in.Namespace) + " : (" + expression + ")"},
		}},
		FailurePolicy:      &failurePolicy,
		ReinvocationPolicy: admissionregistrationv1.IfNeededReinvocationPolicy,
	}, nil
}

// newPods are all pods at their creation: which of them are selected, the bindings say.
func newPods() *admissionregistrationv1.MatchResources {
	return &admissionregistrationv1.MatchResources{
		NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: []string{metav1.NamespaceSystem}}}},
		ObjectSelector: &metav1.LabelSelector{},
		MatchPolicy:    ptr.To(admissionregistrationv1.Equivalent),
		ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: admissionregistrationv1.RuleWithOperations{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
			Rule: admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"},
				Scope: ptr.To(admissionregistrationv1.NamespacedScope)},
		}}},
	}
}

func digestOf(spec *admissionregistrationv1.MutatingAdmissionPolicySpec, pairs []selection.Pair) (string, error) {
	data, err := json.Marshal(struct {
		Spec  *admissionregistrationv1.MutatingAdmissionPolicySpec
		Pairs []selection.Pair
	}{spec, pairs})
	if err != nil {
		return "", fmt.Errorf("encoding what was compiled: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])[:10], nil
}

// compiler gathers what expressions share.
type compiler struct {
	policy string
	drain  bool
	limits map[string]limits.Namespace
	// ahead selects the pods of policies that bring the same, and whose names come first.
	ahead     []selection.Pair
	variables []admissionregistrationv1.Variable
}

// define keeps an expression as a variable, which is computed once and only where it is asked for.
func (c *compiler) define(name, expression string) string {
	c.variables = append(c.variables, admissionregistrationv1.Variable{Name: name, Expression: expression})
	return "variables." + name
}
