package admission

import (
	"bytes"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/certs"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var _ = Describe("A pod that a policy selects", func() {
	It("gets native sidecars before its own init containers, and the app what it is to get", func() {
		createNamespace("native", nil)
		createPolicy("native", func(p *v1alpha1.SidecarPolicy) {
			t := &p.Spec.Template
			t.Metadata = v1alpha1.TemplateMetadata{Labels: map[string]string{"logs": "collected"}, Annotations: map[string]string{"example.com/scrape": "yes"}}
			t.Volumes = []corev1.Volume{{Name: "logs", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
			t.Sidecars[0].VolumeMounts = []corev1.VolumeMount{{Name: "logs", MountPath: "/logs"}}
			t.AppContainers = []v1alpha1.AppContainer{{Selector: "*", VolumeMounts: []corev1.VolumeMount{{Name: "logs", MountPath: "/var/log/app"}},
				Env: []corev1.EnvVar{{Name: "LOG_DIR", Value: "/var/log/app"}}}}
			t.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
		})
		policy := waitReady("native")
		p := pod("native", "web")
		p.Spec.InitContainers = []corev1.Container{{Name: "setup", Image: "app:v1"}}
		p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "own"}}
		create(p)
		Expect(checkInjected(p, policy)).To(Succeed())
		Expect(names(p.Spec.InitContainers)).To(Equal([]string{"native", "setup"}))
		Expect(names(p.Spec.Containers)).To(Equal([]string{"app"}))
		Expect(p.Spec.Containers[0].VolumeMounts).To(ConsistOf(HaveField("MountPath", "/var/log/app")))
		Expect(p.Spec.Containers[0].Env).To(ConsistOf(corev1.EnvVar{Name: "LOG_DIR", Value: "/var/log/app"}))
		Expect(p.Spec.Containers[0].Image).To(Equal("app:v1"))
		Expect(p.Spec.Volumes).To(ConsistOf(HaveField("Name", "logs")))
		Expect(p.Spec.ImagePullSecrets).To(HaveExactElements(HaveField("Name", "own"), HaveField("Name", "registry")))
		Expect(p.Labels).To(HaveKeyWithValue("logs", "collected"))
		Expect(p.Annotations).To(HaveKeyWithValue("example.com/scrape", "yes"))
		record, err := v1alpha1.ParseInjectionRecord(p.Annotations, "native")
		Expect(err).NotTo(HaveOccurred())
		Expect(record).To(HaveValue(Equal(v1alpha1.InjectionRecord{Revision: policy.Status.TargetRevision, Sidecars: []string{"native"},
			Volumes: []string{"logs"}, Labels: []string{"logs"}, Annotations: []string{"example.com/scrape"},
			App: map[string]v1alpha1.AppRecord{"*": {MountPaths: []string{"/var/log/app"}, Env: []string{"LOG_DIR"}}}})))
		Expect(warnings.take()).To(BeEmpty())
	})

	It("gets sidecars of mode Container after its own containers", func() {
		createNamespace("classic", nil)
		createPolicy("classic", func(p *v1alpha1.SidecarPolicy) { p.Spec.Template.Sidecars[0].Mode = v1alpha1.ModeContainer })
		waitReady("classic")
		p := create(pod("classic", "web"))
		Expect(names(p.Spec.Containers)).To(Equal([]string{"app", "classic"}))
		Expect(p.Spec.InitContainers).To(BeEmpty())
	})

	It("is injected by the first moment at which the policy is Ready", func() {
		createNamespace("moment", nil)
		for i := range 20 {
			name := fmt.Sprintf("moment-%d", i)
			policy := watchReady(name, createPolicy(name).Generation)
			p := pod("moment", name)
			p.Labels[harness.FleetLabel] = name
			Expect(checkInjected(create(p), policy)).To(Succeed(), "policy %d of 20", i)
			remove(name)
		}
	})

	It("gets the new template by the first moment at which the policy is Ready with it", func() {
		createNamespace("edited", nil)
		createPolicy("edited")
		waitReady("edited")
		for i := range 5 {
			Expect(harness.SetImage(ctx, c, "edited", "edited", fmt.Sprintf("edited:v%d", i+2))).To(Succeed())
			policy := watchReady("edited", int64(i+2))
			Expect(checkInjected(create(pod("edited", fmt.Sprintf("web-%d", i))), policy)).To(Succeed())
		}
	})

	It("gets the sidecars of every policy that selects it, once each", func() {
		createNamespace("several", nil)
		first := createPolicy("several-a", selecting("several"), func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.AppContainers = []v1alpha1.AppContainer{{Selector: "*", Env: []corev1.EnvVar{{Name: "A", Value: "1"}}}}
		})
		createPolicy("several-b", selecting("several"), func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].Mode = v1alpha1.ModeContainer
			p.Spec.Template.AppContainers = []v1alpha1.AppContainer{{Selector: "*", Env: []corev1.EnvVar{{Name: "B", Value: "2"}}}}
		})
		*first = *waitReady("several-a")
		waitReady("several-b")
		before := calls()
		p := create(pod("several", "web"))
		Expect(calls()).To(Equal(before+1), "one answer brings the sidecars of all policies")
		Expect(checkInjected(p, first)).To(Succeed())
		Expect(names(p.Spec.InitContainers)).To(Equal([]string{"several-a"}))
		Expect(names(p.Spec.Containers)).To(Equal([]string{"app", "several-b"}))
		Expect(p.Spec.Containers[0].Env).To(ConsistOf(corev1.EnvVar{Name: "A", Value: "1"}, corev1.EnvVar{Name: "B", Value: "2"}))
		Expect(p.Spec.Containers[1].Env).To(BeEmpty(), "a policy's sidecar is not the app's")
		Expect(warnings.take()).To(BeEmpty())
	})

	It("is left as it is where its namespace would not take it with the sidecars", func() {
		createNamespace("secured", map[string]string{"pod-security.kubernetes.io/enforce": "baseline"})
		createPolicy("secured", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Sidecars[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
		})
		waitReady("secured")
		p := create(pod("secured", "web"))
		Expect(names(p.Spec.InitContainers)).To(BeEmpty())
		Expect(p.Labels).NotTo(HaveKey(v1alpha1.RevisionLabel("secured")))
		Expect(warnings.take()).To(ContainElement(And(ContainSubstring("created without its sidecars"),
			ContainSubstring(`break the Pod Security Standard "baseline:latest"`), ContainSubstring("privileged"))))
		Eventually(func() *v1alpha1.SidecarPolicyStatus { return &waitReady("secured").Status }).Should(And(
			HaveField("Pods", HaveValue(HaveField("Conflicting", BeEquivalentTo(1)))),
			HaveField("Unhealthy", ConsistOf(HaveField("Reason", v1alpha1.ReasonPodSecurityConflict)))))
	})
})

