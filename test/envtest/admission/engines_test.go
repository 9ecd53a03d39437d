package admission

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// refusals say what engine AdmissionPolicy refuses of the golden policies, by their names here, and where.
var refusals = map[string]string{
	"env-from-app-tracing":               "spec.template.sidecars[collector].envFromApp",
	"kind-adapter-adapter":               "spec.template.sidecars[adapter].shareVolumeMounts",
	"kind-auth-proxy-auth":               "spec.template.sidecars[auth-proxy].envFromApp",
	"kind-exporter-exporter":             "spec.template.sidecars[exporter].shareVolumeMounts",
	"kind-log-agent-log-agent":           "spec.template.sidecars[log-agent].envFromApp",
	"kind-proxy-with-iptables-mesh":      "remove overrides, or write engine: Webhook",
	"kind-proxy-with-iptables-mesh-sole": "spec.template.sidecars[proxy].resourcesFromApp",
	"overrides-logs":                     "remove overrides, or write engine: Webhook",
	"overrides-logs-sole":                "spec.template.sidecars[agent].envFromApp",
	"resources-from-app-mesh":            "spec.template.sidecars[proxy].resourcesFromApp",
	"resources-from-app-logs":            "spec.template.sidecars[agent].resourcesFromApp",
	"share-volume-mounts-adapter":        "spec.template.sidecars[adapter].shareVolumeMounts",
	"share-volume-mounts-backup":         "spec.template.sidecars[backup].shareVolumeMounts",
}

// meeting is pods and policies that meet in a namespace of their own: first by engine Webhook, then by AdmissionPolicy.
type meeting struct {
	name     string
	labels   map[string]string
	policies []*v1alpha1.SidecarPolicy
	pods     []*corev1.Pod
	// before are the pods as engine Webhook makes them.
	before []*corev1.Pod
	// injected is how many of the pods get sidecars.
	injected int
	// coarser are the names of pods that engine AdmissionPolicy, as is documented, leaves as they are.
	coarser []string
}

// newMeeting is one of templates and pods; the first template is that of the policy of the meeting's name.
func newMeeting(name string, templates ...v1alpha1.SidecarTemplate) *meeting {
	m := &meeting{name: name}
	for i, template := range templates {
		policy := harness.Policy(name, name, "")
		if i > 0 {
			policy.Name = fmt.Sprintf("%s-%d", name, i)
		}
		policy.Spec.Template = template
		policy.Spec.Selector = v1alpha1.PodSelection{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: name}}}
		m.policies = append(m.policies, policy)
	}
	return m
}

// pod adds one that is like the app of the other tests.
func (m *meeting) pod(name string, changes ...func(*corev1.Pod)) *meeting {
	p := pod(m.name, name)
	for _, change := range changes {
		change(p)
	}
	m.pods = append(m.pods, p)
	return m
}

func (m *meeting) setup() {
	GinkgoHelper()
	createNamespace(m.name, m.labels)
	for _, policy := range m.policies {
		Expect(c.Create(ctx, policy)).To(Succeed())
		DeferCleanup(func() { remove(policy.Name) })
	}
}

// meet is what the API server makes of the pods.
func (m *meeting) meet() []*corev1.Pod {
	GinkgoHelper()
	var met []*corev1.Pod
	for _, p := range m.pods {
		p = p.DeepCopy()
		Expect(c.Create(ctx, p, client.DryRunAll)).To(Succeed(), "pod %s of %s", p.Name, m.name)
		p.UID, p.ResourceVersion, p.CreationTimestamp, p.ManagedFields = "", "", metav1.Time{}, nil
		met = append(met, p)
	}
	return met
}

// switchEngine writes engine AdmissionPolicy into each policy, and waits until it is refused, or alone in force.
func (m *meeting) switchEngine() {
	GinkgoHelper()
	for _, policy := range m.policies {
		err := harness.Edit(ctx, c, policy.Name, byAPIServer)
		if refused := refusals[policy.Name]; apierrors.IsInvalid(err) {
			Expect(refused).NotTo(BeEmpty(), "%s: %v", policy.Name, err)
			Expect(err).To(MatchError(ContainSubstring(refused)))
			continue
		}
		Expect(err).NotTo(HaveOccurred())
	}
}

