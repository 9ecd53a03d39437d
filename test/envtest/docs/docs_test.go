// Package docs holds what the documentation and the samples say to a real API server: who copies
// something from there must not be told that it is wrong.
package docs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/test/envtest/apiserver"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var (
	ctx    = context.Background()
	server *apiserver.Server
)

func TestDocs(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "The documentation")
}

var _ = BeforeSuite(func() {
	var err error
	server, err = apiserver.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(server.Stop()).To(Succeed()) })
	_, err = envtest.InstallCRDs(server.Config, envtest.CRDInstallOptions{Paths: []string{olmCRDs()}, ErrorIfPathMissing: true})
	Expect(err).NotTo(HaveOccurred())
})

// olmCRDs is the folder with OLM's kinds, in the module that the bundle is made with.
func olmCRDs() string {
	GinkgoHelper()
	const module = "github.com/operator-framework/api"
	bundle := filepath.Join(harness.Root(), "hack", "bundle")
	out, err := exec.CommandContext(ctx, "go", "-C", bundle, "mod", "download", "-json", module).Output()
	Expect(err).NotTo(HaveOccurred(), string(out))
	var downloaded struct{ Dir string }
	Expect(json.Unmarshal(out, &downloaded)).To(Succeed())
	return filepath.Join(downloaded.Dir, "crds")
}

var _ = Describe("YAML", func() {
	It("of the pages is taken by the API server", func() {
		objects, parts := 0, 0
		for _, p := range pages() {
			var last *v1alpha1.SidecarPolicy
			for _, text := range p.of("yaml") {
				for _, object := range decode(text) {
					switch {
					case object.GetKind() != "":
						tryOut(p.name, object)
						objects++
					case object.Object["metadata"] != nil:
						tryOverride(p.name, object, last)
						parts++
					default:
						last = tryPart(p.name, object)
						parts++
					}
				}
			}
		}
		Expect(objects).To(BeNumerically(">=", 10), "YAML blocks with an object found in the pages")
		Expect(parts).To(BeNumerically(">=", 15), "YAML blocks with a part of a policy found in the pages")
	})

	It("of the samples is taken by the API server", func() {
		samples, err := filepath.Glob(filepath.Join(harness.Root(), "config", "samples", "*.yaml"))
		Expect(err).NotTo(HaveOccurred())
		listed, err := os.ReadFile(filepath.Join(harness.Root(), "config", "samples", "kustomization.yaml"))
		Expect(err).NotTo(HaveOccurred())
		tried := 0
		for _, path := range samples {
			if filepath.Base(path) == "kustomization.yaml" {
				continue
			}
			text, err := os.ReadFile(path)
			Expect(err).NotTo(HaveOccurred())
			Expect(string(listed)).To(ContainSubstring("- "+filepath.Base(path)+"\n"), "the kustomization of the samples")
			for _, object := range decode(string(text)) {
				tried++
				tryOut(path, object)
				tryPod(path, object)
			}
		}
		Expect(tried).To(BeNumerically(">=", 2))
	})
})

var _ = It("takes the examples that the bundle has beside the samples", func() {
	paths, err := filepath.Glob(filepath.Join(harness.Root(), "config", "manifests", "examples", "*.yaml"))
	Expect(err).NotTo(HaveOccurred())
	Expect(paths).NotTo(BeEmpty())
	for _, path := range paths {
		text, err := os.ReadFile(path)
		Expect(err).NotTo(HaveOccurred())
		for _, object := range decode(string(text)) {
			tryOut(path, object)
		}
	}
})

// tryOut creates an object as a dry run, in a namespace that is there. A field that is not known is an error.
func tryOut(path string, object *unstructured.Unstructured) {
	GinkgoHelper()
	if name := object.GetNamespace(); name != "" {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		Expect(client.IgnoreAlreadyExists(server.Client.Create(ctx, namespace))).To(Succeed())
	}
	err := server.Client.Create(ctx, object, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict))
	if object.GetKind() == "Namespace" {
		err = client.IgnoreAlreadyExists(err)
	}
	Expect(err).NotTo(HaveOccurred(), "%s: %s %s", path, object.GetKind(), object.GetName())
}

// tryPart completes a part of a policy, which begins at the spec or at a field of it, and creates the policy as a dry run.
func tryPart(path string, part *unstructured.Unstructured) *v1alpha1.SidecarPolicy {
	GinkgoHelper()
	whole, err := runtime.DefaultUnstructuredConverter.ToUnstructured(harness.Policy("log-agent", "x", "agent:v1"))
	Expect(err).NotTo(HaveOccurred())
	delete(whole, "status")
	fields := part.Object
	if spec, ok := fields["spec"].(map[string]any); ok {
		Expect(fields).To(HaveLen(1), "%s: a part begins at the spec, or at fields of it", path)
		fields = spec
	}
	maps.Copy(whole["spec"].(map[string]any), fields)
	object := &unstructured.Unstructured{Object: whole}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("SidecarPolicy"))
	tryOut(path+": "+strings.Join(slices.Sorted(maps.Keys(fields)), ", "), object)
	policy := &v1alpha1.SidecarPolicy{}
	Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, policy)).To(Succeed(), path)
	return policy
}