func selecting(fleet string) func(*v1alpha1.SidecarPolicy) {
	return func(p *v1alpha1.SidecarPolicy) { p.Spec.Selector.PodSelector.MatchLabels[harness.FleetLabel] = fleet }
}

var _ = Describe("A pod that no policy selects", func() {
	It("never meets the webhook", func() {
		createNamespace("elsewhere", map[string]string{"logs": "off"})
		createNamespace("here", map[string]string{"logs": "on"})
		createPolicy("here", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Selector.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"logs": "on"}}
		})
		policy := waitReady("here")
		before := calls()
		unlabelled := pod("here", "unlabelled")
		unlabelled.Labels = nil
		otherNamespace := pod("elsewhere", "web")
		otherNamespace.Labels[harness.FleetLabel] = "here"
		for _, p := range []*corev1.Pod{unlabelled, otherNamespace} {
			create(p)
			Expect(p.Spec.InitContainers).To(BeEmpty())
			Expect(p.Annotations).To(BeEmpty())
		}
		Expect(calls()).To(Equal(before))

		By("creating one that is selected: the count can count")
		Expect(checkInjected(create(pod("here", "web")), policy)).To(Succeed())
		Expect(calls()).To(BeNumerically(">", before))
	})

	It("may be one whose owner has opted out, by a label on the pod or on its namespace", func() {
		createNamespace("opting", nil)
		createNamespace("opted-out", map[string]string{v1alpha1.InjectLabel: "false"})
		createPolicy("opting")
		policy := waitReady("opting")
		before := calls()
		for _, namespace := range []string{"opting", "opted-out"} {
			out := pod("opting", "out")
			out.Namespace, out.Labels[v1alpha1.InjectLabel] = namespace, "false"
			Expect(create(out).Spec.InitContainers).To(BeEmpty())
		}
		in := pod("opting", "in")
		in.Namespace, in.Labels[v1alpha1.InjectLabel] = "opted-out", "true"
		Expect(create(in).Spec.InitContainers).To(BeEmpty(), "the namespace has the last word")
		Expect(calls()).To(Equal(before))
		Expect(checkInjected(create(pod("opting", "web")), policy)).To(Succeed())
	})

	It("may be one whose owner has not opted in, where the policy asks for that", func() {
		createNamespace("quiet", nil)
		createNamespace("willing", map[string]string{v1alpha1.InjectLabel: "true"})
		createPolicy("asking", func(p *v1alpha1.SidecarPolicy) { p.Spec.Selector.Mode = v1alpha1.SelectOptIn })
		policy := waitReady("asking")
		in := func(namespace, inject string) *corev1.Pod {
			p := pod("asking", "says-"+inject)
			p.Namespace = namespace
			if inject != "nothing" {
				p.Labels[v1alpha1.InjectLabel] = inject
			}
			return create(p)
		}
		before := calls()
		Expect(in("quiet", "nothing").Spec.InitContainers).To(BeEmpty())
		Expect(in("quiet", "false").Spec.InitContainers).To(BeEmpty())
		Expect(in("willing", "false").Spec.InitContainers).To(BeEmpty())
		Expect(calls()).To(Equal(before))
		for _, p := range []*corev1.Pod{in("quiet", "true"), in("willing", "nothing"), in("willing", "true")} {
			Expect(checkInjected(p, policy)).To(Succeed())
		}
		Expect(calls()).To(Equal(before+3), "the operator is asked once for each pod")
		Eventually(func() error {
			current := &v1alpha1.SidecarPolicy{}
			if err := c.Get(ctx, client.ObjectKey{Name: "asking"}, current); err != nil {
				return err
			}
			if got := current.Status.Pods; got == nil || got.Selected != 3 || got.Injected != 3 {
				return fmt.Errorf("the status counts %+v, want 3 pods selected and injected", got)
			}
			return nil
		}).Should(Succeed())
	})

	It("never is one of kube-system, of the operator's namespace, or the operator's own", func() {
		createNamespace("everything", nil)
		createPolicy("everything", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Selector = v1alpha1.PodSelection{NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpExists}}}}
		})
		policy := waitReady("everything")
		before := calls()
		own := pod("everything", "operator")
		own.Labels = map[string]string{"app.kubernetes.io/name": "sidecar-operator"}
		for _, p := range []*corev1.Pod{pod("kube-system", "web"), pod(operatorNamespace, "web"), own} {
			Expect(create(p).Spec.InitContainers).To(BeEmpty(), "%s/%s", p.Namespace, p.Name)
		}
		Expect(calls()).To(Equal(before))
		Expect(checkInjected(create(pod("everything", "web")), policy)).To(Succeed())
	})
})

