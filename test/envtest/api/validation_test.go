package api

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// minimal is as little as a policy can say.
const minimal = `
apiVersion: fleet.sidecar.dev/v1alpha1
kind: SidecarPolicy
metadata: {name: log-agent}
spec:
  selector: {podSelector: {matchLabels: {app: web}}}
  template:
    sidecars:
    - {name: log-agent, image: agent:v1}
`

// change sets one field of a policy to a value in YAML, or removes it where there is none.
type change struct{ path, value string }

func set(path, value string) change { return change{path, value} }
func without(path string) change    { return change{path: path} }

func policyWith(changes ...change) *unstructured.Unstructured {
	GinkgoHelper()
	policy := &unstructured.Unstructured{}
	Expect(yaml.Unmarshal([]byte(minimal), &policy.Object)).To(Succeed())
	for _, c := range changes {
		path := strings.Split(c.path, ".")
		if c.value == "" {
			unstructured.RemoveNestedField(policy.Object, path...)
			continue
		}
		var value any
		Expect(yaml.Unmarshal([]byte(c.value), &value)).To(Succeed())
		Expect(unstructured.SetNestedField(policy.Object, value, path...)).To(Succeed(), c.path)
	}
	return policy
}

// tryCreate creates a policy as kubectl does, without keeping it.
func tryCreate(policy client.Object) error {
	return server.Client.Create(ctx, policy, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict))
}

const sidecars = "spec.template.sidecars"