func byAPIServer(p *v1alpha1.SidecarPolicy) { p.Spec.Injection.Engine = v1alpha1.EngineAdmissionPolicy }
func byWebhook(p *v1alpha1.SidecarPolicy)   { p.Spec.Injection.Engine = v1alpha1.EngineWebhook }

func (m *meeting) waitSwitched() {
	GinkgoHelper()
	for _, policy := range m.policies {
		refused := refusals[policy.Name]
		if refused == "" {
			waitReady(policy.Name)
			Eventually(func() bool { return calledFor(policy.Name) }).Should(BeFalse(), "%s still has its webhook", policy.Name)
			continue
		}
		current := &v1alpha1.SidecarPolicy{}
		Eventually(func() error {
			if err := c.Get(ctx, client.ObjectKey{Name: policy.Name}, current); err != nil {
				return err
			}
			if current.Spec.Injection.Engine == v1alpha1.EngineAdmissionPolicy && !harness.ConditionIs(current, v1alpha1.ConditionAccepted, metav1.ConditionFalse) {
				return fmt.Errorf("policy %s is accepted: %s", policy.Name, harness.Describe(current))
			}
			return nil
		}).Should(Succeed())
		if current.Spec.Injection.Engine == v1alpha1.EngineAdmissionPolicy {
			Expect(meta.FindStatusCondition(current.Status.Conditions, v1alpha1.ConditionAccepted).Message).To(And(ContainSubstring(refused), ContainSubstring("engine: Webhook")))
		}
		Expect(calledFor(policy.Name)).To(BeTrue(), "%s keeps what was accepted before", policy.Name)
	}
}

// calledFor says whether the API server calls the webhook for a policy.
func calledFor(policy string) bool {
	GinkgoHelper()
	err := c.Get(ctx, client.ObjectKey{Name: "sidecar-operator-" + policy}, &admissionregistrationv1.MutatingWebhookConfiguration{})
	Expect(client.IgnoreNotFound(err)).To(Succeed())
	return err == nil
}

// compiled says whether all of a meeting is carried out by the API server.
func (m *meeting) compiled() bool {
	for _, policy := range m.policies {
		if refusals[policy.Name] != "" {
			return false
		}
	}
	return true
}

// golden are the meetings of the golden pods of internal/inject: each policy alone, and all of a file together.
func golden() []*meeting {
	GinkgoHelper()
	files, err := filepath.Glob("../../../internal/inject/testdata/*.in.yaml")
	Expect(err).NotTo(HaveOccurred())
	Expect(len(files)).To(BeNumerically(">", 10), "the test looks in the wrong place")
	var all []*meeting
	for _, file := range files {
		data, err := os.ReadFile(file)
		Expect(err).NotTo(HaveOccurred())
		in := struct {
			Pod      corev1.Pod `json:"pod"`
			Policies []struct {
				Name      string                     `json:"name"`
				Template  v1alpha1.SidecarTemplate   `json:"template"`
				Overrides []v1alpha1.AllowedOverride `json:"overrides"`
			} `json:"policies"`
		}{}
		Expect(yaml.UnmarshalStrict(data, &in)).To(Succeed(), file)
		base := strings.TrimSuffix(filepath.Base(file), ".in.yaml")
		together := &meeting{name: base}
		for _, policy := range in.Policies {
			names := []string{base + "-" + policy.Name}
			if len(policy.Overrides) > 0 {
				names = append(names, names[0]+"-sole")
			}
			for i, name := range names {
				alone := newMeeting(name, policy.Template)
				if i == 0 {
					alone.policies[0].Spec.Injection.Overrides = policy.Overrides
				}
				all = append(all, alone)
			}
			together.policies = append(together.policies, newMeeting(base, policy.Template).policies[0])
			together.policies[len(together.policies)-1].Name = base + "-with-" + policy.Name
		}
		if len(in.Policies) > 1 && !refusesAny(all[len(all)-len(in.Policies):]) {
			all = append(all, together)
		}
		for _, m := range all {
			if m.pods == nil {
				p := in.Pod.DeepCopy()
				p.Namespace, m.pods, m.injected = m.name, []*corev1.Pod{p}, 1
				// An API server gives pods a service account where it has the admission plugin for that.
				p.Spec.ServiceAccountName = "default"
			}
		}
	}
	return all
}

