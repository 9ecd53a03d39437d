package controllers_test

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// withPort makes the sidecar declare a port.
func withPort(number int32) func(*v1alpha1.SidecarPolicy) {
	return func(p *v1alpha1.SidecarPolicy) {
		p.Spec.Template.Sidecars[0].Ports = []corev1.ContainerPort{{ContainerPort: number}}
	}
}

var _ = Describe("A new policy", func() {
	It("is accepted: its template becomes a revision that goes with it", func() {
		w := newWorld()
		w.pass()
		Expect(w.condition(v1alpha1.ConditionAccepted)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonValid))
		Expect(w.status().ObservedGeneration).To(Equal(w.policy().Generation))

		revisions := w.revisions()
		Expect(revisions).To(HaveLen(1))
		Expect(w.status().TargetRevision).To(Equal(revisions[0].Labels[v1alpha1.RevisionLabel(w.name)]))
		Expect(revisions[0].Name).To(Equal(w.name + "-" + w.status().TargetRevision))
		Expect(revisions[0].Labels).To(HaveKey(v1alpha1.HashVersionLabel))
		Expect(revisions[0].OwnerReferences).To(ConsistOf(metav1.OwnerReference{
			APIVersion: "fleet.sidecar.dev/v1alpha1", Kind: "SidecarPolicy", Name: w.name, UID: w.policy().UID, Controller: ptr.To(true),
		}))
		Expect(w.allEvents()).To(ContainElement(HavePrefix("Normal RevisionCreated accepted the template as revision " + w.status().TargetRevision)))
	})

	It("registers injection only once the status says what to inject", func() {
		w := newWorld()
		w.pass()
		Expect(w.registration()).To(BeNil())
		Expect(w.condition(v1alpha1.ConditionInjecting)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonNotRegistered))
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonNotRegistered))

		w.pass()
		Expect(w.registration()).NotTo(BeNil())
		Expect(w.condition(v1alpha1.ConditionInjecting)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonRegistered))
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete))
		Expect(w.status().StableRevision).To(Equal(w.status().TargetRevision))
		Expect(w.status().Phase).To(Equal(v1alpha1.PhaseComplete))
	})

	It("is accepted with a warning where a startup probe outlasts the deadline", func() {
		w := newWorld(func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].StartupProbe = &corev1.Probe{PeriodSeconds: 10, FailureThreshold: 60,
				ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}}
		})
		w.pass()
		accepted := w.condition(v1alpha1.ConditionAccepted)
		Expect(accepted).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonValid))
		Expect(accepted.Message).To(ContainSubstring(`sidecar "agent" may spend 10m0s in its startup probe, longer than progressDeadlineSeconds (5m0s)`))
	})

	It("is accepted with a warning where pods would wait for the operator all the same", func() {
		w := newWorld(byAdmissionPolicy, func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Drain.Seconds = 5 })
		w.settleUntil(v1alpha1.ConditionReady, v1alpha1.ReasonComplete)
		Expect(w.condition(v1alpha1.ConditionAccepted).Message).To(And(HavePrefix("warning: "), ContainSubstring("remove drain")))
	})

	It("waits for the webhook's certificate", func() {
		w := newWorld()
		w.reconciler.Webhook.Secret = "not-there"
		w.settle()
		Expect(w.registration()).To(BeNil())
		Expect(w.condition(v1alpha1.ConditionInjecting)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonWaitingForCertificate))
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonWaitingForCertificate))
	})
})