var _ = Describe("A pod that the sidecars clash with", func() {
	// clash is a policy, and a pod of a Deployment's that has a container of the sidecar's name.
	clash := func(name string) *corev1.Pod {
		GinkgoHelper()
		createNamespace(name, nil)
		createPolicy(name)
		waitReady(name)
		deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "web"}, Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}, Spec: pod(name, "").Spec},
		}}
		Expect(c.Create(ctx, deployment)).To(Succeed())
		rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "web-1"}, Spec: appsv1.ReplicaSetSpec{
			Selector: deployment.Spec.Selector, Template: deployment.Spec.Template}}
		rs.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(deployment, appsv1.SchemeGroupVersion.WithKind("Deployment"))}
		Expect(c.Create(ctx, rs)).To(Succeed())
		p := pod(name, "web-1-x")
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name, Image: "the-apps-own:v1"})
		return p
	}
	eventsOf := func(namespace string) []eventsv1.Event {
		GinkgoHelper()
		list := &eventsv1.EventList{}
		Expect(c.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
		return list.Items
	}

	It("is created as its owner wrote it; a warning and an event on the owner say why", func() {
		p := clash("clash")
		create(p)
		Expect(names(p.Spec.Containers)).To(Equal([]string{"app", "clash"}))
		Expect(p.Spec.Containers[1].Image).To(Equal("the-apps-own:v1"))
		Expect(p.Spec.InitContainers).To(BeEmpty())
		Expect(p.Annotations).To(BeEmpty())
		Expect(warnings.take()).To(ConsistOf(And(HavePrefix("SidecarPolicy clash: created without its sidecars: "), ContainSubstring(`"clash"`))))
		Eventually(func() error {
			for _, e := range eventsOf("clash") {
				if e.Reason == string(v1alpha1.ReasonInjectionSkipped) && strings.HasPrefix(e.Regarding.Name, "web") && e.Regarding.Namespace == "clash" {
					return nil
				}
			}
			return fmt.Errorf("no event InjectionSkipped about the owner; there are %v", eventsOf("clash"))
		}).Should(Succeed())
	})

	It("gets all of the policy whose name comes first, and nothing of the one that clashes with it; both are named", func() {
		bring := func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Template.Volumes = []corev1.Volume{{Name: "spool", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		}
		p := clash("rivals")
		p.Spec.Containers = p.Spec.Containers[:1]
		createPolicy("rivals-b", selecting("rivals"), bring)
		waitReady("rivals-b")
		createPolicy("rivals-a", selecting("rivals"), bring)
		waitReady("rivals-a")
		create(p)
		Expect(names(p.Spec.InitContainers)).To(Equal([]string{"rivals", "rivals-a"}))
		Expect(p.Labels).NotTo(HaveKey(v1alpha1.RevisionLabel("rivals-b")))
		const why = `SidecarPolicies rivals-a and rivals-b both bring a volume "spool": rivals-a has it, since its name comes first`
		Expect(warnings.take()).To(ContainElement("SidecarPolicy rivals-b: created without its sidecars: " + why))
		Eventually(func() []eventsv1.Event { return eventsOf("rivals") }).Should(ContainElement(And(
			HaveField("Reason", string(v1alpha1.ReasonInjectionSkipped)), HaveField("Note", ContainSubstring(why)))))
		Eventually(func() *v1alpha1.SidecarPolicyStatus { return &waitReady("rivals-b").Status }).Should(And(
			HaveField("Pods", HaveValue(HaveField("Conflicting", BeEquivalentTo(1)))),
			HaveField("Unhealthy", ConsistOf(And(HaveField("Reason", v1alpha1.ReasonVolumeConflict), HaveField("Message", ContainSubstring(why)))))))
	})

	It("gets the template unchanged where it overrides more than it may, and its owner is told", func() {
		p := clash("override")
		p.Spec.Containers = p.Spec.Containers[:1]
		Expect(harness.Edit(ctx, c, "override", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Injection.Overrides = []v1alpha1.AllowedOverride{{Container: "override", Env: []string{"LEVEL"}}}
		})).To(Succeed())
		policy := waitReady("override")
		key := v1alpha1.OverrideAnnotation("override")
		allowed, refused := p.DeepCopy(), p.DeepCopy()
		allowed.Name, allowed.Annotations = "allowed", map[string]string{key: `{"override": {"env": {"LEVEL": "debug"}}}`}
		Eventually(func() []corev1.EnvVar { // the operator may see the rule a little later than the policy is Ready
			try := allowed.DeepCopy()
			Expect(c.Create(ctx, try, client.DryRunAll)).To(Succeed())
			return try.Spec.InitContainers[0].Env
		}).Should(ConsistOf(corev1.EnvVar{Name: "LEVEL", Value: "debug"}))
		warnings.take()

		refused.Annotations = map[string]string{key: `{"override": {"env": {"LEVEL": "debug", "OTHER": "x"}}}`}
		Expect(checkInjected(create(refused), policy)).To(Succeed())
		Expect(refused.Spec.InitContainers[0].Env).To(BeEmpty())
		Expect(warnings.take()).To(ConsistOf(HavePrefix("SidecarPolicy override: created without the override of its template: annotation " + key)))
		Eventually(func() error {
			for _, e := range eventsOf("override") {
				if e.Reason == string(v1alpha1.ReasonOverrideIgnored) && strings.HasPrefix(e.Regarding.Name, "web") {
					return nil
				}
			}
			return fmt.Errorf("no event OverrideIgnored about the owner; there are %v", eventsOf("override"))
		}).Should(Succeed())
	})

	It("is warned of in a dry run too, which leaves no event", func() {
		p := clash("dry-run")
		Expect(c.Create(ctx, p.DeepCopy(), client.DryRunAll)).To(Succeed())
		Expect(warnings.take()).To(ConsistOf(HavePrefix("SidecarPolicy dry-run: created without its sidecars: ")))

		By("creating another in earnest: events are sent in order, so the first one's would be there before")
		create(p)
		Eventually(func() error {
			if len(eventsOf("dry-run")) == 0 {
				return fmt.Errorf("no event yet")
			}
			return nil
		}).Should(Succeed())
		event := eventsOf("dry-run")[0]
		Expect(eventsOf("dry-run")).To(HaveLen(1))
		Expect(event.Series).To(BeNil(), "the dry run was counted")
	})
})