// These are written by people, so the message matters as much as the refusal.
var _ = DescribeTable("refuses, and says what to write instead:",
	func(c change, message string) {
		err := tryCreate(policyWith(c))
		Expect(err).To(MatchError(ContainSubstring(message)))
		Expect(err).To(Or(Satisfy(apierrors.IsInvalid), Satisfy(apierrors.IsBadRequest)))
	},
	Entry("no selector", without("spec.selector"), "spec.selector: Required value"),
	Entry("an empty selector", set("spec.selector", "{}"), "an empty selector would select every pod of the cluster"),
	Entry("empty selectors in it", set("spec.selector", "{podSelector: {}, namespaceSelector: {matchLabels: {}}}"),
		"to select every pod on purpose write namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: Exists}]}"),

	Entry("an unknown mode of selection", set("spec.selector", "{podSelector: {matchLabels: {a: b}}, mode: Ask}"), `Unsupported value: "Ask": supported values: "OptOut", "OptIn", "Mandatory"`),
	Entry("an empty selector that says the default", set("spec.selector", "{mode: OptOut}"), "an empty selector would select every pod of the cluster"),

	Entry("no template", without("spec.template"), "spec.template: Required value"),
	Entry("no sidecar", set(sidecars, "[]"), "spec.template.sidecars in body should have at least 1 items"),
	Entry("two sidecars of one name", set(sidecars, "[{name: a, image: a:v1}, {name: a, image: a:v2}]"), `spec.template.sidecars[1]: Duplicate value: {"name":"a"}`),
	Entry("a sidecar without a name", set(sidecars, "[{image: a:v1}]"), "spec.template.sidecars[0].name: Required value"),
	Entry("a sidecar without an image", set(sidecars, "[{name: a}]"), "a sidecar needs an image: write image: registry/repository:tag"),
	Entry("a sidecar with an empty image", set(sidecars, `[{name: a, image: ""}]`), "a sidecar needs an image: write image: registry/repository:tag"),
	Entry("a sidecar with a restartPolicy", set(sidecars, "[{name: a, image: a:v1, restartPolicy: Always}]"),
		"restartPolicy follows from the mode (Native: an init container with restartPolicy Always; Container: the pod's own): remove it"),
	Entry("a sidecar with restartPolicyRules", set(sidecars, "[{name: a, image: a:v1, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}]}]"),
		"a sidecar always restarts: remove restartPolicyRules"),
	Entry("an unknown mode", set(sidecars, "[{name: a, image: a:v1, mode: Injected}]"), `Unsupported value: "Injected": supported values: "Native", "Container"`),
	Entry("a broken quantity", set(sidecars, "[{name: a, image: a:v1, resources: {requests: {cpu: lots}}}]"), "spec.template.sidecars[0].resources.requests.cpu"),

	Entry("an order of a sidecar that is no init container", set(sidecars, "[{name: a, image: a:v1, mode: Container, order: After}]"),
		"a sidecar of mode Container is none: remove order, or write mode: Native"),
	Entry("an unknown order", set(sidecars, "[{name: a, image: a:v1, order: First}]"), `Unsupported value: "First": supported values: "Before", "After"`),
	Entry("an init container without an image", set("spec.template.initContainers", "[{name: i}]"), "an init container needs an image: write image: registry/repository:tag"),
	Entry("an init container that runs for ever", set("spec.template.initContainers", "[{name: i, image: i:v1, restartPolicy: Always}]"),
		"write it under sidecars if it is to run as long as the app"),
	Entry("an init container with a probe", set("spec.template.initContainers", "[{name: i, image: i:v1, startupProbe: {exec: {command: [x]}}}]"),
		"an init container runs once: remove its lifecycle and probes"),

	Entry("variables of the app that are none", set(sidecars, "[{name: a, image: a:v1, envFromApp: [{container: app}]}]"),
		"says nothing: write names of variables, or envFrom: true"),
	Entry("variables of no container", set(sidecars, `[{name: a, image: a:v1, envFromApp: [{container: "*", names: [A]}]}]`), "spec.template.sidecars[0].envFromApp[0].container"),
	Entry("excluded paths that are none", set(sidecars, "[{name: a, image: a:v1, shareVolumeMounts: {excludePaths: [tmp]}}]"), "spec.template.sidecars[0].shareVolumeMounts.excludePaths[0]"),

	Entry("computed resources that are none", set(sidecars, "[{name: a, image: a:v1, resourcesFromApp: {}}]"), "says nothing: write requests or limits, like requests: {cpu: app.requests.cpu * 0.1}"),
	Entry("a computed resource that can't be", set(sidecars, `[{name: a, image: a:v1, resourcesFromApp: {limits: {nvidia.com/gpu: "1.0"}}}]`),
		"only cpu, memory and ephemeral-storage can be computed: write other resources in resources"),
	Entry("a resource both written and computed", set(sidecars, `[{name: a, image: a:v1, resources: {limits: {memory: 1Gi}}, resourcesFromApp: {requests: {memory: app.requests.memory}}}]`),
		"a constant can be written there too, like memory: quantity('64Mi')"),

	Entry("labels of the operator", set("spec.template.metadata", "{labels: {revision.fleet.sidecar.dev/x: v1}}"),
		"keys under fleet.sidecar.dev are written by the operator: choose a key of your own"),
	Entry("annotations of the operator", set("spec.template.metadata", "{annotations: {fleet.sidecar.dev/policy: x}}"),
		"keys under fleet.sidecar.dev are written by the operator: choose a key of your own"),
	Entry("an entry for the app that says nothing", set("spec.template.appContainers", `[{selector: "*"}]`), "says nothing: write volumeMounts or env"),
	Entry("an entry for the app with empty lists", set("spec.template.appContainers", `[{selector: "*", env: []}]`), "should have at least 1 items"),
	Entry("an entry for no container", set("spec.template.appContainers", `[{selector: "Not A Name", env: [{name: A, value: b}]}]`), "spec.template.appContainers[0].selector"),
	Entry("an entry for the app with an image", set("spec.template.appContainers", `[{selector: "*", image: x, env: [{name: A, value: b}]}]`), `unknown field "spec.template.appContainers[0].image"`),
	Entry("two volumes of one name", set("spec.template.volumes", "[{name: v, emptyDir: {}}, {name: v, emptyDir: {}}]"), `spec.template.volumes[1]: Duplicate value: {"name":"v"}`),

	Entry("overrides of nothing", set("spec.injection", "{overrides: [{container: log-agent}]}"), "allows nothing: write names of variables in env, or of resources in resources"),
	Entry("overrides of a resource that can't be", set("spec.injection", "{overrides: [{container: log-agent, resources: [nvidia.com/gpu]}]}"), `supported values: "cpu", "memory", "ephemeral-storage"`),
	Entry("overrides of no variable", set("spec.injection", "{overrides: [{container: log-agent, env: [A=B]}]}"), "spec.injection.overrides[0].env[0]"),
	Entry("overrides of an image", set("spec.injection", "{overrides: [{container: log-agent, image: true}]}"), `unknown field "spec.injection.overrides[0].image"`),
	Entry("an unknown failurePolicy", set("spec.injection", "{failurePolicy: Maybe}"), `Unsupported value: "Maybe": supported values: "Ignore", "Fail"`),
	Entry("an unknown method", set("spec.rollout", "{method: Hope}"), `Unsupported value: "Hope": supported values: "InPlace", "Recreate", "InPlaceOrRecreate", "OnDelete"`),
	Entry("an unknown budget", set("spec.rollout", "{budgets: [{per: Rack, maxUnavailable: 1}]}"), `Unsupported value: "Rack": supported values: "Fleet", "Workload", "Namespace", "Topology"`),
	Entry("a budget per Topology without a key", set("spec.rollout", "{budgets: [{per: Topology, maxUnavailable: 1}]}"), "write the label of nodes that tells the groups, like topology.kubernetes.io/zone"),
	Entry("a topologyKey without Topology", set("spec.rollout", "{budgets: [{per: Fleet, maxUnavailable: 1, topologyKey: zone}]}"), "write the label of nodes that tells the groups, like topology.kubernetes.io/zone"),
	Entry("a window without a duration", set("spec.rollout", `{windows: [{schedule: "0 22 * * *"}]}`), "spec.rollout.windows[0].duration"),
	Entry("a drain that never ends", set("spec.rollout", "{drain: {seconds: 3601}}"), "should be less than or equal to 3600"),
	Entry("two budgets for the same", set("spec.rollout", "{budgets: [{per: Fleet, maxUnavailable: 1}, {per: Fleet, maxUnavailable: 2}]}"), `spec.rollout.budgets[1]: Duplicate value: {"per":"Fleet"}`),
	Entry("a budget that allows nothing said", set("spec.rollout", "{budgets: [{per: Fleet}]}"), "spec.rollout.budgets[0].maxUnavailable: Required value"),
	Entry("a step that is nothing", set("spec.rollout", "{steps: [{name: a}, {name: b, upTo: 100%}]}"), "write upTo, or a podSelector or namespaceSelector"),
	Entry("a step that is two things", set("spec.rollout", "{steps: [{name: a, upTo: 1, podSelector: {}}, {name: b, upTo: 100%}]}"), "write upTo, or a podSelector or namespaceSelector"),
	Entry("steps that never reach all", set("spec.rollout", "{steps: [{name: a, upTo: 10%}]}"), "the last step must reach the whole fleet: add {name: fleet, upTo: 100%}"),
	Entry("a step of no pods", set("spec.rollout", "{steps: [{name: a, upTo: 0%}, {name: b, upTo: 100%}]}"), `must be a count of at least 1 (5) or a percentage from "1%" to "100%"`),
	Entry("two steps of one name", set("spec.rollout", "{steps: [{name: a, upTo: 1}, {name: a, upTo: 100%}]}"), `spec.rollout.steps[1]: Duplicate value: {"name":"a"}`),
	Entry("a soak without a unit", set("spec.rollout", `{steps: [{name: a, upTo: 1, soak: "10"}, {name: b, upTo: 100%}]}`), "spec.rollout.steps[0].soak"),
	Entry("an unknown way to fail", set("spec.rollout", "{onFailure: Pray}"), `Unsupported value: "Pray": supported values: "Rollback", "Pause"`),
	Entry("a progressDeadline of 0", set("spec.rollout", "{health: {progressDeadlineSeconds: 0, minReadySeconds: 0}}"), "progressDeadlineSeconds in body should be greater than or equal to 1"),
	Entry("a progressDeadline that no upgrade can keep", set("spec.rollout", "{health: {progressDeadlineSeconds: 30, minReadySeconds: 30}}"),
		"progressDeadlineSeconds must be greater than minReadySeconds, or no upgrade could ever succeed"),
	Entry("a progressDeadline shorter than the default minReadySeconds", set("spec.rollout", "{health: {progressDeadlineSeconds: 10}}"),
		"progressDeadlineSeconds must be greater than minReadySeconds, or no upgrade could ever succeed"),
	Entry("an unknown way with missed pods", set("spec.missing", "Delete"), `Unsupported value: "Delete": supported values: "Report", "Recreate"`),
	Entry("a bound for what is not replaced", set("spec.maxMissing", "5"), "maxMissing bounds what missing: Recreate replaces: write missing: Recreate, or remove maxMissing"),
	Entry("a maxMissing of none", set("spec.maxMissing", "0"), "to replace none write missing: Report"),
	Entry("an unknown way to unplug", set("spec.onRemoval", "Delete"), `Unsupported value: "Delete": supported values: "Keep", "Recreate"`),
	Entry("a negative history", set("spec.revisionHistoryLimit", "-1"), "spec.revisionHistoryLimit in body should be greater than or equal to 0"),

	Entry("a name too long for a pod label", set("metadata.name", strings.Repeat("a", 64)), "the name becomes part of a pod label: use at most 63 characters"),
	Entry("an unknown field of the spec", set("spec.injector", "{}"), `unknown field "spec.injector"`),
	Entry("an unknown field of a container", set(sidecars, "[{name: a, image: a:v1, volumeMount: []}]"), `unknown field "spec.template.sidecars[0].volumeMount"`),
)

