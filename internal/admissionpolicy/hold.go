package admissionpolicy

import (
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// WithoutSidecars is false of pods that have a policy's sidecars already: the webhook is not called for them, since the answer
// for the first of several policies brings those of all.
func WithoutSidecars(policy *v1alpha1.SidecarPolicy) admissionregistrationv1.MatchCondition {
	const carries = `has(object.metadata.labels) && %q in object.metadata.labels && %s.all(name,
	(has(object.spec.initContainers) && object.spec.initContainers.exists(c, c.name == name)) || object.spec.containers.exists(c, c.name == name))`
	t := &policy.Spec.Template
	var names []string
	for i := range t.Sidecars {
		names = append(names, t.Sidecars[i].Name)
	}
	for i := range t.InitContainers {
		names = append(names, t.InitContainers[i].Name)
	}
	return admissionregistrationv1.MatchCondition{Name: "without-sidecars",
		Expression: "!(" + fmt.Sprintf(carries, v1alpha1.RevisionLabel(policy.Name), list(names)) + ")"}
}

// HoldName is the name of the MutatingAdmissionPolicy that keeps a policy's new pods from being scheduled.
func HoldName(policy string) string { return "hold." + Name(policy) }

// CompileHold writes what gives new pods of a policy its HoldGate. The API server calls webhooks after MutatingAdmissionPolicies,
// and with the reinvocation policy Never it does not give the gate once more to a pod from which the webhook took it.
func CompileHold(in *Input) (*Registration, error) {
	gate := fmt.Sprintf("{\"name\": %s}", quote(v1alpha1.HoldGate(in.Policy.Name)))
	const gates = "object.spec.?schedulingGates.orValue([])"
	expression := fmt.Sprintf(`%s : (%s.size() > 0 ? [JSONPatch{op: "add", path: "/spec/schedulingGates/-", value: %s}] : `+
		`[JSONPatch{op: "add", path: "/spec/schedulingGates", value: [%[3]s]}])`, answer(in.Namespace), gates, gate)
	failurePolicy := admissionregistrationv1.Ignore
	return in.register(HoldName(in.Policy.Name), &admissionregistrationv1.MutatingAdmissionPolicySpec{
		MatchConstraints: newPods(),
		MatchConditions: []admissionregistrationv1.MatchCondition{
			{Name: "not-a-mirror-pod", Expression: notMirror},
			WithoutSidecars(in.Policy), // or the webhook would not be called to take the gate off
			{Name: "not-held", Expression: "!" + gates + ".exists(g, g.name == " + quote(v1alpha1.HoldGate(in.Policy.Name)) + ")"},
			// The API server refuses gates on a pod that has its node.
			{Name: "not-on-a-node", Expression: `object.spec.?nodeName.orValue("") == ""`},
		},
		Mutations: []admissionregistrationv1.Mutation{{
			PatchType: admissionregistrationv1.PatchTypeJSONPatch,
			JSONPatch: &admissionregistrationv1.JSONPatch{Expression: expression},
		}},
		FailurePolicy:      &failurePolicy,
		ReinvocationPolicy: admissionregistrationv1.NeverReinvocationPolicy,
	})
}
