//go:build e2e

package e2e

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/prefetch"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// What a kubelet says about prefetch pods, and what internal/prefetch reads out of it.
var _ = Describe("A prefetch pod", Ordered, ContinueOnFailure, func() {
	const namespace, poor = "prefetch", "prefetch-poor"
	var (
		policy  *v1alpha1.SidecarPolicy
		idle    string
		private *httptest.Server
	)

	BeforeAll(func() {
		idle = image(operatorImage)
		// The prefetch pods have an owner. The manager, which wants none of them, is away meanwhile.
		manager.Stop()
		DeferCleanup(startManager)
		policy = harness.Policy(namespace, "no-such-fleet", image("agent:v1"))
		Expect(c.Create(ctx, policy)).To(Succeed())
		DeferCleanup(func() { Expect(c.Delete(ctx, policy)).To(Succeed()) })
		for _, name := range []string{namespace, poor} {
			newStrictNamespace(name)
		}
		private = servePrivately("user", "secret")
		DeferCleanup(private.Close)
		createPullSecret(namespace, "wrong", strings.TrimPrefix(private.URL, "http://"), "user", "guess")
	})

	// ask sends the prefetch pod for an image of a pod, and returns it together with what it said in the end.
	ask := func(app *corev1.Pod, ref string, change func(*prefetch.Input), wanted ...prefetch.Presence) (*corev1.Pod, string) {
		GinkgoHelper()
		in := prefetch.Input{
			Owner:    *metav1.NewControllerRef(policy, v1alpha1.GroupVersion.WithKind("SidecarPolicy")),
			Revision: "rev", IdleImage: idle, ServerVersion: serverVersion(), Nodes: nodes(), Deadline: time.Hour,
		}
		if change != nil {
			change(&in)
		}
		want := prefetch.Want{Pod: app, Images: prefetch.Images(app, map[string]string{harness.AppContainer: ref})}
		in.Now = time.Now()
		plan := prefetch.NewView(in).Plan([]prefetch.Want{want})
		Expect(plan.Create).To(HaveLen(1))
		pod := plan.Create[0]
		Expect(c.Create(ctx, pod)).To(Succeed())
		DeferCleanup(func() { Expect(client.IgnoreNotFound(c.Delete(ctx, pod))).To(Succeed()) })
		began := time.Now()
		var message string
		Eventually(func() (prefetch.Presence, error) {
			if err := c.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
				return "", err
			}
			in.Prefetches, in.Now = []*corev1.Pod{pod}, time.Now()
			var presence prefetch.Presence
			presence, message = prefetch.NewView(in).Presence(app, want.Images)
			return presence, nil
		}, settleTimeout, "100ms").Should(BeElementOf(wanted), func() string { return message + "\n" + pod.Status.String() })
		AddReportEntry(ref, fmt.Sprintf("%s after %s\nphase %s, statuses %+v", message, time.Since(began).Round(100*time.Millisecond), pod.Status.Phase, pod.Status.ContainerStatuses), ReportEntryVisibilityFailureOrVerbose)
		return pod, message
	}

	It("brings an image onto the node, in a namespace with quota and Pod Security, and starts nothing of it", func() {
		push("prefetch:good", "--port=9000")
		pod, _ := ask(newApp(namespace, "good"), image("prefetch:good"), nil, prefetch.Present)
		Eventually(func() (corev1.PodPhase, error) {
			err := c.Get(ctx, client.ObjectKeyFromObject(pod), pod)
			return pod.Status.Phase, err
		}, settleTimeout, "100ms").Should(Equal(corev1.PodSucceeded))
		expectStarts(newApp(namespace, "uses-it", func(p *corev1.Pod) {
			p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = image("prefetch:good"), corev1.PullNever
		}))
	})

	DescribeTable("says in the registry's words what can't be had",
		func(name, ref string, app func(*corev1.Pod), words string) {
			ref = strings.NewReplacer("REGISTRY", node.Registry(), "PRIVATE", strings.TrimPrefix(private.URL, "http://")).Replace(ref)
			_, message := ask(newApp(namespace, name, app), ref, nil, prefetch.Failed)
			Expect(message).To(ContainSubstring(words))
		},
		Entry("a tag that is not there", "tag", "REGISTRY/agent:none", unchanged, "not found"),
		Entry("a repository that is not there", "repository", "REGISTRY/none:v1", unchanged, "not found"),
		Entry("a digest that is not there", "digest", "REGISTRY/agent@sha256:"+strings.Repeat("0", 64), unchanged, "not found"),
		Entry("no reference", "invalid", "REGISTRY/Agent:v1", unchanged, "must be lowercase"),
		Entry("an image that may not be pulled", "never", "REGISTRY/agent:never-pulled", func(p *corev1.Pod) {
			p.Spec.Containers[0].ImagePullPolicy = corev1.PullNever
		}, "pull policy of Never"),
		Entry("no credentials", "anonymous", "PRIVATE/agent:v1", unchanged, "pull access denied"),
		Entry("a secret that is not there", "missing-secret", "PRIVATE/agent:v1", withSecret("none"), "pull secrets of the pod: none"),
		Entry("a secret with a wrong password", "wrong-password", "PRIVATE/agent:v1", withSecret("wrong"), "pull secrets of the pod: wrong"),
	)

	It("says when the image is not for the node's platform", func() {
		pushForAnotherPlatform("prefetch:riscv")
		_, message := ask(newApp(namespace, "platform"), image("prefetch:riscv"), nil, prefetch.Failed)
		Expect(message).To(And(ContainSubstring("no match for platform"), ContainSubstring("prefetch:riscv")))
	})

	// Only an index says what its images are for before they run: an image alone is pulled as it is.
	It("can't say that of an image without an index", func() {
		pushAlienImage("prefetch:alien")
		ask(newApp(namespace, "alien"), image("prefetch:alien"), nil, prefetch.Present)
	})

	It("waits where trouble may pass, until the deadline", func() {
		app := newApp(namespace, "unreachable")
		pod, _ := ask(app, "127.0.0.1:1/agent:v1", nil, prefetch.Absent)
		Eventually(func() (string, error) {
			err := c.Get(ctx, client.ObjectKeyFromObject(pod), pod)
			if err != nil || len(pod.Status.ContainerStatuses) == 0 || pod.Status.ContainerStatuses[0].State.Waiting == nil {
				return "", err
			}
			return pod.Status.ContainerStatuses[0].State.Waiting.Message, nil
		}, settleTimeout, "100ms").Should(ContainSubstring("connection refused"))
		AddReportEntry("unreachable", fmt.Sprintf("%+v", pod.Status.ContainerStatuses), ReportEntryVisibilityFailureOrVerbose)
		in := prefetch.Input{Owner: metav1.OwnerReference{Name: policy.Name}, Revision: "rev", IdleImage: idle, ServerVersion: serverVersion(),
			Nodes: nodes(), Prefetches: []*corev1.Pod{pod}, Deadline: time.Hour, Now: time.Now()}
		wanted := prefetch.Images(app, map[string]string{harness.AppContainer: "127.0.0.1:1/agent:v1"})
		presence, message := prefetch.NewView(in).Presence(app, wanted)
		Expect(presence).To(Equal(prefetch.Absent), message)
		in.Now = in.Now.Add(time.Hour)
		presence, message = prefetch.NewView(in).Presence(app, wanted)
		Expect(presence).To(Equal(prefetch.Failed))
		Expect(message).To(ContainSubstring("connection refused"))
	})

	It("has done its work even where the operator's own image can't be pulled", func() {
		push("prefetch:no-idle", "--port=9000")
		ask(newApp(namespace, "no-idle"), image("prefetch:no-idle"), func(in *prefetch.Input) { in.IdleImage = image("sidecar-operator:none") }, prefetch.Present)
		expectStarts(newApp(namespace, "uses-no-idle", func(p *corev1.Pod) {
			p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = image("prefetch:no-idle"), corev1.PullNever
		}))
	})

	It("pulls with the secrets of the app's pod, and speaks for no other pod", func() {
		host := strings.TrimPrefix(private.URL, "http://")
		push("prefetch:private", "--port=9000")
		ref := host + "/prefetch:private"
		createPullSecret(namespace, "registry", host, "user", "secret")
		ask(newApp(namespace, "private", withSecret("registry")), ref, nil, prefetch.Present)
		expectStarts(newApp(namespace, "uses-private", withSecret("registry"), func(p *corev1.Pod) {
			p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = ref, corev1.PullNever
		}))

		By("asking without the secret, on the node that has the image")
		_, message := ask(newApp(poor, "poor"), ref, nil, prefetch.Failed)
		Expect(message).To(ContainSubstring("pull access denied"))
		stuck := newApp(poor, "stuck", func(p *corev1.Pod) { p.Spec.Containers[0].Image = ref })
		Eventually(func() (string, error) {
			err := c.Get(ctx, client.ObjectKeyFromObject(stuck), stuck)
			if err != nil || len(stuck.Status.ContainerStatuses) == 0 || stuck.Status.ContainerStatuses[0].State.Waiting == nil {
				return "", err
			}
			return stuck.Status.ContainerStatuses[0].State.Waiting.Reason, nil
		}, settleTimeout, "100ms").Should(BeElementOf("ErrImagePull", "ImagePullBackOff"))
	})
})