var _ = DescribeTable("refuses a maxUnavailable of",
	func(value string) {
		err := tryCreate(policyWith(set("spec.rollout", "{budgets: [{per: Fleet, maxUnavailable: "+value+"}]}")))
		Expect(err).To(MatchError(ContainSubstring(`must be a count of at least 1 (5) or a percentage from "1%" to "100%"; to stop a roll-out write paused: true`)))
	},
	Entry(nil, "0"), Entry(nil, "-1"), Entry(nil, `"0%"`), Entry(nil, `"abc"`), Entry(nil, `"150%"`), Entry(nil, `"101%"`),
	Entry(nil, `"-5%"`), Entry(nil, `"5"`), Entry(nil, `"1.5%"`), Entry(nil, `""`), Entry(nil, `"%"`), Entry(nil, `" 5%"`),
	Entry("more than the operator's integers hold", "3000000000"),
)

var _ = DescribeTable("takes a maxUnavailable of",
	func(value string) {
		Expect(tryCreate(policyWith(set("spec.rollout", "{budgets: [{per: Workload, maxUnavailable: "+value+"}]}")))).To(Succeed())
	},
	Entry(nil, "1"), Entry(nil, "2147483647"), Entry(nil, `"1%"`), Entry(nil, `"10%"`), Entry(nil, `"99%"`), Entry(nil, `"100%"`),
)