// What only the API server knows of pods; the message is its own.
var podRefusals = []TableEntry{
	Entry("a port out of range", withPort(70000), "spec.initContainers[0].ports[0].containerPort"),
	Entry("an unknown pull policy", func(p *v1alpha1.SidecarPolicy) { p.Spec.Template.Sidecars[0].ImagePullPolicy = "Sometimes" },
		"spec.initContainers[0].imagePullPolicy"),
	Entry("a probe that does nothing", func(p *v1alpha1.SidecarPolicy) { p.Spec.Template.Sidecars[0].LivenessProbe = &corev1.Probe{} },
		"spec.initContainers[0].livenessProbe"),
	Entry("a name that no container may have", func(p *v1alpha1.SidecarPolicy) { p.Spec.Template.Sidecars[0].Name = "Agent" },
		"spec.initContainers[0].name"),
	Entry("a volume of two kinds", func(p *v1alpha1.SidecarPolicy) {
		p.Spec.Template.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
			EmptyDir: &corev1.EmptyDirVolumeSource{}, HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
	}, "spec.volumes[0]"),
	Entry("a mount without a path", func(p *v1alpha1.SidecarPolicy) {
		p.Spec.Template.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.Template.Sidecars[0].VolumeMounts = []corev1.VolumeMount{{Name: "v"}}
	}, "spec.initContainers[0].volumeMounts[0].mountPath"),
	Entry("a request over the limit", func(p *v1alpha1.SidecarPolicy) {
		p.Spec.Template.Sidecars[0].Resources = corev1.ResourceRequirements{
			Requests: resources("cpu", "2"), Limits: resources("cpu", "1")}
	}, "spec.initContainers[0].resources.requests"),
	Entry("a label that is none", func(p *v1alpha1.SidecarPolicy) {
		p.Spec.Template.Metadata.Labels = map[string]string{"team": "not a label"}
	}, "metadata.labels"),
}

var _ = DescribeTableSubtree("A template that the API server refuses in pods:",
	func(spoil func(*v1alpha1.SidecarPolicy), words string) {
		It("is refused with the API server's words, and nothing else happens", func() {
			w := newWorld(spoil)
			w.settle()
			accepted := w.condition(v1alpha1.ConditionAccepted)
			Expect(accepted).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonPodRefused))
			Expect(accepted.Message).To(And(HavePrefix("the API server refuses a pod with this template: "), ContainSubstring(words)))
			Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonNotAccepted))
			Expect(w.revisions()).To(BeEmpty())
			Expect(w.registration()).To(BeNil())
			Expect(w.status().Phase).To(Equal(v1alpha1.PhaseIdle))
			Expect(w.allEvents()).To(ConsistOf(HavePrefix("Warning PodRefused the API server refuses")))
		})
	},
	podRefusals,
)