func unchanged(*corev1.Pod) {}

func withSecret(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: name}} }
}

// newStrictNamespace wants of every pod what a cautious cluster wants.
func newStrictNamespace(name string) {
	GinkgoHelper()
	ns := &corev1.Namespace{}
	ns.Name, ns.Labels = name, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}
	Expect(c.Create(ctx, ns)).To(Succeed())
	DeferCleanup(func() { Expect(client.IgnoreNotFound(c.Delete(ctx, ns))).To(Succeed()) })
	quota := &corev1.ResourceQuota{}
	quota.Namespace, quota.Name = name, "strict"
	quota.Spec.Hard = corev1.ResourceList{}
	for _, key := range []corev1.ResourceName{"requests.cpu", "requests.memory", "limits.cpu", "limits.memory"} {
		quota.Spec.Hard[key] = resource.MustParse("64Gi")
	}
	Expect(c.Create(ctx, quota)).To(Succeed())
	Eventually(func() (corev1.ResourceList, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(quota), quota)
		return quota.Status.Hard, err
	}, settleTimeout, "100ms").ShouldNot(BeEmpty())
	Eventually(func() error {
		return c.Get(ctx, client.ObjectKey{Namespace: name, Name: "default"}, &corev1.ServiceAccount{})
	}, settleTimeout, "100ms").Should(Succeed())
}