var _ = DescribeTable("takes",
	func(c change) { Expect(tryCreate(policyWith(c))).To(Succeed()) },
	Entry("the minimum", set("metadata.name", "minimal")),
	Entry("a name as long as a label's", set("metadata.name", strings.Repeat("a", 63))),
	Entry("a namespaceSelector alone", set("spec.selector", "{namespaceSelector: {matchLabels: {logs: \"on\"}}}")),
	Entry("every pod that opts in", set("spec.selector", "{mode: OptIn}")),
	Entry("every pod, on purpose", set("spec.selector", "{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: Exists}]}}")),
	Entry("init containers and orders", set("spec.template", `{shareProcessNamespace: true, initContainers: [{name: i, image: i:v1, order: Before}],
		sidecars: [{name: a, image: a:v1, order: After}, {name: b, image: b:v1, mode: Container}]}`)),
	Entry("what is taken over from the app", set(sidecars, `[{name: a, image: a:v1, shareVolumeMounts: {},
		envFromApp: [{names: [A, B.C]}, {container: app, envFrom: true, optional: true}]}]`)),
	Entry("computed resources", set(sidecars, `[{name: a, image: a:v1, resources: {limits: {memory: 1Gi}},
		resourcesFromApp: {requests: {cpu: app.requests.cpu * 0.1}, limits: {cpu: 'quantity("1")'}}}]`)),
	Entry("overrides", set("spec.injection", "{overrides: [{container: log-agent, env: [LOG_LEVEL], resources: [cpu, memory]}]}")),
	Entry("keys that only look like ours", set("spec.template.metadata", "{labels: {my-fleet.sidecar.dev: x}}")),
	Entry("steps", set("spec.rollout", "{steps: [{name: canary, podSelector: {matchLabels: {canary: \"true\"}}, soak: 10m}, {name: early, upTo: 10%, soak: 1h30m, approval: Required}, {name: fleet, upTo: 100%}]}")),
	Entry("a deadline one second after minReadySeconds", set("spec.rollout", "{health: {minReadySeconds: 0, progressDeadlineSeconds: 1}}")),
)