var _ = Describe("A policy that waits", func() {
	It("with a paused injection lets pods start as they are", func() {
		createNamespace("paused", nil)
		createPolicy("paused", func(p *v1alpha1.SidecarPolicy) { p.Spec.Injection.Paused = true })
		waitReady("paused")
		before := calls()
		Expect(create(pod("paused", "web")).Spec.InitContainers).To(BeEmpty())
		Expect(calls()).To(Equal(before))
	})

	It("with a paused roll-out gives new pods the stable revision", func() {
		createNamespace("stable", nil)
		createPolicy("stable")
		stable := waitReady("stable")
		create(pod("stable", "old"))
		Expect(harness.Edit(ctx, c, "stable", func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Rollout.Paused = true
			p.Spec.Template.Sidecars[0].Image = "stable:v2"
		})).To(Succeed())
		_, err := harness.WaitForPolicy(ctx, c, "stable", patience, func(p *v1alpha1.SidecarPolicy) bool {
			return p.Status.TargetRevision != stable.Status.TargetRevision
		})
		Expect(err).NotTo(HaveOccurred())
		Expect(checkInjected(create(pod("stable", "new")), stable)).To(Succeed())
	})
})

var _ = Describe("The certificate", func() {
	secret := func() (*corev1.Secret, error) {
		s := &corev1.Secret{}
		return s, c.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: secretName}, s)
	}

	It("is made by the operator, stands in the registration, and is replaced when its Secret is deleted", func() {
		createNamespace("certificate", nil)
		createPolicy("certificate")
		policy := waitReady("certificate")
		before, err := secret()
		Expect(err).NotTo(HaveOccurred())
		checkBundle := func(want *corev1.Secret) error {
			registration := &admissionregistrationv1.MutatingWebhookConfiguration{}
			if err := c.Get(ctx, client.ObjectKey{Name: "sidecar-operator-certificate"}, registration); err != nil {
				return err
			}
			if !bytes.Equal(registration.Webhooks[0].ClientConfig.CABundle, certs.CABundle(want)) {
				return fmt.Errorf("the registration's caBundle is not the Secret's ca.crt")
			}
			return nil
		}
		Expect(checkBundle(before)).To(Succeed())

		Expect(c.Delete(ctx, before)).To(Succeed())
		var after *corev1.Secret
		Eventually(func() error {
			if after, err = secret(); err != nil {
				return err
			}
			if after.UID == before.UID {
				return fmt.Errorf("the Secret is still the old one")
			}
			return checkBundle(after)
		}).Should(Succeed())
		Expect(certs.CABundle(after)).NotTo(Equal(certs.CABundle(before)))
		i := 0
		Eventually(func() error {
			i++
			p := pod("certificate", fmt.Sprintf("web-%d", i))
			if err := c.Create(ctx, p); err != nil {
				return err
			}
			return checkInjected(p, policy)
		}).Should(Succeed())
	})
})