func refusesAny(meetings []*meeting) bool {
	for _, m := range meetings {
		if !m.compiled() {
			return true
		}
	}
	return false
}

func labelled(value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels[v1alpha1.InjectLabel] = value }
}

func template(changes ...func(*v1alpha1.SidecarTemplate)) v1alpha1.SidecarTemplate {
	t := v1alpha1.SidecarTemplate{Sidecars: []v1alpha1.Sidecar{{Container: corev1.Container{Name: "agent", Image: "agent:v1"}}}}
	for _, change := range changes {
		change(&t)
	}
	return t
}

// selections are pods whose owners have a say, or not.
func selections() []*meeting {
	optOut, optIn, mandatory, out, in := newMeeting("m-opt-out", template()), newMeeting("m-opt-in", template()), newMeeting("m-mandatory", template()),
		newMeeting("m-namespace-out", template()), newMeeting("m-namespace-in", template())
	optIn.policies[0].Spec.Selector.Mode, in.policies[0].Spec.Selector.Mode = v1alpha1.SelectOptIn, v1alpha1.SelectOptIn
	mandatory.policies[0].Spec.Selector.Mode = v1alpha1.SelectMandatory
	out.labels, in.labels = map[string]string{v1alpha1.InjectLabel: "false"}, map[string]string{v1alpha1.InjectLabel: "true"}
	mandatory.labels = out.labels
	all := []*meeting{optOut, optIn, mandatory, out, in}
	for i, injected := range []int{2, 1, 3, 0, 2} {
		all[i].pod("silent").pod("willing", labelled("true")).pod("unwilling", labelled("false")).injected = injected
	}
	return all
}

// secured are sidecars in namespaces that enforce Pod Security.
func secured() []*meeting {
	strict := &corev1.SecurityContext{AllowPrivilegeEscalation: ptr.To(false), RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To[int64](65532),
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	with := func(s *corev1.SecurityContext) v1alpha1.SidecarTemplate {
		return template(func(t *v1alpha1.SidecarTemplate) { t.Sidecars[0].SecurityContext = s })
	}
	lenient := strict.DeepCopy()
	lenient.RunAsNonRoot, lenient.RunAsUser, lenient.SeccompProfile = nil, nil, nil
	containers := func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext = strict }
	whole := func(p *corev1.Pod) {
		containers(p)
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To[int64](65532), SeccompProfile: strict.SeccompProfile}
	}
	baseline, restricted := map[string]string{"pod-security.kubernetes.io/enforce": "baseline"}, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}
	privileged := with(&corev1.SecurityContext{Privileged: ptr.To(true)})
	all := []*meeting{newMeeting("m-privileged", privileged), newMeeting("m-baseline", template()), newMeeting("m-restricted", with(strict)),
		newMeeting("m-lenient", with(lenient)), newMeeting("m-unenforced", privileged)}
	all[0].labels, all[1].labels, all[2].labels, all[3].labels = baseline, baseline, restricted, restricted
	all[4].labels = map[string]string{"pod-security.kubernetes.io/enforce": "privileged", "pod-security.kubernetes.io/warn": "restricted"}
	for i, injected := range []int{0, 2, 2, 1, 2} {
		all[i].pod("containers", containers).pod("whole", whole).injected = injected
	}
	all[3].coarser = []string{"whole"}
	return all
}

