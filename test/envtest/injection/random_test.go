package injection

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// The generators draw from few names, paths and ports, so that pods and templates meet.
// What they make need not be valid: the API server says what is.

func oneOf[T any](values ...T) *rapid.Generator[T] { return rapid.SampledFrom(values) }

func maybe[T any](g *rapid.Generator[T]) *rapid.Generator[*T] {
	return rapid.Custom(func(t *rapid.T) *T {
		if rapid.IntRange(0, 3).Draw(t, "present") > 0 {
			return nil
		}
		return ptr.To(g.Draw(t, "value"))
	})
}

// named draws up to a number of items with names that differ.
func named[T any](most int, names []string, g func(t *rapid.T, name string) T) *rapid.Generator[[]T] {
	return rapid.Custom(func(t *rapid.T) []T {
		var items []T
		for _, name := range rapid.SliceOfNDistinct(oneOf(names...), 0, most, rapid.ID).Draw(t, "names") {
			items = append(items, g(t, name))
		}
		return items
	})
}

func mounts(volumes []string) *rapid.Generator[[]corev1.VolumeMount] {
	return named(2, []string{"/logs", "/var/log", "/etc/conf", "/data/", "/cache", "/run/agent", "/logs/deep", "/data/deep/er"}, func(t *rapid.T, path string) corev1.VolumeMount {
		m := corev1.VolumeMount{Name: oneOf(volumes...).Draw(t, "volume"), MountPath: path, ReadOnly: rapid.Bool().Draw(t, "readOnly")}
		m.MountPropagation = maybe(oneOf(corev1.MountPropagationNone, corev1.MountPropagationHostToContainer, corev1.MountPropagationBidirectional)).Draw(t, "propagation")
		m.SubPath = ptr.Deref(maybe(oneOf("part")).Draw(t, "subPath"), "")
		if m.ReadOnly {
			m.RecursiveReadOnly = maybe(oneOf(corev1.RecursiveReadOnlyIfPossible, corev1.RecursiveReadOnlyDisabled)).Draw(t, "recursive")
		}
		return m
	})
}

func env() *rapid.Generator[[]corev1.EnvVar] {
	return named(2, []string{"A", "B", "C", "D", "E", "F", "G", "H", "I", "J"}, func(_ *rapid.T, name string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, Value: "x"}
	})
}

func ports() *rapid.Generator[[]corev1.ContainerPort] {
	return named(1, []string{"http", "metrics"}, func(t *rapid.T, name string) corev1.ContainerPort {
		port := corev1.ContainerPort{Name: name, ContainerPort: int32(rapid.IntRange(8080, 8089).Draw(t, "port"))}
		port.Protocol = oneOf[corev1.Protocol]("", corev1.ProtocolTCP, corev1.ProtocolUDP).Draw(t, "protocol")
		port.HostPort = ptr.Deref(maybe(rapid.Int32Range(8080, 8089)).Draw(t, "hostPort"), 0)
		port.HostIP = oneOf("", "", "0.0.0.0", "10.0.0.1", "127.0.0.1").Draw(t, "hostIP")
		return port
	})
}

func quantities() *rapid.Generator[corev1.ResourceList] {
	return rapid.Custom(func(t *rapid.T) corev1.ResourceList {
		list := corev1.ResourceList{}
		if cpu := maybe(oneOf("10m", "50m", "100m", "1")).Draw(t, "cpu"); cpu != nil {
			list[corev1.ResourceCPU] = resource.MustParse(*cpu)
		}
		if memory := maybe(oneOf("16Mi", "64Mi", "1Gi")).Draw(t, "memory"); memory != nil {
			list[corev1.ResourceMemory] = resource.MustParse(*memory)
		}
		return list
	})
}

func securityContexts() *rapid.Generator[corev1.SecurityContext] {
	return rapid.Custom(func(t *rapid.T) corev1.SecurityContext {
		return *oneOf(
			&corev1.SecurityContext{RunAsUser: ptr.To[int64](65532), RunAsNonRoot: ptr.To(true)},
			&corev1.SecurityContext{AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			&corev1.SecurityContext{Privileged: ptr.To(true)},
			&corev1.SecurityContext{RunAsNonRoot: ptr.To(true)},
		).Draw(t, "securityContext").DeepCopy()
	})
}

func container(t *rapid.T, name string, volumes []string) corev1.Container {
	container := corev1.Container{
		Name: name, Image: name + ":v1",
		VolumeMounts: mounts(volumes).Draw(t, "mounts"),
		Env:          env().Draw(t, "env"),
		Ports:        ports().Draw(t, "ports"),
		Resources:    corev1.ResourceRequirements{Requests: quantities().Draw(t, "requests"), Limits: quantities().Draw(t, "limits")},
	}
	container.SecurityContext = maybe(securityContexts()).Draw(t, "security")
	if rapid.IntRange(0, 3).Draw(t, "resizable") == 0 {
		container.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceCPU,
			RestartPolicy: oneOf(corev1.NotRequired, corev1.RestartContainer).Draw(t, "resize")}}
	}
	return container
}

