package api

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// inForce is how long the API server may take until a new admission policy acts.
const inForce = 30 * time.Second

var _ = Describe("The admission policies beside the operator", Ordered, func() {
	BeforeAll(func() {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "sidecar-operator-system"}}
		Expect(client.IgnoreAlreadyExists(server.Client.Create(ctx, namespace))).To(Succeed())
	})

	// as is the client of a user with one of the installation's roles.
	as := func(user, role string) client.Client {
		GinkgoHelper()
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: user},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
		}
		Expect(server.Client.Create(ctx, binding)).To(Succeed())
		DeferCleanup(func() { Expect(server.Client.Delete(ctx, binding)).To(Succeed()) })
		config := rest.CopyConfig(server.Config)
		config.Impersonate = rest.ImpersonationConfig{UserName: user}
		c, err := harness.NewClient(config)
		Expect(err).NotTo(HaveOccurred())
		return c
	}

	create := func(policy *v1alpha1.SidecarPolicy) {
		GinkgoHelper()
		Expect(server.Client.Create(ctx, policy)).To(Succeed())
		DeferCleanup(func() { Expect(client.IgnoreNotFound(server.Client.Delete(ctx, policy))).To(Succeed()) })
	}

	// patch changes the policy as a user.
	patch := func(c client.Client, policy *v1alpha1.SidecarPolicy, change func(*v1alpha1.SidecarPolicy), options ...client.PatchOption) error {
		changed := policy.DeepCopy()
		change(changed)
		return c.Patch(ctx, changed, client.MergeFrom(policy), options...)
	}

	annotate := func(key, value string) func(*v1alpha1.SidecarPolicy) {
		return func(p *v1alpha1.SidecarPolicy) { metav1.SetMetaDataAnnotation(&p.ObjectMeta, key, value) }
	}

	It("let approvers approve and editors edit, and neither do both", func() {
		apply(server.Client, inInstallation("dist/install.yaml"))
		policy := harness.Policy("approvals", "x", "agent:v1")
		policy.Spec.Rollout.Steps = append([]v1alpha1.Step{{Name: "canary", UpTo: ptr.To(intstr.FromInt32(1)), Approval: v1alpha1.ApprovalRequired}}, harness.AllAtOnce()...)
		create(policy)
		editor := as("erin", "sidecar-operator-sidecarpolicy-editor-role")
		approver := as("ada", "sidecar-operator-sidecarpolicy-approver-role")

		approve := annotate(v1alpha1.ApproveAnnotation, "r/canary")
		Eventually(func() error { return patch(editor, policy, approve, client.DryRunAll) }, inForce, "100ms").
			Should(MatchError(And(ContainSubstring(`needs the verb "approve"`), ContainSubstring("approver-role"))))
		Expect(patch(editor, policy, annotate(v1alpha1.PromoteAnnotation, "r/canary"))).To(Satisfy(apierrors.IsForbidden))
		Expect(patch(editor, policy, func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Steps = harness.AllAtOnce() })).
			To(MatchError(ContainSubstring("a step that needs an approval can't be removed")))
		Expect(patch(editor, policy, func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Steps[0].Approval = v1alpha1.ApprovalNotRequired })).
			To(MatchError(ContainSubstring("a step that needs an approval can't be")))
		Expect(patch(editor, policy, func(p *v1alpha1.SidecarPolicy) { p.Spec.Template.Sidecars[0].Image = "agent:v2" })).To(Succeed())

		Expect(server.Client.Get(ctx, client.ObjectKeyFromObject(policy), policy)).To(Succeed())
		Expect(patch(approver, policy, func(p *v1alpha1.SidecarPolicy) { p.Spec.Template.Sidecars[0].Image = "evil:v1" })).
			To(MatchError(ContainSubstring(`a change of the spec needs the verb "update"`)))
		Expect(patch(approver, policy, approve)).To(Succeed())
		Expect(patch(approver, policy, annotate(v1alpha1.AbortAnnotation, "r"))).To(Succeed())
		Expect(approver.Delete(ctx, policy)).To(Satisfy(apierrors.IsForbidden))

		By("an editor who writes around an approval that is there")
		Expect(server.Client.Get(ctx, client.ObjectKeyFromObject(policy), policy)).To(Succeed())
		Expect(policy.Annotations).To(HaveKey(v1alpha1.ApproveAnnotation))
		Expect(patch(editor, policy, func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Paused = true })).To(Succeed())

		By("one who can do everything")
		Expect(server.Client.Get(ctx, client.ObjectKeyFromObject(policy), policy)).To(Succeed())
		Expect(patch(server.Client, policy, func(p *v1alpha1.SidecarPolicy) {
			annotate(v1alpha1.PromoteAnnotation, "r/canary")(p)
			p.Spec.Rollout.Steps = harness.AllAtOnce()
		})).To(Succeed())
	})

	It("keep templates within the limits of a cluster", func() {
		objects := inInstallation("config/policy-limits")
		DeferCleanup(func() { // what the API server forgets late would refuse the policies of other specs
			Eventually(func() error {
				return server.Client.Create(ctx, harness.Policy("after-the-limits", "x", "anywhere.example/agent:v1"), client.DryRunAll)
			}, inForce, "100ms").Should(Succeed())
		})
		apply(server.Client, objects)
		set := func(key, value string) {
			GinkgoHelper()
			limits := &corev1.ConfigMap{}
			Expect(server.Client.Get(ctx, client.ObjectKey{Namespace: "sidecar-operator-system", Name: "sidecar-operator-policy-limits"}, limits)).To(Succeed())
			limits.Data[key] = value
			Expect(server.Client.Update(ctx, limits)).To(Succeed())
		}
		dryRun := func(change func(*v1alpha1.SidecarTemplate)) error {
			policy := harness.Policy("limited", "x", "registry.example/team/agent:v1")
			change(&policy.Spec.Template)
			return server.Client.Create(ctx, policy, client.DryRunAll)
		}
		nothing := func(*v1alpha1.SidecarTemplate) {}
		volume := func(path string) func(*v1alpha1.SidecarTemplate) {
			return func(t *v1alpha1.SidecarTemplate) {
				t.Volumes = []corev1.Volume{{Name: "node", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path}}}}
			}
		}
		mounted := func(image string) func(*v1alpha1.SidecarTemplate) {
			return func(t *v1alpha1.SidecarTemplate) {
				t.Volumes = []corev1.Volume{{Name: "rules", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: image}}}}
			}
		}
		secured := func(context corev1.SecurityContext) func(*v1alpha1.SidecarTemplate) {
			return func(t *v1alpha1.SidecarTemplate) { t.Sidecars[0].SecurityContext = &context }
		}
		adds := func(capability corev1.Capability) func(*v1alpha1.SidecarTemplate) {
			return secured(corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{capability}}})
		}
		allowed := func(change func(*v1alpha1.SidecarTemplate)) {
			GinkgoHelper()
			Eventually(func() error { return dryRun(change) }, inForce, "100ms").Should(Succeed())
		}
		refused := func(change func(*v1alpha1.SidecarTemplate), words string) {
			GinkgoHelper()
			Eventually(func() error { return dryRun(change) }, inForce, "100ms").Should(MatchError(ContainSubstring(words)))
		}

		refused(volume("/var/log"), "volume node: the path /var/log of the node is not allowed here: use no hostPath")
		refused(adds("NET_ADMIN"), "adds capabilities that are not allowed here: add none")
		refused(secured(corev1.SecurityContext{Privileged: ptr.To(true)}), "is privileged, a host process, or allows privilege escalation")
		refused(secured(corev1.SecurityContext{AllowPrivilegeEscalation: ptr.To(true)}), "is privileged, a host process, or allows privilege escalation")
		hostProcess := secured(corev1.SecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{HostProcess: ptr.To(true)}})
		refused(hostProcess, "container limited is privileged, a host process, or allows")
		refused(func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}}
		}, "opens a port of the node")
		refused(func(t *v1alpha1.SidecarTemplate) {
			t.InitContainers = []v1alpha1.InitContainer{{Container: corev1.Container{Name: "rules", Image: "registry.example/team/rules:v1",
				SecurityContext: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}}}}}
		}, "container rules adds capabilities that are not allowed here: add none")
		allowed(nothing)
		allowed(secured(corev1.SecurityContext{Privileged: ptr.To(false), AllowPrivilegeEscalation: ptr.To(false)}))

		set("allowedHostPaths", "/run/agent, /var/log")
		allowed(volume("/var/log"))
		allowed(volume("/var/log/pods"))
		refused(volume("/var/logs"), "use one of /run/agent, /var/log")
		refused(volume("/var/log/../../etc"), "use one of")
		set("allowedCapabilities", "NET_ADMIN,NET_RAW")
		allowed(adds("NET_ADMIN"))
		refused(adds("SYS_ADMIN"), "add only NET_ADMIN, NET_RAW")
		set("allowPrivileged", "true")
		allowed(secured(corev1.SecurityContext{Privileged: ptr.To(true)}))
		allowed(hostProcess)
		set("allowedRegistries", "other.example/, registry.example/team/")
		allowed(nothing)
		allowed(mounted("registry.example/team/rules:v1"))
		refused(mounted("evil.example/rules:v1"), "volume rules: the image evil.example/rules:v1 comes from no registry that is allowed here: use one under other.example/, registry.example/team/")
		set("allowedRegistries", "other.example/")
		refused(nothing, "the image registry.example/team/agent:v1 comes from no registry that is allowed here: use one under other.example/")

		By("what was there before can be paused")
		for _, object := range objects {
			if object.GetKind() == "ValidatingAdmissionPolicyBinding" {
				Expect(server.Client.Delete(ctx, object)).To(Succeed())
			}
		}
		allowed(nothing)
		policy := harness.Policy("before-the-limits", "x", "registry.example/team/agent:v1")
		create(policy)
		apply(server.Client, objects)
		set("allowedRegistries", "other.example/")
		refused(nothing, "comes from no registry that is allowed here")
		Expect(patch(server.Client, policy, func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Paused = true })).To(Succeed())
	})
})