// tryOverride gives a pod the metadata of a page, which override what the policy before it in the page lets be overridden.
func tryOverride(path string, part *unstructured.Unstructured, policy *v1alpha1.SidecarPolicy) {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(part.Object, pod)).To(Succeed(), path)
	Expect(pod.Annotations).To(HaveKey(v1alpha1.OverrideAnnotation(policy.Name)), path)
	pod.Spec.Containers = []corev1.Container{{Name: "app", Image: "app:v1"}}
	r := revision.Next(nil, policy.Spec.Template)
	additions, conflicts := inject.Render(pod, policy.Name, &r, policy.Spec.Injection.Overrides...)
	Expect(append(conflicts, additions.Ignored...)).To(BeEmpty(), path)
}

// tryPod creates a pod with the sidecars of a policy as a dry run: the schema of policies does not know all that
// a pod can't have, like a mount of a volume that is not there.
func tryPod(path string, object *unstructured.Unstructured) {
	GinkgoHelper()
	if object.GetKind() != "SidecarPolicy" {
		return
	}
	policy := &v1alpha1.SidecarPolicy{}
	Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, policy)).To(Succeed(), path)
	// An API server gives pods a service account where it has the admission plugin for that.
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "sample"}, Spec: corev1.PodSpec{
		ServiceAccountName: "default", Containers: []corev1.Container{{Name: "app", Image: "app:v1"}},
	}}
	r := revision.Next(nil, policy.Spec.Template)
	additions, conflicts := inject.Render(pod, policy.Name, &r)
	Expect(conflicts).To(BeEmpty(), path)
	additions.Apply(pod)
	Expect(server.Client.Create(ctx, pod, client.DryRunAll)).To(Succeed(), path)
}

// decode reads documents of YAML. A key that is there twice is an error.
func decode(text string) []*unstructured.Unstructured {
	GinkgoHelper()
	var objects []*unstructured.Unstructured
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		Expect(err).NotTo(HaveOccurred(), text)
		object := &unstructured.Unstructured{}
		data, err := yaml.YAMLToJSONStrict(document)
		Expect(err).NotTo(HaveOccurred(), text)
		Expect(utiljson.Unmarshal(data, &object.Object)).To(Succeed(), text)
		objects = append(objects, object)
	}
}

// command is a kubectl command in a table.
var command = regexp.MustCompile("(?m)^\\|[^|\n]*\\| `(kubectl [^`]*)` \\|")

var _ = Describe("The table of how to steer a roll-out", func() {
	It("has commands that work", func() {
		page, err := os.ReadFile(filepath.Join(harness.Root(), "docs", "guides", "rolling-out.md"))
		Expect(err).NotTo(HaveOccurred())
		policy := harness.Policy("log-agent", "x", "agent:v1")
		Expect(server.Client.Create(ctx, policy)).To(Succeed())
		DeferCleanup(func() { Expect(server.Client.Delete(ctx, policy)).To(Succeed()) })
		kubeconfig := writeKubeconfig()

		_, table, found := strings.Cut(string(page), "\n## Steering by hand\n")
		Expect(found).To(BeTrue())
		commands := command.FindAllStringSubmatch(table, -1)
		Expect(commands).To(HaveLen(9))
		for _, match := range commands {
			shell := exec.CommandContext(ctx, "bash", "-euc", strings.NewReplacer("REVISION", "abcdefgh", "STEP", "canary").Replace(match[1]))
			shell.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+os.Getenv("KUBEBUILDER_ASSETS")+":"+os.Getenv("PATH"))
			out, err := shell.CombinedOutput()
			Expect(err).NotTo(HaveOccurred(), "%s: %s", match[1], out)
		}

		Expect(server.Client.Get(ctx, client.ObjectKeyFromObject(policy), policy)).To(Succeed())
		Expect(policy.Annotations).To(And(
			HaveKeyWithValue(v1alpha1.ApproveAnnotation, "abcdefgh/canary"),
			HaveKeyWithValue(v1alpha1.PromoteAnnotation, "abcdefgh/canary"),
			HaveKeyWithValue(v1alpha1.AbortAnnotation, "abcdefgh"),
			HaveKeyWithValue(v1alpha1.RetryAnnotation, "abcdefgh/2"),
		))
		Expect(policy.Spec.Rollout.Paused).To(BeFalse(), "resumed after it was paused")
		Expect(policy.Spec.Rollout.Revision).To(BeEmpty(), "the template again after an undo")
	})
})

// writeKubeconfig writes a kubeconfig of an administrator.
func writeKubeconfig() string {
	GinkgoHelper()
	c := rest.CopyConfig(server.Config)
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: c.Host, CertificateAuthorityData: c.CAData}
	config.AuthInfos["test"] = &clientcmdapi.AuthInfo{ClientCertificateData: c.CertData, ClientKeyData: c.KeyData}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	config.CurrentContext = "test"
	path := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(clientcmd.WriteToFile(*config, path)).To(Succeed())
	return path
}