// overridable is what the pods may override.
var overridable = []v1alpha1.AllowedOverride{
	{Container: "agent", Env: []string{"A", "K"}, Resources: []corev1.ResourceName{corev1.ResourceCPU}},
	{Container: "proxy", Env: []string{"B"}},
}

func fromApp(t *rapid.T) v1alpha1.FromApp {
	var from v1alpha1.FromApp
	if rapid.Bool().Draw(t, "shareVolumeMounts") {
		from.ShareVolumeMounts = &v1alpha1.SharedVolumeMounts{Container: oneOf("", "*", "app").Draw(t, "mountsOf"), ReadOnly: rapid.Bool().Draw(t, "readOnly")}
	}
	if rapid.Bool().Draw(t, "envFromApp") {
		names := rapid.SliceOfNDistinct(oneOf("A", "B", "C", "D", "E"), 1, 3, rapid.ID).Draw(t, "variables")
		from.EnvFromApp = []v1alpha1.AppEnv{{Names: names, EnvFrom: rapid.Bool().Draw(t, "envFrom"), Optional: rapid.IntRange(0, 3).Draw(t, "required") > 0}}
	}
	if rapid.IntRange(0, 2).Draw(t, "resourcesFromApp") == 0 {
		expressions := oneOf[v1alpha1.ResourceExpression]("app.requests.cpu * 0.1", "app.requests.cpu", `quantity("100m")`, "has(app.limits.cpu) ? app.limits.cpu : 0.0")
		from.ResourcesFromApp = &v1alpha1.AppResources{
			Requests: map[corev1.ResourceName]v1alpha1.ResourceExpression{corev1.ResourceCPU: expressions.Draw(t, "request")},
			Limits:   map[corev1.ResourceName]v1alpha1.ResourceExpression{corev1.ResourceCPU: expressions.Draw(t, "limit")}}
	}
	return from
}

// withoutComputed takes away from a container's resources what is computed instead.
func withoutComputed(c corev1.Container, from v1alpha1.FromApp) corev1.Container {
	if from.ResourcesFromApp != nil {
		delete(c.Resources.Requests, corev1.ResourceCPU)
		delete(c.Resources.Limits, corev1.ResourceCPU)
	}
	return c
}

func orders() *rapid.Generator[v1alpha1.InitOrder] {
	return oneOf("", v1alpha1.OrderBefore, v1alpha1.OrderAfter)
}

func volumes(names ...string) *rapid.Generator[[]corev1.Volume] {
	return named(2, names, func(t *rapid.T, name string) corev1.Volume {
		source := oneOf(
			corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
			corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}},
			corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "archive", ReadOnly: true}},
			corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "secret"}},
			corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}}},
			corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "conf:v1"}},
		).Draw(t, "source")
		return corev1.Volume{Name: name, VolumeSource: *source.DeepCopy()}
	})
}

// missing are volumes that mounts ask for and the list has not.
func missing(have []corev1.Volume, lists ...[]corev1.VolumeMount) []corev1.Volume {
	known := map[string]bool{}
	for _, v := range have {
		known[v.Name] = true
	}
	var more []corev1.Volume
	for _, list := range lists {
		for _, m := range list {
			if !known[m.Name] {
				known[m.Name] = true
				more = append(more, corev1.Volume{Name: m.Name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
			}
		}
	}
	return more
}

func pods() *rapid.Generator[*corev1.Pod] {
	return rapid.Custom(func(t *rapid.T) *corev1.Pod {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "random", Labels: map[string]string{}}}
		if label := maybe(oneOf("on", "off")).Draw(t, "label"); label != nil {
			pod.Labels["logs"] = *label
		}
		if override := maybe(oneOf(
			`{"agent": {"env": {"A": "y", "K": "z"}}}`,
			`{"agent": {"resources": {"requests": {"cpu": "200m"}}}}`,
			`{"agent": {"resources": {"requests": {"cpu": "200m"}, "limits": {"cpu": "1"}}}, "proxy": {"env": {"B": "y"}}}`,
			`{"agent": {"resources": {"limits": {"memory": "1Gi"}}}}`,
		)).Draw(t, "override"); override != nil {
			pod.Annotations = map[string]string{v1alpha1.OverrideAnnotation(policyName): *override}
		}
		spec := &pod.Spec
		containers := func(t *rapid.T, name string) corev1.Container {
			return container(t, name, []string{"own", "conf", "disk"})
		}
		spec.InitContainers = named(1, []string{"setup", "install", "fetch", "agent"}, containers).Draw(t, "initContainers")
		if len(spec.InitContainers) > 0 && rapid.Bool().Draw(t, "native") {
			spec.InitContainers[0].RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		}
		spec.Containers = append([]corev1.Container{containers(t, "app")}, named(1, []string{"helper", "worker", "cache", "agent", "proxy"}, containers).Draw(t, "more")...)
		spec.RestartPolicy = oneOf[corev1.RestartPolicy]("", corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever).Draw(t, "restartPolicy")
		spec.HostNetwork = rapid.IntRange(0, 3).Draw(t, "hostNetwork") == 0
		spec.Volumes = volumes("own", "conf", "cache", "logs").Draw(t, "volumes")
		for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
			for _, c := range list {
				spec.Volumes = append(spec.Volumes, missing(spec.Volumes, c.VolumeMounts)...)
			}
		}
		addDevice(t, spec)
		if os := maybe(oneOf(corev1.Linux, corev1.Linux, corev1.Windows)).Draw(t, "os"); os != nil {
			spec.OS = &corev1.PodOS{Name: *os}
		}
		if rapid.IntRange(0, 4).Draw(t, "podResources") == 0 {
			spec.Resources = &corev1.ResourceRequirements{Requests: quantities().Draw(t, "podRequests"), Limits: quantities().Draw(t, "podLimits")}
		}
		spec.ShareProcessNamespace = maybe(rapid.Bool()).Draw(t, "shareProcessNamespace")
		spec.HostPID = rapid.IntRange(0, 7).Draw(t, "hostPID") == 0
		if rapid.Bool().Draw(t, "pullSecret") {
			spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
		}
		return pod
	})
}