// clashing are pods that have what a policy brings, each in one way.
func clashing() *meeting {
	m := newMeeting("m-clashing", template(func(t *v1alpha1.SidecarTemplate) {
		t.Metadata.Labels, t.Metadata.Annotations = map[string]string{"mesh": "on"}, map[string]string{"note": "a"}
		t.Volumes = []corev1.Volume{{Name: "logs"}}
		t.Sidecars[0].Ports = []corev1.ContainerPort{{ContainerPort: 9000}}
		t.Sidecars[0].VolumeMounts = []corev1.VolumeMount{{Name: "logs", MountPath: "/logs"}}
		t.AppContainers = []v1alpha1.AppContainer{{Selector: "*", VolumeMounts: []corev1.VolumeMount{{Name: "logs", MountPath: "/var/log"}}, Env: []corev1.EnvVar{{Name: "LOG_DIR", Value: "/var/log"}}}}
		t.ShareProcessNamespace = true
	}))
	app := func(change func(*corev1.Container)) func(*corev1.Pod) {
		return func(p *corev1.Pod) { change(&p.Spec.Containers[0]) }
	}
	m.pod("none").pod("same-label", func(p *corev1.Pod) { p.Labels["mesh"] = "on" }).
		pod("container", func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "agent", Image: "own:v1"})
		}).
		pod("volume", func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "logs"}} }).
		pod("port", app(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 9000}} })).
		pod("env", app(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{Name: "LOG_DIR"}} })).
		pod("mount", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "own"}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "own", MountPath: "/var//log/"}}
		}).
		pod("label", func(p *corev1.Pod) { p.Labels["mesh"] = "off" }).
		pod("annotation", func(p *corev1.Pod) { p.Annotations = map[string]string{"note": "b"} }).
		pod("processes", func(p *corev1.Pod) { p.Spec.ShareProcessNamespace = ptr.To(false) })
	m.injected = 2
	return m
}

// drained are pods that get a readiness gate, once.
func drained() *meeting {
	m := newMeeting("m-drained", template())
	m.policies[0].Spec.Rollout.Drain.Seconds = 5
	m.pod("web").pod("own-gate", func(p *corev1.Pod) {
		p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: v1alpha1.DrainCondition(m.name)}, {ConditionType: "example.com/own"}}
	}).injected = 2
	return m
}

var _ = Describe("Both engines", Serial, Ordered, func() {
	BeforeAll(func() { DeferCleanup(func() { operator.start() }) })

	It("give the same pods, that of AdmissionPolicy while the operator is stopped", func() {
		meetings := append(append(golden(), selections()...), append(secured(), clashing(), drained())...)
		for _, m := range meetings {
			m.setup()
		}
		for _, m := range meetings {
			for _, policy := range m.policies {
				waitReady(policy.Name)
			}
		}
		for _, m := range meetings {
			m.before = m.meet()
			Expect(countInjected(m.before)).To(Equal(m.injected), "%s by engine Webhook", m.name)
			m.switchEngine()
		}
		for _, m := range meetings {
			m.waitSwitched()
		}
		operator.stop()
		same, refused := 0, 0
		for _, m := range meetings {
			if !m.compiled() {
				refused++
				continue
			}
			same += m.compare()
		}
		GinkgoWriter.Printf("%d pods are the same by both engines, %d policies are refused\n", same, refused)
		Expect(same).To(BeNumerically(">", 40))
		Expect(refused).To(Equal(len(refusals)), "each refusal is of a policy that is here")
	})
})

// compare holds what the API server makes by itself against what the webhook made, and says how many are the same.
func (m *meeting) compare() int {
	GinkgoHelper()
	for i, after := range m.meet() {
		before := m.before[i]
		for _, name := range m.coarser {
			if name == after.Name {
				Expect(after.Spec.InitContainers).To(BeEmpty(), "%s/%s is documented to be left as it is", m.name, name)
				before = after
			}
		}
		Expect(cmp.Diff(before, after)).To(BeEmpty(), "%s/%s: the webhook's pod (-) is not the API server's (+)", m.name, after.Name)
	}
	return len(m.pods) - len(m.coarser)
}

func countInjected(pods []*corev1.Pod) int {
	count := 0
	for _, p := range pods {
		if len(v1alpha1.PoliciesOf(p.Labels)) > 0 {
			count++
		}
	}
	return count
}