var _ = Describe("While the operator is down", Serial, func() {
	BeforeEach(func() {
		DeferCleanup(func() { operator.start() })
	})

	It("failurePolicy Ignore lets selected pods start without sidecars, Fail refuses them, and no others", func() {
		for _, name := range []string{"ignore", "fail"} {
			createNamespace(name, nil)
			createPolicy(name, func(p *v1alpha1.SidecarPolicy) {
				if name == "fail" {
					p.Spec.Injection.FailurePolicy = v1alpha1.FailurePolicyFail
				}
			})
		}
		waitReady("ignore")
		policy := waitReady("fail")
		operator.stop()

		Expect(create(pod("ignore", "web")).Spec.InitContainers).To(BeEmpty())
		err := c.Create(ctx, pod("fail", "web"))
		Expect(err).To(Satisfy(apierrors.IsInternalError))
		Expect(err).To(MatchError(ContainSubstring("inject.fleet.sidecar.dev")))
		unselected := pod("fail", "unselected")
		unselected.Labels = nil
		create(unselected)

		operator.start()
		Eventually(func() error {
			p := pod("fail", "web")
			if err := c.Create(ctx, p); err != nil {
				return err
			}
			return checkInjected(p, policy)
		}).Should(Succeed())
		operator.stop()
	})
})
