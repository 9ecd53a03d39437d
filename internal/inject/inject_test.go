package inject_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden is what testdata/NAME.in.yaml holds: a pod, and the templates of the policies that it meets, in order.
type golden struct {
	Pod      corev1.Pod `json:"pod"`
	Policies []struct {
		Name     string                   `json:"name"`
		Template v1alpha1.SidecarTemplate `json:"template"`
		// Overrides are what the pod may override.
		Overrides []v1alpha1.AllowedOverride `json:"overrides"`
	} `json:"policies"`
}

func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, input := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(input), ".in.yaml"), func(t *testing.T) {
			got := renderGolden(t, input)
			output := strings.TrimSuffix(input, ".in.yaml") + ".out.yaml"
			if *update {
				if err := os.WriteFile(output, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(output)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s (-want +got), -update writes it anew:\n%s", output, diff)
			}
		})
	}
}

func renderGolden(t *testing.T, input string) []byte {
	t.Helper()
	data, err := os.ReadFile(input)
	if err != nil {
		t.Fatal(err)
	}
	var in golden
	if err := yaml.UnmarshalStrict(data, &in); err != nil {
		t.Fatal(err)
	}
	for _, policy := range in.Policies {
		r := revision.Next(nil, policy.Template)
		additions, conflicts := inject.Render(&in.Pod, policy.Name, &r, policy.Overrides...)
		if len(conflicts) > 0 {
			t.Fatalf("policy %s: %s", policy.Name, inject.Explain(conflicts))
		}
		additions.Apply(&in.Pod)
	}
	out, err := yaml.Marshal(in.Pod)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func quantities(cpu string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
}

func TestPromise1ClashingPodIsLeftAsItIs(t *testing.T) {
	app := func(change func(*corev1.Container)) *builders.PodBuilder {
		return builders.Pod("shop", "cart").With(func(p *corev1.Pod) { change(&p.Spec.Containers[0]) })
	}
	agent := builders.Template("agent", "agent:1")
	mounting := agent.Clone().Volume("logs").App(v1alpha1.AppContainer{Selector: "*",
		VolumeMounts: []corev1.VolumeMount{{Name: "logs", MountPath: "/var/log"}}})
	withEnv := agent.Clone().App(v1alpha1.AppContainer{Selector: "app", Env: []corev1.EnvVar{{Name: "LOG_DIR", Value: "/logs"}}})
	listening := func(p corev1.ContainerPort) *builders.TemplateBuilder {
		return agent.Clone().First(func(s *v1alpha1.Sidecar) { s.Ports = []corev1.ContainerPort{p} })
	}
	labelled := agent.Clone().With(func(t *v1alpha1.SidecarTemplate) {
		t.Metadata.Labels, t.Metadata.Annotations = map[string]string{"mesh": "on"}, map[string]string{"note": "a"}
	})
	asking := agent.Clone().First(func(s *v1alpha1.Sidecar) { s.Resources.Requests = quantities("200m") })
	starting := agent.Clone().With(func(t *v1alpha1.SidecarTemplate) {
		t.InitContainers = []v1alpha1.InitContainer{{Container: corev1.Container{Name: "setup", Image: "setup:1", Ports: []corev1.ContainerPort{{ContainerPort: 80}}}}}
	})
	sharing := agent.Clone().With(func(t *v1alpha1.SidecarTemplate) { t.ShareProcessNamespace = true })
	taking := func(change func(*v1alpha1.FromApp)) *builders.TemplateBuilder {
		return agent.Clone().First(func(s *v1alpha1.Sidecar) { change(&s.FromApp) })
	}
	mountsOf := func(share v1alpha1.SharedVolumeMounts) *builders.TemplateBuilder {
		return taking(func(f *v1alpha1.FromApp) { f.ShareVolumeMounts = &share })
	}
	envOf := func(env v1alpha1.AppEnv) *builders.TemplateBuilder {
		return taking(func(f *v1alpha1.FromApp) { f.EnvFromApp = []v1alpha1.AppEnv{env} })
	}
	withMount := func(m corev1.VolumeMount) *builders.PodBuilder {
		return app(func(c *corev1.Container) { c.VolumeMounts = []corev1.VolumeMount{m} }).Volume(m.Name)
	}
	twoAtOnePath := withMount(corev1.VolumeMount{Name: "a", MountPath: "/data"}).Volume("b").
		Container(corev1.Container{Name: "worker", VolumeMounts: []corev1.VolumeMount{{Name: "b", MountPath: "/data/"}}})
	diskTwice := withMount(corev1.VolumeMount{Name: "a", MountPath: "/data"}).
		Container(corev1.Container{Name: "worker", VolumeDevices: []corev1.VolumeDevice{{Name: "a", DevicePath: "/dev/a"}}})
	byExpression := withMount(corev1.VolumeMount{Name: "a", MountPath: "/data", SubPathExpr: "$(POD)"})
	byEnvFrom := byExpression.Clone().With(func(p *corev1.Pod) {
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{}}}
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "HOST", Value: "x"}}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "worker"})
	})
	sharingWith := func(sources ...v1alpha1.AppEnv) *builders.TemplateBuilder {
		return taking(func(f *v1alpha1.FromApp) { f.ShareVolumeMounts, f.EnvFromApp = &v1alpha1.SharedVolumeMounts{}, sources })
	}
	withVariables := app(func(c *corev1.Container) {
		c.Env = []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)"}, {Name: "C", Value: "$(KUBERNETES_SERVICE_HOST)"},
			{Name: "F", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{VolumeName: "v", Path: "f", Key: "F"}}}}
	})
	withEnvFrom := app(func(c *corev1.Container) {
		c.Env = []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)"}, {Name: "C", Value: "$(KUBERNETES_SERVICE_HOST)"}, {Name: "H", Value: "http://$(HOST)"}, {Name: "L", Value: "$$(HOST)"}}
		c.EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{}}}
	}).Container(corev1.Container{Name: "worker", Env: []corev1.EnvVar{{Name: "W", Value: "$(HOST)"}}})
	computing := func(request, limit v1alpha1.ResourceExpression) *builders.TemplateBuilder {
		return taking(func(f *v1alpha1.FromApp) {
			f.ResourcesFromApp = &v1alpha1.AppResources{Requests: map[corev1.ResourceName]v1alpha1.ResourceExpression{corev1.ResourceCPU: request}}
			if limit != "" {
				f.ResourcesFromApp.Limits = map[corev1.ResourceName]v1alpha1.ResourceExpression{corev1.ResourceCPU: limit}
			}
		})
	}
	capped := func(change func(*corev1.ResourceRequirements)) *builders.PodBuilder {
		return app(func(c *corev1.Container) { c.Resources.Requests = quantities("500m") }).With(func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{}
			change(p.Spec.Resources)
		})
	}
	for _, tc := range []struct {
		name     string
		pod      *builders.PodBuilder
		template *builders.TemplateBuilder
		want     []v1alpha1.Reason
	}{
		{"nothing clashes", builders.Pod("shop", "cart"), agent, nil},
		{"a container's name", builders.Pod("shop", "cart").Container(corev1.Container{Name: "agent"}), agent,
			[]v1alpha1.Reason{v1alpha1.ReasonContainerNameConflict}},
		{"an init container's name", builders.Pod("shop", "cart").InitContainer(corev1.Container{Name: "agent"}), agent,
			[]v1alpha1.Reason{v1alpha1.ReasonContainerNameConflict}},
		{"an ephemeral container's name", builders.Pod("shop", "cart").With(func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "agent"}}}
		}), agent, []v1alpha1.Reason{v1alpha1.ReasonContainerNameConflict}},
		{"a classic sidecar's name", builders.Pod("shop", "cart"), builders.Template("a", "a:1").Classic("app", "evil:1"),
			[]v1alpha1.Reason{v1alpha1.ReasonContainerNameConflict}},
		{"the name of an init container that is added", builders.Pod("shop", "cart").Container(corev1.Container{Name: "setup"}), starting,
			[]v1alpha1.Reason{v1alpha1.ReasonContainerNameConflict}},
		{"the port of an init container that is added", app(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 80}} }), starting,
			[]v1alpha1.Reason{v1alpha1.ReasonPortConflict}},
		{"processes that the pod says are not shared", builders.Pod("shop", "cart").With(func(p *corev1.Pod) {
			p.Spec.ShareProcessNamespace = ptr.To(false)
		}), sharing, []v1alpha1.Reason{v1alpha1.ReasonPodSettingsConflict}},
		{"processes that the pod shares itself", builders.Pod("shop", "cart").With(func(p *corev1.Pod) {
			p.Spec.ShareProcessNamespace = ptr.To(true)
		}), sharing, nil},
		{"processes of the host", builders.Pod("shop", "cart").With(func(p *corev1.Pod) { p.Spec.HostPID = true }), sharing,
			[]v1alpha1.Reason{v1alpha1.ReasonPodSettingsConflict}},
		{"processes on Windows", builders.Pod("shop", "cart").With(func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }), sharing,
			[]v1alpha1.Reason{v1alpha1.ReasonPodSettingsConflict}},
		{"processes that nobody asks to share", builders.Pod("shop", "cart").With(func(p *corev1.Pod) {
			p.Spec.ShareProcessNamespace = ptr.To(false)
		}), agent, nil},
		{"mounts of a container that is not there", builders.Pod("shop", "cart"), mountsOf(v1alpha1.SharedVolumeMounts{Container: "main"}),
			[]v1alpha1.Reason{v1alpha1.ReasonAppContainerMissing}},
		{"mounts of different volumes at one path", twoAtOnePath, mountsOf(v1alpha1.SharedVolumeMounts{}),
			[]v1alpha1.Reason{v1alpha1.ReasonMountPathConflict}},
		{"mounts of different volumes, one container's", twoAtOnePath, mountsOf(v1alpha1.SharedVolumeMounts{Container: "app"}), nil},
		{"mounts of different volumes, excluded", twoAtOnePath, mountsOf(v1alpha1.SharedVolumeMounts{ExcludePaths: []string{"/"}}), nil},
		{"mounts of different volumes, where the sidecar has its own", twoAtOnePath.Clone().Volume("own"), mountsOf(v1alpha1.SharedVolumeMounts{}).Mount("own", "/data"), nil},
		{"a volume mounted here and a raw device there", diskTwice, mountsOf(v1alpha1.SharedVolumeMounts{}),
			[]v1alpha1.Reason{v1alpha1.ReasonVolumeConflict}},
		{"a volume mounted here and a raw device there, read-only", diskTwice, mountsOf(v1alpha1.SharedVolumeMounts{ReadOnly: true}), nil},
		{"a mount by a variable that the sidecar lacks", byExpression, mountsOf(v1alpha1.SharedVolumeMounts{}),
			[]v1alpha1.Reason{v1alpha1.ReasonAppEnvMissing}},
		{"a mount by a variable that the sidecar has", byExpression, mountsOf(v1alpha1.SharedVolumeMounts{}).Env("POD", "cart"), nil},
		{"a mount by a variable that may be in the envFrom that the sidecar takes over", byEnvFrom, sharingWith(v1alpha1.AppEnv{EnvFrom: true}), nil},
		{"a mount by a variable that may be in an envFrom", byEnvFrom, sharingWith(), []v1alpha1.Reason{v1alpha1.ReasonAppEnvMissing}},
		{"a mount by a variable that may be in an envFrom, where another container's is taken over", byEnvFrom,
			sharingWith(v1alpha1.AppEnv{Container: "worker", EnvFrom: true}), []v1alpha1.Reason{v1alpha1.ReasonAppEnvMissing}},
		{"a mount by a variable of env, where the envFrom is taken over", byEnvFrom.Clone().With(func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts[0].SubPathExpr = "$(HOST)"
		}), sharingWith(v1alpha1.AppEnv{EnvFrom: true}), []v1alpha1.Reason{v1alpha1.ReasonAppEnvMissing}},
		{"variables of a container that is not there", builders.Pod("shop", "cart"), envOf(v1alpha1.AppEnv{Container: "main", Names: []string{"A"}}),
			[]v1alpha1.Reason{v1alpha1.ReasonAppContainerMissing}},
		{"variables of a container that is not there, optional", builders.Pod("shop", "cart"),
			envOf(v1alpha1.AppEnv{Container: "main", Names: []string{"A"}, Optional: true}), nil},
		{"a variable that is not there", withVariables, envOf(v1alpha1.AppEnv{Names: []string{"A", "X"}}), []v1alpha1.Reason{v1alpha1.ReasonAppEnvMissing}},
		{"a variable that is not there, optional", withVariables, envOf(v1alpha1.AppEnv{Names: []string{"A", "X"}, Optional: true}), nil},
		{"a variable that refers to another", withVariables, envOf(v1alpha1.AppEnv{Names: []string{"B"}, Optional: true}),
			[]v1alpha1.Reason{v1alpha1.ReasonAppEnvMissing}},
		{"a variable with the one that it refers to", withVariables, envOf(v1alpha1.AppEnv{Names: []string{"B", "A"}}), nil},
		{"a variable that refers to one of the cluster's", withVariables, envOf(v1alpha1.AppEnv{Names: []string{"C"}}), nil},
		{"a variable that refers to one of envFrom", withEnvFrom, envOf(v1alpha1.AppEnv{Names: []string{"H"}}), []v1alpha1.Reason{v1alpha1.ReasonAppEnvMissing}},
		{"a variable that refers to one of envFrom, optional", withEnvFrom, envOf(v1alpha1.AppEnv{Names: []string{"H"}, Optional: true}), []v1alpha1.Reason{v1alpha1.ReasonAppEnvMissing}},
		{"a variable with the envFrom that it refers to", withEnvFrom, envOf(v1alpha1.AppEnv{Names: []string{"H"}, EnvFrom: true}), nil},
		{"a variable with the envFrom that another entry takes over", withEnvFrom, taking(func(f *v1alpha1.FromApp) {
			f.EnvFromApp = []v1alpha1.AppEnv{{Names: []string{"H"}}, {Container: "app", EnvFrom: true}}
		}), nil},
		{"a variable with the envFrom of another container", withEnvFrom, taking(func(f *v1alpha1.FromApp) {
			f.EnvFromApp = []v1alpha1.AppEnv{{Names: []string{"H"}}, {Container: "worker", EnvFrom: true}}
		}), []v1alpha1.Reason{v1alpha1.ReasonAppEnvMissing}},
		{"variables that refer to no others, or known ones, beside envFrom", withEnvFrom, envOf(v1alpha1.AppEnv{Names: []string{"A", "B", "C", "L"}}), nil},
		{"an unknown reference of a container without envFrom", withEnvFrom, envOf(v1alpha1.AppEnv{Container: "worker", Names: []string{"W"}}), nil},
		{"a variable that a file has", withVariables, envOf(v1alpha1.AppEnv{Names: []string{"F"}}), []v1alpha1.Reason{v1alpha1.ReasonAppEnvMissing}},
		{"resources that can be computed", builders.Pod("shop", "cart"), computing("app.requests.cpu", `quantity("1")`), nil},
		{"resources that can't be computed", builders.Pod("shop", "cart"), computing("app.limits.cpu", ""), []v1alpha1.Reason{v1alpha1.ReasonResourcesConflict}},
		{"more computed than its limit", app(func(c *corev1.Container) { c.Resources.Requests = quantities("2") }),
			computing("app.requests.cpu", `quantity("1")`), []v1alpha1.Reason{v1alpha1.ReasonResourcesConflict}},
		{"computed and over the pod's own", capped(func(r *corev1.ResourceRequirements) { r.Requests = quantities("600m") }), computing("app.requests.cpu", ""),
			[]v1alpha1.Reason{v1alpha1.ReasonPodResourcesConflict}},
		{"a volume", builders.Pod("shop", "cart").Volume("logs"), mounting, []v1alpha1.Reason{v1alpha1.ReasonVolumeConflict}},
		{"a mount of a volume that is nowhere", builders.Pod("shop", "cart"), agent.Clone().Mount("logs", "/logs"),
			[]v1alpha1.Reason{v1alpha1.ReasonVolumeMissing}},
		{"a mount of the pod's own volume", builders.Pod("shop", "cart").Volume("logs"), agent.Clone().Mount("logs", "/logs"), nil},
		{"a device of a volume that is nowhere", builders.Pod("shop", "cart"), agent.Clone().First(func(s *v1alpha1.Sidecar) {
			s.VolumeDevices = []corev1.VolumeDevice{{Name: "disk", DevicePath: "/dev/x"}}
		}), []v1alpha1.Reason{v1alpha1.ReasonVolumeMissing}},
		{"an app's mount of a volume that is nowhere", builders.Pod("shop", "cart"), agent.Clone().App(v1alpha1.AppContainer{Selector: "*",
			VolumeMounts: []corev1.VolumeMount{{Name: "logs", MountPath: "/logs"}}}), []v1alpha1.Reason{v1alpha1.ReasonVolumeMissing}},
		{"a mount path", app(func(c *corev1.Container) { c.VolumeMounts = []corev1.VolumeMount{{Name: "own", MountPath: "/var/log"}} }),
			mounting, []v1alpha1.Reason{v1alpha1.ReasonMountPathConflict}},
		{"a mount path in other words", app(func(c *corev1.Container) {
			c.VolumeMounts = []corev1.VolumeMount{{Name: "own", MountPath: "/var//log/"}}
		}),
			mounting, []v1alpha1.Reason{v1alpha1.ReasonMountPathConflict}},
		{"a device at the path", app(func(c *corev1.Container) {
			c.VolumeDevices = []corev1.VolumeDevice{{Name: "own", DevicePath: "/var/log"}}
		}),
			mounting, []v1alpha1.Reason{v1alpha1.ReasonMountPathConflict}},
		{"a mount below it", app(func(c *corev1.Container) {
			c.VolumeMounts = []corev1.VolumeMount{{Name: "own", MountPath: "/var/log/own"}}
		}), mounting, nil},
		{"two entries for one container and path", builders.Pod("shop", "cart"), mounting.Clone().App(v1alpha1.AppContainer{Selector: "app",
			VolumeMounts: []corev1.VolumeMount{{Name: "logs", MountPath: "/var/log"}}}), []v1alpha1.Reason{v1alpha1.ReasonMountPathConflict}},
		{"a variable", app(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{Name: "LOG_DIR"}} }), withEnv,
			[]v1alpha1.Reason{v1alpha1.ReasonEnvConflict}},
		{"a variable of a container that is not meant", builders.Pod("shop", "cart").Container(corev1.Container{Name: "other",
			Env: []corev1.EnvVar{{Name: "LOG_DIR"}}}), withEnv, nil},
		{"a port", app(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 80}} }),
			listening(corev1.ContainerPort{ContainerPort: 80}), []v1alpha1.Reason{v1alpha1.ReasonPortConflict}},
		{"a port, TCP said and unsaid", app(func(c *corev1.Container) {
			c.Ports = []corev1.ContainerPort{{ContainerPort: 80, Protocol: corev1.ProtocolTCP}}
		}),
			listening(corev1.ContainerPort{ContainerPort: 80}), []v1alpha1.Reason{v1alpha1.ReasonPortConflict}},
		{"a port of another protocol", app(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 80}} }),
			listening(corev1.ContainerPort{ContainerPort: 80, Protocol: corev1.ProtocolUDP}), nil},
		{"a port of the host that is another one's in the pod", app(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080}} }),
			listening(corev1.ContainerPort{ContainerPort: 8080}), nil},
		{"a port in the pod that is another one's of the host", app(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 8080}} }),
			listening(corev1.ContainerPort{ContainerPort: 80, HostPort: 8080}), nil},
		{"a host port of another protocol", app(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080}} }),
			listening(corev1.ContainerPort{ContainerPort: 81, HostPort: 8080, Protocol: corev1.ProtocolUDP}), nil},
		{"a host port at another address", app(func(c *corev1.Container) {
			c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080, HostIP: "127.0.0.1"}}
		}),
			listening(corev1.ContainerPort{ContainerPort: 81, HostPort: 8080, HostIP: "10.0.0.1"}), nil},
		{"a host port at one address and at all of them", app(func(c *corev1.Container) {
			c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080, HostIP: "127.0.0.1"}}
		}),
			listening(corev1.ContainerPort{ContainerPort: 81, HostPort: 8080, HostIP: "0.0.0.0"}), []v1alpha1.Reason{v1alpha1.ReasonPortConflict}},
		{"a port on the host's network", app(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 8080, HostPort: 8080}} }).
			With(func(p *corev1.Pod) { p.Spec.HostNetwork = true }),
			listening(corev1.ContainerPort{ContainerPort: 8080, HostPort: 8080}), []v1alpha1.Reason{v1alpha1.ReasonPortConflict}},
		{"a host port", app(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080}} }),
			listening(corev1.ContainerPort{ContainerPort: 81, HostPort: 8080}), []v1alpha1.Reason{v1alpha1.ReasonPortConflict}},
		{"a port of a native sidecar of the pod's own", builders.Pod("shop", "cart").InitContainer(corev1.Container{Name: "own",
			RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways), Ports: []corev1.ContainerPort{{ContainerPort: 80}}}),
			listening(corev1.ContainerPort{ContainerPort: 80}), []v1alpha1.Reason{v1alpha1.ReasonPortConflict}},
		{"a label and an annotation", builders.Pod("shop", "cart").Label("mesh", "off").Annotation("note", "b"), labelled,
			[]v1alpha1.Reason{v1alpha1.ReasonMetadataConflict, v1alpha1.ReasonMetadataConflict}},
		{"a label of the same value", builders.Pod("shop", "cart").Label("mesh", "on"), labelled, nil},
		{"pod-level requests", capped(func(r *corev1.ResourceRequirements) { r.Requests = quantities("600m") }), asking,
			[]v1alpha1.Reason{v1alpha1.ReasonPodResourcesConflict}},
		{"pod-level requests with room", capped(func(r *corev1.ResourceRequirements) { r.Requests = quantities("700m") }), asking, nil},
		{"pod-level requests, a sidecar that asks for nothing", capped(func(r *corev1.ResourceRequirements) { r.Requests = quantities("500m") }), agent, nil},
		{"pod-level limits", capped(func(r *corev1.ResourceRequirements) { r.Limits = quantities("600m") }),
			agent.Clone().First(func(s *v1alpha1.Sidecar) { s.Resources.Limits = quantities("700m") }),
			[]v1alpha1.Reason{v1alpha1.ReasonPodResourcesConflict}},
		{"everything at once, in a fixed order", builders.Pod("shop", "cart").Volume("logs").Container(corev1.Container{Name: "agent"}), mounting,
			[]v1alpha1.Reason{v1alpha1.ReasonContainerNameConflict, v1alpha1.ReasonVolumeConflict}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pod := tc.pod.Obj()
			before := pod.DeepCopy()
			additions, conflicts := inject.Render(pod, "logs", tc.template.Revision(1))
			var got []v1alpha1.Reason
			for _, c := range conflicts {
				got = append(got, c.Reason)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("conflicts (-want +got):\n%s\n%s", diff, inject.Explain(conflicts))
			}
			if diff := cmp.Diff(before, pod); diff != "" {
				t.Errorf("Render() changed the pod:\n%s", diff)
			}
			if len(conflicts) == 0 {
				return
			}
			if diff := cmp.Diff(inject.Additions{}, additions); diff != "" {
				t.Errorf("a pod that clashes gets something:\n%s", diff)
			}
			if ops := additions.Patch(pod); len(ops) > 0 {
				t.Errorf("a pod that clashes is patched: %v", ops)
			}
		})
	}
}

func TestInjectedNeedsTheRecordAndTheContainers(t *testing.T) {
	r := builders.Template("agent", "agent:1").Revision(1)
	whole := builders.Pod("shop", "cart").Injected("logs", r)
	for _, tc := range []struct {
		name string
		pod  *builders.PodBuilder
		want bool
	}{
		{"injected", whole, true},
		{"never", builders.Pod("shop", "cart"), false},
		{"by another policy", builders.Pod("shop", "cart").Injected("mesh", r), false},
		{"the label is gone: no reason to inject twice", whole.Clone().With(func(p *corev1.Pod) { p.Labels = nil }), true},
		{"the record is gone", whole.Clone().With(func(p *corev1.Pod) { p.Annotations = nil }), false},
		{"the record can't be read", whole.Clone().Annotation(v1alpha1.InjectedAnnotation("logs"), "{"), false},
		{"the container is gone", whole.Clone().With(func(p *corev1.Pod) { p.Spec.InitContainers = nil }), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := inject.Injected(tc.pod.Obj(), "logs"); got != tc.want {
				t.Errorf("Injected() = %t, want %t", got, tc.want)
			}
		})
	}
}