var _ = Describe("Engine AdmissionPolicy", Serial, func() {
	It("injects while the operator is down, also where pods of others would be refused", func() {
		createNamespace("down", nil)
		createPolicy("down", byAPIServer, func(p *v1alpha1.SidecarPolicy) { p.Spec.Injection.FailurePolicy = v1alpha1.FailurePolicyFail })
		policy := waitReady("down")
		before := calls()
		operator.stop()
		DeferCleanup(func() { operator.start() })
		Expect(checkInjected(create(pod("down", "web")), policy)).To(Succeed())
		Expect(calls()).To(Equal(before))
		Expect(calledFor("down")).To(BeFalse())
	})

	It("loses no pod, and injects none twice, while policies change their engine", func() {
		createNamespace("switching", nil)
		createPolicy("switching")
		createPolicy("switching-too", selecting("switching"))
		policies := []*v1alpha1.SidecarPolicy{waitReady("switching"), waitReady("switching-too")}
		var created atomic.Int32
		stop, stopped := make(chan struct{}), make(chan error, 1)
		go func() { stopped <- createUntil(stop, &created, policies) }()
		for _, engine := range []func(*v1alpha1.SidecarPolicy){byAPIServer, byWebhook, byAPIServer} {
			Expect(harness.Edit(ctx, c, "switching", engine)).To(Succeed())
			by := engineOf(engine)
			Eventually(func() bool {
				return calledFor("switching") == (by == v1alpha1.EngineWebhook) && compiledFor("switching") == (by == v1alpha1.EngineAdmissionPolicy)
			}).
				Should(BeTrue(), "engine %s is alone in force", by)
			waitReady("switching")
		}
		close(stop)
		Expect(<-stopped).To(Succeed())
		Expect(created.Load()).To(BeNumerically(">", 100))
		GinkgoWriter.Printf("%d pods were created meanwhile\n", created.Load())
	})
})

var _ = DescribeTable("Of two policies that bring the same, the one whose name comes first has it:", Serial,
	func(namespace string, first, second func(*v1alpha1.SidecarPolicy)) {
		a, b := namespace+"-a", namespace+"-b"
		brings := func(p *v1alpha1.SidecarPolicy) { p.Spec.Template.Sidecars[0].Name = "same" }
		createNamespace(namespace, nil)
		createPolicy(b, selecting(namespace), brings, second)
		createPolicy(a, selecting(namespace), brings, first)
		waitReady(a)
		has := func() ([]string, error) {
			p := pod(namespace, "web")
			err := c.Create(ctx, p, client.DryRunAll)
			return v1alpha1.PoliciesOf(p.Labels), err
		}
		Eventually(has).Should(ConsistOf(a))
		waitReady(b)
		for range 20 {
			Expect(has()).To(ConsistOf(a))
		}
		Expect(harness.Edit(ctx, c, a, func(p *v1alpha1.SidecarPolicy) { p.Spec.Injection.Paused = true })).To(Succeed())
		Eventually(has).Should(ConsistOf(b))
	},
	Entry("both by the API server", "same", byAPIServer, byAPIServer),
	Entry("the first by the webhook", "same-webhook", byWebhook, byAPIServer),
	Entry("the second by the webhook", "webhook-same", byAPIServer, byWebhook),
)

func engineOf(change func(*v1alpha1.SidecarPolicy)) v1alpha1.InjectionEngine {
	p := &v1alpha1.SidecarPolicy{}
	change(p)
	return p.Spec.Injection.Engine
}

// compiledFor says whether the API server injects for a policy by itself.
func compiledFor(policy string) bool {
	GinkgoHelper()
	err := c.Get(ctx, client.ObjectKey{Name: "sidecar-operator-" + policy}, &admissionregistrationv1.MutatingAdmissionPolicy{})
	Expect(client.IgnoreNotFound(err)).To(Succeed())
	return err == nil
}

// createUntil creates pods as dry runs, and says what the first wrong one lacks, or has too much.
func createUntil(stop <-chan struct{}, created *atomic.Int32, policies []*v1alpha1.SidecarPolicy) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		p := pod(policies[0].Name, "web")
		if err := c.Create(ctx, p, client.DryRunAll); err != nil {
			return err
		}
		if len(p.Spec.InitContainers) != len(policies) {
			return fmt.Errorf("pod %d at %s has the init containers %v", created.Load(), time.Now(), names(p.Spec.InitContainers))
		}
		for _, policy := range policies {
			if err := checkInjected(p, policy); err != nil {
				return fmt.Errorf("pod %d: %w", created.Load(), err)
			}
		}
		created.Add(1)
	}
}