// addDevice gives the app a raw disk.
func addDevice(t *rapid.T, spec *corev1.PodSpec) {
	if rapid.IntRange(0, 4).Draw(t, "device") > 0 {
		return
	}
	for _, v := range spec.Volumes {
		if v.Name == "disk" {
			return
		}
	}
	spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "disk", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "disk"}}})
	spec.Containers[0].VolumeDevices = []corev1.VolumeDevice{{Name: "disk", DevicePath: oneOf("/dev/disk", "/logs").Draw(t, "devicePath")}}
}

func templates() *rapid.Generator[v1alpha1.SidecarTemplate] {
	return rapid.Custom(func(t *rapid.T) v1alpha1.SidecarTemplate {
		template := v1alpha1.SidecarTemplate{Volumes: volumes("logs", "spool", "socket").Draw(t, "volumes")}
		// Mostly its own volumes, sometimes one that the pod may have.
		known := []string{"disk"}
		for _, v := range template.Volumes {
			known = append(known, v.Name, v.Name)
		}
		sidecar := func(t *rapid.T, name string) v1alpha1.Sidecar {
			from := fromApp(t)
			sidecar := v1alpha1.Sidecar{Container: withoutComputed(container(t, name, known), from), FromApp: from, Mode: oneOf("", v1alpha1.ModeNative, v1alpha1.ModeContainer).Draw(t, "mode")}
			if sidecar.Mode != v1alpha1.ModeContainer {
				sidecar.Order = orders().Draw(t, "order")
			}
			return sidecar
		}
		template.Sidecars = append([]v1alpha1.Sidecar{sidecar(t, "agent")}, named(1, []string{"proxy", "exporter"}, sidecar).Draw(t, "sidecars")...)
		template.InitContainers = named(1, []string{"rules", "install"}, func(t *rapid.T, name string) v1alpha1.InitContainer {
			from := fromApp(t)
			c := withoutComputed(container(t, name, known), from)
			c.ResizePolicy = nil
			return v1alpha1.InitContainer{Container: c, Order: orders().Draw(t, "order"), FromApp: from}
		}).Draw(t, "initContainers")
		template.ShareProcessNamespace = rapid.IntRange(0, 3).Draw(t, "shareProcessNamespace") == 0
		template.AppContainers = named(1, []string{"*", "app"}, func(t *rapid.T, selector string) v1alpha1.AppContainer {
			return v1alpha1.AppContainer{Selector: selector, VolumeMounts: mounts(known).Draw(t, "mounts"), Env: env().Draw(t, "env")}
		}).Draw(t, "appContainers")
		if label := maybe(oneOf("on", "off")).Draw(t, "label"); label != nil {
			template.Metadata.Labels = map[string]string{"logs": *label}
		}
		if rapid.Bool().Draw(t, "pullSecret") {
			template.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}, {Name: "other"}}
		}
		return template
	})
}

// sample is the smallest pod that the sidecars fit in: where the API server refuses it, the
// operator does not accept the template.
func sample(template v1alpha1.SidecarTemplate) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "sample"}}
	app := corev1.Container{Name: "app", Image: "app:v1"}
	pod.Spec.Volumes = append(pod.Spec.Volumes, template.Volumes...)
	for _, entry := range template.AppContainers {
		app.VolumeMounts = append(app.VolumeMounts, entry.VolumeMounts...)
		app.Env = append(app.Env, entry.Env...)
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, missing(pod.Spec.Volumes, app.VolumeMounts)...)
	pod.Spec.Containers = []corev1.Container{app}
	for _, c := range template.InitContainers {
		pod.Spec.Volumes = append(pod.Spec.Volumes, missing(pod.Spec.Volumes, c.VolumeMounts)...)
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, c.Container)
	}
	for _, s := range template.Sidecars {
		pod.Spec.Volumes = append(pod.Spec.Volumes, missing(pod.Spec.Volumes, s.VolumeMounts)...)
		container := s.Container
		if s.Mode == v1alpha1.ModeContainer {
			pod.Spec.Containers = append(pod.Spec.Containers, container)
			continue
		}
		container.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, container)
	}
	return pod
}