// What the API server stores, every reader of all policies has to decode: one value that
// Go's types can't hold must not blind the operator to the others.
var _ = DescribeTable("refuses, or lets the operator list all the same,",
	func(c change) {
		c.path = "spec.template." + c.path
		policy := policyWith(c, set("metadata.name", "unreadable"))
		err := server.Client.Create(ctx, policy)
		if err != nil {
			Expect(err).To(Or(Satisfy(apierrors.IsInvalid), Satisfy(apierrors.IsBadRequest)))
			return
		}
		DeferCleanup(func() { Expect(server.Client.Delete(ctx, policy)).To(Succeed()) })
		list := &v1alpha1.SidecarPolicyList{}
		Expect(server.Client.List(ctx, list)).To(Succeed())
		Expect(list.Items).To(ContainElement(HaveField("Name", "unreadable")))
	},
	Entry("a fractional exponent", set("sidecars", "[{name: a, image: a:v1, resources: {requests: {cpu: 1e1.5}}}]")),
	Entry("a big exponent", set("sidecars", "[{name: a, image: a:v1, resources: {limits: {cpu: 1e99999999999}}}]")),
	Entry("a probe's port over 32 bits", set("sidecars", "[{name: a, image: a:v1, readinessProbe: {tcpSocket: {port: 99999999999}}}]")),
	Entry("a container's port over 32 bits", set("sidecars", "[{name: a, image: a:v1, ports: [{containerPort: 99999999999}]}]")),
	Entry("a probe's period over 32 bits", set("sidecars", "[{name: a, image: a:v1, readinessProbe: {periodSeconds: 99999999999, tcpSocket: {port: 1}}}]")),
	Entry("a volume's size", set("volumes", "[{name: v, emptyDir: {sizeLimit: 1e1.5}}]")),
	Entry("a divisor", set("volumes", "[{name: v, downwardAPI: {items: [{path: x, resourceFieldRef: {resource: limits.cpu, divisor: 1e1.5}}]}}]")),
	Entry("a user over 64 bits", set("sidecars", "[{name: a, image: a:v1, securityContext: {runAsUser: 99999999999999999999}}]")),
)

var _ = Describe("the values of what is left out", func() {
	It("are in the stored policy", func() {
		policy := policyWith()
		Expect(tryCreate(policy)).To(Succeed())
		Expect(policy.Object["spec"]).To(HaveKeyWithValue("revisionHistoryLimit", int64(10)))
		list, _, err := unstructured.NestedSlice(policy.Object, strings.Split(sidecars, ".")...)
		Expect(err).NotTo(HaveOccurred())
		Expect(list).To(HaveExactElements(HaveKeyWithValue("mode", "Native")))
	})

	It("are filled into what the author began to write", func() {
		policy := policyWith(set("spec.injection", "{paused: true}"), set("spec.rollout", "{paused: true, health: {}}"))
		Expect(tryCreate(policy)).To(Succeed())
		Expect(policy.Object["spec"]).To(HaveKeyWithValue("injection", Equal(map[string]any{"paused": true, "engine": "Webhook", "failurePolicy": "Ignore"})))
		Expect(policy.Object["spec"]).To(HaveKeyWithValue("rollout", Equal(map[string]any{"paused": true, "method": "InPlace", "onFailure": "Rollback", "exemptions": "Honor",
			"health": map[string]any{"minReadySeconds": int64(10), "progressDeadlineSeconds": int64(300),
				"maxFailed": int64(0), "maxRestarts": int64(2), "guardApp": true}})))
	})

	It("are the same in code, for what the author did not write at all", func() {
		policy := &v1alpha1.SidecarPolicy{}
		object := policyWith()
		Expect(tryCreate(object)).To(Succeed())
		data, err := object.MarshalJSON()
		Expect(err).NotTo(HaveOccurred())
		Expect(yaml.Unmarshal(data, policy)).To(Succeed())
		Expect(fmt.Sprint(policy.Spec.Rollout.Health.MinReady(), policy.Spec.Rollout.Health.ProgressDeadline())).To(Equal("10s 5m0s"))
		Expect(policy.Spec.Rollout.MaxUnavailable(v1alpha1.PerFleet, 100)).To(Equal(10))
		Expect(policy.Spec.Rollout.MaxUnavailable(v1alpha1.PerWorkload, 100)).To(Equal(25))
		Expect(policy.Spec.Injection.FailurePolicy).To(BeElementOf(v1alpha1.FailurePolicyIgnore, v1alpha1.InjectionFailurePolicy("")))
		Expect(policy.Spec.Rollout.Method).To(BeElementOf(v1alpha1.MethodInPlace, v1alpha1.RolloutMethod("")))
	})
})