var _ = Describe("A spec that is not accepted", func() {
	It("leaves in force what was accepted before", func() {
		w := newReadyWorld()
		w.newFleet(1, 2)
		before, registration := *w.status(), w.registration()

		w.edit(func(p *v1alpha1.SidecarPolicy) {
			withPort(70000)(p)
			p.Spec.Template.Sidecars[0].Image = "agent:v2"
			p.Spec.Selector.PodSelector.MatchLabels["another"] = "selector"
		})
		w.settle()
		Expect(w.condition(v1alpha1.ConditionAccepted)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonPodRefused))
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonNotAccepted))
		Expect(w.revisions()).To(HaveLen(1))
		Expect(w.status().TargetRevision).To(Equal(before.TargetRevision))
		Expect(w.status().StableRevision).To(Equal(before.StableRevision))
		Expect(rollout.RevisionFor(w.policy(), rollout.Place{})).To(Equal(before.StableRevision), "what new pods get")
		Expect(w.registration()).To(Equal(registration), "nothing is half applied")
		Expect(w.status().Pods).To(HaveValue(And(HaveField("Selected", BeEquivalentTo(2)), HaveField("Deselected", BeEquivalentTo(0)))))
		Expect(w.patches()).To(BeEmpty())
		Expect(w.images()).To(HaveEach("agent:v1"))

		By("writing a selector that can't even be read")
		w.edit(func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Selector.PodSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "not a key", Operator: "in"}}
		})
		w.newPod("new", withLabel("another", "selector"))
		w.settle()
		Expect(w.condition(v1alpha1.ConditionAccepted)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonInvalidSpec))
		Expect(w.status().Pods.Selected).To(BeEquivalentTo(3))

		By("writing a good one")
		w.edit(func(p *v1alpha1.SidecarPolicy) {
			withPort(7000)(p)
			delete(p.Spec.Selector.PodSelector.MatchLabels, "another")
			p.Spec.Selector.PodSelector.MatchExpressions = nil
		})
		w.pass()
		Expect(w.condition(v1alpha1.ConditionAccepted)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonValid))
		Expect(w.revisions()).To(HaveLen(2))
	})

	It("takes a template that expects something of the app", func() {
		w := newWorld(func(p *v1alpha1.SidecarPolicy) {
			t := &p.Spec.Template
			t.Sidecars[0].ShareVolumeMounts = &v1alpha1.SharedVolumeMounts{Container: "main", ReadOnly: true}
			t.Sidecars[0].EnvFromApp = []v1alpha1.AppEnv{{Names: []string{"REGION"}}, {Container: "main", Names: []string{"ZONE"}, EnvFrom: true}}
			t.Sidecars[0].ResourcesFromApp = &v1alpha1.AppResources{
				Requests: map[corev1.ResourceName]v1alpha1.ResourceExpression{"cpu": "app.requests.cpu * 0.1", "memory": "app.requests.memory * 0.1"},
				Limits:   map[corev1.ResourceName]v1alpha1.ResourceExpression{"memory": `math.greatest(app.limits.memory * 0.1, quantity("32Mi"))`}}
			t.InitContainers = []v1alpha1.InitContainer{{Container: corev1.Container{Name: "setup", Image: "setup:v1"}, Order: v1alpha1.OrderAfter,
				FromApp: v1alpha1.FromApp{EnvFromApp: []v1alpha1.AppEnv{{Container: "other", Names: []string{"REGION"}}}}}}
		})
		w.settle()
		Expect(w.condition(v1alpha1.ConditionAccepted)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonValid))
	})

	DescribeTable("says what to write instead:",
		func(spoil func(*v1alpha1.SidecarPolicy), words string) {
			w := newWorld(spoil)
			w.settle()
			accepted := w.condition(v1alpha1.ConditionAccepted)
			Expect(accepted).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonInvalidSpec))
			Expect(accepted.Message).To(ContainSubstring(words))
			Expect(w.revisions()).To(BeEmpty())
			Expect(w.registration()).To(BeNil())
		},
		Entry("a pod selector with a broken key", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Selector.PodSelector.MatchLabels = map[string]string{"not a key!": "x"}
		}, "spec.selector.podSelector: "),
		Entry("a namespace selector with a broken operator", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Selector.NamespaceSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
		}, "spec.selector.namespaceSelector: "),
		Entry("an entry for the app that means a sidecar", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.AppContainers = []v1alpha1.AppContainer{{Selector: agent, Env: []corev1.EnvVar{{Name: "A", Value: "b"}}}}
		}, `selector "agent" names a container of this policy`),
		Entry("an init container of a sidecar's name", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.InitContainers = []v1alpha1.InitContainer{{Container: corev1.Container{Name: agent, Image: "setup:v1"}}}
		}, `spec.template.initContainers[agent]: a container "agent" is among the sidecars already: write another name`),
		Entry("mounts that are shared with a sidecar", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].ShareVolumeMounts = &v1alpha1.SharedVolumeMounts{Container: agent}
		}, `spec.template.sidecars[agent]: container "agent" is one of this policy: write the name of a container of the app`),
		Entry("a variable that comes from two places", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].Env = []corev1.EnvVar{{Name: "REGION", Value: "eu"}}
			p.Spec.Template.Sidecars[0].EnvFromApp = []v1alpha1.AppEnv{{Names: []string{"REGION"}}}
		}, "spec.template.sidecars[agent]: variable REGION is in env and in envFromApp: remove one of them"),
		Entry("an expression that nothing can compute", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].ResourcesFromApp = &v1alpha1.AppResources{
				Limits: map[corev1.ResourceName]v1alpha1.ResourceExpression{"cpu": "app.limits.cpu * 2"}}
		}, "spec.template.sidecars[agent].resourcesFromApp.limits[cpu]: app.limits.cpu * 2: found no matching overload for '_*_'"),
		Entry("an expression that only some pods can compute", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].ResourcesFromApp = &v1alpha1.AppResources{
				Limits: map[corev1.ResourceName]v1alpha1.ResourceExpression{"cpu": "app.limits.gpus"}}
		}, "to allow that, ask first, like has(app.limits.gpus) ? app.limits.gpus : 0.0"),
		Entry("an image that no kubelet can read", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].Image = "Registry/agent: v1"
		}, `spec.template.sidecars[agent]: image "Registry/agent: v1" can't be read (`),
		Entry("a step that is smaller than one before", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Rollout.Steps = []v1alpha1.Step{{Name: "half", UpTo: ptr.To(intstr.FromString("50%"))}, {Name: "canary", UpTo: ptr.To(intstr.FromString("9%"))},
				{Name: "fleet", UpTo: ptr.To(intstr.FromString("100%"))}}
		}, "spec.rollout.steps[canary].upTo: 9% is less than the 50% of step half before it, and steps add up: write them in growing order"),
		Entry("overrides of a container that is not there", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Injection.Overrides = []v1alpha1.AllowedOverride{{Container: "agnet", Env: []string{"LEVEL"}}}
		}, "spec.injection.overrides[agnet]: the template has no such container: write one of agent"),
		Entry("two sidecars on one port", func(p *v1alpha1.SidecarPolicy) {
			withPort(80)(p)
			second := *p.Spec.Template.Sidecars[0].DeepCopy()
			second.Name = "second"
			p.Spec.Template.Sidecars = append(p.Spec.Template.Sidecars, second)
		}, "spec.template clashes with itself: "),
	)

	It("blinds the operator to no other policy, even where it can't be read", func() {
		other := newReadyWorld()
		broken := newWorld()
		patchUnreadable(broken.name, "1e1.5")
		broken.settle()
		accepted := broken.condition(v1alpha1.ConditionAccepted)
		Expect(accepted).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonInvalidSpec))
		Expect(accepted.Message).To(And(ContainSubstring("spec.template can't be read"), ContainSubstring("quantities must match")))

		other.setImage("agent:v2")
		other.settle()
		Expect(other.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete))
	})
})