// newApp creates a pod on the node that a strict namespace lets in.
func newApp(namespace, name string, changes ...func(*corev1.Pod)) *corev1.Pod {
	GinkgoHelper()
	little := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi")}
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name = namespace, "app-"+name
	pod.Spec = corev1.PodSpec{
		NodeName:                      nodes()[0].Name,
		TerminationGracePeriodSeconds: ptr.To[int64](0),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: ptr.To(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{{
			Name: harness.AppContainer, Image: image("app:v1"), ImagePullPolicy: corev1.PullIfNotPresent,
			Resources: corev1.ResourceRequirements{Requests: little, Limits: little},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		}},
	}
	for _, change := range changes {
		change(pod)
	}
	Expect(c.Create(ctx, pod)).To(Succeed())
	DeferCleanup(func() { Expect(client.IgnoreNotFound(c.Delete(ctx, pod))).To(Succeed()) })
	return pod
}

func expectStarts(pod *corev1.Pod) {
	GinkgoHelper()
	Eventually(func() (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(pod), pod)
		return harness.Ready(pod), err
	}, settleTimeout, "100ms").Should(BeTrue(), func() string { return pod.Status.String() })
}

func nodes() []*corev1.Node {
	GinkgoHelper()
	list := &corev1.NodeList{}
	Expect(c.List(ctx, list)).To(Succeed())
	all := make([]*corev1.Node, len(list.Items))
	for i := range list.Items {
		all[i] = &list.Items[i]
	}
	return all
}

func serverVersion() string {
	GinkgoHelper()
	d, err := discovery.NewDiscoveryClientForConfig(node.Config())
	Expect(err).NotTo(HaveOccurred())
	version, err := d.ServerVersion()
	Expect(err).NotTo(HaveOccurred())
	return version.GitVersion
}

// servePrivately puts a password before the node's registry.
func servePrivately(user, password string) *httptest.Server {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: node.Registry()})
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
}

func createPullSecret(namespace, name, host, user, password string) {
	GinkgoHelper()
	secret := &corev1.Secret{}
	secret.Namespace, secret.Name, secret.Type = namespace, name, corev1.SecretTypeDockerConfigJson
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	secret.StringData = map[string]string{corev1.DockerConfigJsonKey: fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth)}
	Expect(c.Create(ctx, secret)).To(Succeed())
}

// pushAlienImage pushes an image that says it is not for this node.
func pushAlienImage(ref string) {
	GinkgoHelper()
	tag, err := name.ParseReference(image(ref))
	Expect(err).NotTo(HaveOccurred())
	alien, err := random.Image(64, 1)
	Expect(err).NotTo(HaveOccurred())
	config, err := alien.ConfigFile()
	Expect(err).NotTo(HaveOccurred())
	config.OS, config.Architecture = "linux", "riscv64"
	alien, err = mutate.ConfigFile(alien, config)
	Expect(err).NotTo(HaveOccurred())
	Expect(remote.Write(tag, alien)).To(Succeed())
}

// pushForAnotherPlatform pushes an index without an image for this node.
func pushForAnotherPlatform(ref string) {
	GinkgoHelper()
	tag, err := name.ParseReference(image(ref))
	Expect(err).NotTo(HaveOccurred())
	layers, err := random.Image(64, 1)
	Expect(err).NotTo(HaveOccurred())
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: layers,
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "riscv64"}}})
	Expect(remote.WriteIndex(tag, index)).To(Succeed())
}