var _ = Describe("The limits for policies", func() {
	It("are read from the namespace that limits.yaml names", func() {
		folder := GinkgoT().TempDir()
		Expect(os.CopyFS(folder, os.DirFS(filepath.Join(harness.Root(), "config", "policy-limits")))).To(Succeed())
		limits, err := os.ReadFile(filepath.Join(folder, "limits.yaml"))
		Expect(err).NotTo(HaveOccurred())
		limits = bytes.ReplaceAll(limits, []byte("namespace: sidecar-operator-system"), []byte("namespace: platform-sidecars"))
		Expect(os.WriteFile(filepath.Join(folder, "limits.yaml"), limits, 0o600)).To(Succeed())
		read := ""
		for _, object := range inInstallation(folder) {
			if object.GetKind() == "ValidatingAdmissionPolicyBinding" {
				read, _, _ = unstructured.NestedString(object.Object, "spec", "paramRef", "namespace")
			}
		}
		Expect(read).To(Equal("platform-sidecars"))
	})
})

var _ = Describe("The roles for people", func() {
	It("can be aggregated into others, and only those for reading are part of built-in ones", func() {
		roles, builtIn := map[string]string{}, []string{}
		for _, object := range inInstallation("dist/install.yaml") {
			if role := object.GetLabels()["fleet.sidecar.dev/role"]; object.GetKind() == "ClusterRole" && role != "" {
				roles[object.GetName()] = role
			}
			for label := range object.GetLabels() {
				if strings.HasPrefix(label, "rbac.authorization.k8s.io/aggregate-to-") {
					builtIn = append(builtIn, object.GetName()+": "+label)
				}
			}
		}
		Expect(roles).To(Equal(map[string]string{
			"sidecar-operator-sidecarpolicy-viewer-role": "viewer", "sidecar-operator-sidecarreport-viewer-role": "viewer",
			"sidecar-operator-sidecarpolicy-editor-role": "editor", "sidecar-operator-sidecarpolicy-approver-role": "approver",
		}))
		Expect(builtIn).To(ConsistOf(
			"sidecar-operator-sidecarpolicy-viewer-role: rbac.authorization.k8s.io/aggregate-to-view",
			"sidecar-operator-sidecarreport-viewer-role: rbac.authorization.k8s.io/aggregate-to-view",
		))
	})
})

// inInstallation are the objects of a manifest or a kustomization that guard policies.
func inInstallation(path string) []*unstructured.Unstructured {
	GinkgoHelper()
	if !filepath.IsAbs(path) {
		path = filepath.Join(harness.Root(), path)
	}
	manifest, err := os.ReadFile(path)
	if err != nil { // a folder
		manifest, err = exec.CommandContext(ctx, filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), "kustomize", path).Output()
		Expect(err).NotTo(HaveOccurred())
	}
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		if errors.Is(err, io.EOF) {
			return objects
		}
		Expect(err).NotTo(HaveOccurred())
		switch object.GetKind() {
		case "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ConfigMap", "ClusterRole":
			objects = append(objects, object)
		}
	}
}

// apply applies objects until the test is over.
func apply(c client.Client, objects []*unstructured.Unstructured) {
	GinkgoHelper()
	for _, object := range objects {
		Expect(c.Apply(ctx, client.ApplyConfigurationFromUnstructured(object.DeepCopy()), client.FieldOwner("test"), client.ForceOwnership)).To(Succeed())
		DeferCleanup(func() { Expect(client.IgnoreNotFound(c.Delete(ctx, object))).To(Succeed()) })
	}
}