// patchUnreadable gives a policy's sidecar a quantity that the schema takes and the type does not.
func patchUnreadable(policy, quantity string) {
	GinkgoHelper()
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("SidecarPolicy"))
	Expect(server.Client.Get(ctx, client.ObjectKey{Name: policy}, object)).To(Succeed())
	list, _, err := unstructured.NestedSlice(object.Object, "spec", "template", "sidecars")
	Expect(err).NotTo(HaveOccurred())
	Expect(unstructured.SetNestedField(list[0].(map[string]any), quantity, "resources", "requests", "cpu")).To(Succeed())
	Expect(unstructured.SetNestedSlice(object.Object, list, "spec", "template", "sidecars")).To(Succeed())
	Expect(server.Client.Update(ctx, object)).To(Succeed())
}

var _ = Describe("Old revisions", func() {
	It("are deleted, except the newest few and those in use", func() {
		w := newReadyWorld(func(p *v1alpha1.SidecarPolicy) { p.Spec.RevisionHistoryLimit = ptr.To[int32](1) })
		w.newFleet(1, 1)
		born := w.status().TargetRevision
		w.edit(func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Method = v1alpha1.MethodOnDelete })
		for _, image := range []string{"agent:v2", "agent:v3", "agent:v4", "agent:v5"} {
			w.setImage(image)
			w.settle()
		}
		var images []string
		for _, r := range w.revisions() {
			data := string(r.Data.Raw)
			i := strings.Index(data, "agent:v")
			images = append(images, data[i:i+len("agent:v1")])
		}
		Expect(images).To(ConsistOf("agent:v1", "agent:v4", "agent:v5"), "in use by a pod, kept as history, the target")
		Expect(w.pod("web0-0").Labels).To(HaveKeyWithValue(v1alpha1.RevisionLabel(w.name), born))
	})

	It("are found again when the template returns to one of them", func() {
		w := newReadyWorld()
		first := w.status().TargetRevision
		w.setImage("agent:v2")
		w.settle()
		Expect(w.status().TargetRevision).NotTo(Equal(first))
		w.setImage("agent:v1")
		w.settle()
		Expect(w.status().TargetRevision).To(Equal(first))
		Expect(w.revisions()).To(HaveLen(2))
	})
})

func resources(name corev1.ResourceName, quantity string) corev1.ResourceList {
	return corev1.ResourceList{name: resource.MustParse(quantity)}
}
