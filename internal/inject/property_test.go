package inject_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

const policy = "logs"

// Few names, so that pods and templates often have them in common.
var (
	names  = rapid.SampledFrom([]string{"app", "web", "agent", "proxy", "setup", "a", "b", "c"})
	images = rapid.SampledFrom([]string{"one:1", "two:2"})
	keys   = rapid.SampledFrom([]string{"team", "example.com/a~b", "x/y", "note"})
	orders = rapid.SampledFrom([]v1alpha1.InitOrder{"", v1alpha1.OrderBefore, v1alpha1.OrderAfter})
	paths  = rapid.SampledFrom([]string{"/logs", "/logs/", "/data", "/tmp", "/etc/x", "/logs/x", "/data/x/y"})
)

func distinct(t *rapid.T, what string, atMost int) []string {
	return rapid.SliceOfNDistinct(names, 0, atMost, rapid.ID[string]).Draw(t, what)
}

func drawMap(t *rapid.T, what string) map[string]string {
	if rapid.Bool().Draw(t, "no "+what) {
		return nil
	}
	return rapid.MapOfN(keys, rapid.SampledFrom([]string{"1", "2"}), 0, 2).Draw(t, what)
}

func drawMounts(t *rapid.T, what string) []corev1.VolumeMount {
	var mounts []corev1.VolumeMount
	for _, path := range rapid.SliceOfNDistinct(paths, 0, 2, rapid.ID[string]).Draw(t, what) {
		mounts = append(mounts, corev1.VolumeMount{Name: names.Draw(t, "volume"), MountPath: path, ReadOnly: rapid.IntRange(0, 3).Draw(t, "read-only mount") == 0})
	}
	return mounts
}

func drawEnv(t *rapid.T, what string) []corev1.EnvVar {
	var env []corev1.EnvVar
	for _, name := range distinct(t, what, 2) {
		env = append(env, corev1.EnvVar{Name: name, Value: "v"})
	}
	return env
}

func drawContainer(t *rapid.T, name string) corev1.Container {
	c := corev1.Container{Name: name, Image: images.Draw(t, "image"), VolumeMounts: drawMounts(t, "mounts"), Env: drawEnv(t, "env")}
	if rapid.Bool().Draw(t, "port") {
		c.Ports = []corev1.ContainerPort{{ContainerPort: rapid.Int32Range(80, 99).Draw(t, "number")}}
	}
	return c
}

func drawPod(t *rapid.T) *corev1.Pod {
	all := rapid.SliceOfNDistinct(names, 1, 4, rapid.ID[string]).Draw(t, "containers")
	inits := rapid.IntRange(0, len(all)-1).Draw(t, "init containers")
	b := builders.Pod("shop", "cart").With(func(p *corev1.Pod) {
		p.Spec = corev1.PodSpec{}
		p.Status = corev1.PodStatus{}
		p.Labels, p.Annotations = drawMap(t, "labels"), drawMap(t, "annotations")
		for _, name := range distinct(t, "volumes", 4) {
			p.Spec.Volumes = append(p.Spec.Volumes, builders.EmptyDir(name))
		}
		for _, name := range distinct(t, "pull secrets", 2) {
			p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
		}
		for i, name := range all {
			if i < inits {
				p.Spec.InitContainers = append(p.Spec.InitContainers, drawContainer(t, name))
			} else {
				p.Spec.Containers = append(p.Spec.Containers, drawContainer(t, name))
			}
		}
	})
	// What somebody copied from another pod: a label or a record of ours, without the containers.
	if rapid.IntRange(0, 4).Draw(t, "copied label") == 0 {
		b.Label(v1alpha1.RevisionLabel(policy), "0123456789")
	}
	if rapid.IntRange(0, 4).Draw(t, "copied record") == 0 {
		b.Annotation(v1alpha1.InjectedAnnotation(policy), `{"revision":"0123456789","sidecars":["gone"]}`)
	}
	return b.Obj()
}

func drawTemplate(t *rapid.T) *builders.TemplateBuilder {
	b := &builders.TemplateBuilder{}
	for i := range rapid.IntRange(1, 2).Draw(t, "sidecars") {
		c := drawContainer(t, fmt.Sprintf("sidecar-%d", i))
		if rapid.IntRange(0, 5).Draw(t, "name of the app's") == 0 {
			c.Name = names.Draw(t, "name")
		}
		mode := rapid.SampledFrom([]v1alpha1.SidecarMode{"", v1alpha1.ModeNative, v1alpha1.ModeContainer}).Draw(t, "mode")
		from := drawFromApp(t)
		b.With(func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars = append(t.Sidecars, v1alpha1.Sidecar{Container: c, Mode: mode, FromApp: from})
		})
	}
	b.With(func(template *v1alpha1.SidecarTemplate) {
		for i := range rapid.IntRange(0, 2).Draw(t, "init containers") {
			template.InitContainers = append(template.InitContainers, v1alpha1.InitContainer{
				Container: drawContainer(t, fmt.Sprintf("init-%d", i)), Order: orders.Draw(t, "order"), FromApp: drawFromApp(t)})
		}
		for i := range template.Sidecars {
			if template.Sidecars[i].Mode != v1alpha1.ModeContainer {
				template.Sidecars[i].Order = orders.Draw(t, "sidecar's order")
			}
		}
		template.ShareProcessNamespace = rapid.Bool().Draw(t, "shareProcessNamespace")
	})
	for _, selector := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"*", "app", "web"}), 0, 2, rapid.ID[string]).Draw(t, "app containers") {
		b.App(v1alpha1.AppContainer{Selector: selector, VolumeMounts: drawMounts(t, "app mounts"), Env: drawEnv(t, "app env")})
	}
	for _, name := range distinct(t, "template volumes", 3) {
		b.Volume(name)
	}
	return b.With(func(template *v1alpha1.SidecarTemplate) {
		template.Metadata.Labels, template.Metadata.Annotations = drawMap(t, "template labels"), drawMap(t, "template annotations")
		for _, name := range distinct(t, "template pull secrets", 2) {
			template.ImagePullSecrets = append(template.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
		}
	})
}

func drawFromApp(t *rapid.T) v1alpha1.FromApp {
	var from v1alpha1.FromApp
	if rapid.Bool().Draw(t, "shares mounts") {
		from.ShareVolumeMounts = &v1alpha1.SharedVolumeMounts{Container: rapid.SampledFrom([]string{"", "", "*", "app"}).Draw(t, "of"),
			ReadOnly: rapid.Bool().Draw(t, "read-only"), ExcludePaths: rapid.SliceOfNDistinct(paths, 0, 1, rapid.ID[string]).Draw(t, "excluded")}
	}
	for range rapid.IntRange(0, 2).Draw(t, "sources of env") {
		from.EnvFromApp = append(from.EnvFromApp, v1alpha1.AppEnv{Container: rapid.SampledFrom([]string{"", "", "app"}).Draw(t, "container"),
			Names: distinct(t, "variables", 3), EnvFrom: rapid.Bool().Draw(t, "envFrom"), Optional: rapid.IntRange(0, 3).Draw(t, "required") > 0})
	}
	return from
}

// rendered draws a pod and a template that often go together.
func rendered(t *rapid.T) (*corev1.Pod, *builders.TemplateBuilder, inject.Additions, bool) {
	pod, template := drawPod(t), drawTemplate(t)
	additions, conflicts := inject.Render(pod, policy, template.Revision(1))
	if len(conflicts) == 0 {
		return pod, template, additions, true
	}
	if diff := cmp.Diff(inject.Additions{}, additions); diff != "" {
		t.Fatalf("a pod that clashes gets something:\n%s", diff)
	}
	return pod, template, additions, false
}

// The API server gets the patch, the planner and the tests see Apply: both must make the same pod.
func TestPatchDoesWhatApplyDoes(t *testing.T) {
	injected := 0
	rapid.Check(t, func(t *rapid.T) {
		pod, _, additions, ok := rendered(t)
		if !ok {
			return
		}
		injected++
		want := pod.DeepCopy()
		additions.Apply(want)
		got := &corev1.Pod{}
		must(t, json.Unmarshal(patched(t, mustMarshal(t, pod), additions, pod), got))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("Patch() against Apply() (-apply +patch):\n%s", diff)
		}
	})
	if injected == 0 {
		t.Error("no drawn pod was ever injected")
	}
}

func TestPromise1PatchOnlyAddsAndKeepsFieldsThatThisBuildDoesNotKnow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pod, _, additions, ok := rendered(t)
		if !ok {
			return
		}
		for _, op := range additions.Patch(pod) {
			if op.Operation != "add" {
				t.Fatalf("operation %s %s, want only 'add'", op.Operation, op.Path)
			}
		}
		var raw map[string]any
		must(t, json.Unmarshal(mustMarshal(t, pod), &raw))
		spec := raw["spec"].(map[string]any)
		spec["fieldOfTheFuture"] = "kept"
		for _, list := range []string{"containers", "initContainers"} {
			containers, _ := spec[list].([]any)
			for _, c := range containers {
				c.(map[string]any)["containerFieldOfTheFuture"] = c.(map[string]any)["name"]
			}
		}
		var after map[string]any
		must(t, json.Unmarshal(patched(t, mustMarshal(t, raw), additions, pod), &after))
		kept := after["spec"].(map[string]any)
		if kept["fieldOfTheFuture"] != "kept" {
			t.Fatal("an unknown field of the spec was lost")
		}
		for _, name := range ownNames(pod) {
			if !slices.ContainsFunc(slices.Concat(list(kept["containers"]), list(kept["initContainers"])), func(c any) bool {
				return c.(map[string]any)["containerFieldOfTheFuture"] == name
			}) {
				t.Fatalf("an unknown field of container %s was lost", name)
			}
		}
	})
}

func list(value any) []any {
	items, _ := value.([]any)
	return items
}

func ownNames(pod *corev1.Pod) []string {
	var names []string
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		names = append(names, c.Name)
	}
	return names
}

// The app's containers keep everything they have, in order. They get the mounts and
// variables that the template names for them, at the end, and nothing else.
func TestPromise1AppContainersGetMountsAndEnvAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pod, template, additions, ok := rendered(t)
		if !ok {
			return
		}
		after := pod.DeepCopy()
		additions.Apply(after)
		entries := template.Obj().AppContainers
		for i, before := range pod.Spec.Containers {
			if diff := cmp.Diff(expected(before, entries), after.Spec.Containers[i]); diff != "" {
				t.Fatalf("container %s (-want +got):\n%s", before.Name, diff)
			}
		}
		own := slices.DeleteFunc(slices.Clone(after.Spec.InitContainers), func(c corev1.Container) bool { return inject.InjectedNames(after)[c.Name] })
		if diff := cmp.Diff(pod.Spec.InitContainers, own, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("init containers of the pod's own (-want +got):\n%s", diff)
		}
		checkOrder(t, after, template.Obj(), pod.Spec.InitContainers)
		for _, sidecar := range template.Obj().Sidecars {
			native := sidecar.Mode != v1alpha1.ModeContainer
			c := builders.SpecOf(after, sidecar.Name)
			if c == nil || c.Image != sidecar.Image || (ptr.Deref(c.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways) != native {
				t.Fatalf("sidecar %s of mode %q became %+v", sidecar.Name, sidecar.Mode, c)
			}
		}
	})
}

// checkOrder: what is Before the pod's own init containers starts before all of them, what is After them after all.
func checkOrder(t *rapid.T, after *corev1.Pod, template v1alpha1.SidecarTemplate, own []corev1.Container) {
	t.Helper()
	var before, late []string
	add := func(name string, order v1alpha1.InitOrder) {
		if order == v1alpha1.OrderAfter {
			late = append(late, name)
		} else {
			before = append(before, name)
		}
	}
	for _, c := range template.InitContainers {
		add(c.Name, c.Order)
	}
	for _, s := range template.Sidecars {
		if s.Mode != v1alpha1.ModeContainer {
			add(s.Name, s.Order)
		}
	}
	for _, c := range own {
		before = append(before, c.Name)
	}
	var got []string
	for _, c := range after.Spec.InitContainers {
		got = append(got, c.Name)
	}
	if diff := cmp.Diff(slices.Concat(before, late), got); diff != "" {
		t.Fatalf("init containers (-want +got):\n%s", diff)
	}
}

func TestInjectingTwiceIsInjectingOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pod, template, additions, ok := rendered(t)
		if !ok {
			return
		}
		additions.Apply(pod)
		if !inject.Injected(pod, policy) {
			t.Fatal("the pod does not count as injected")
		}
		again, conflicts := inject.Render(pod, policy, template.Revision(1))
		if len(conflicts) > 0 || len(again.Patch(pod)) > 0 {
			t.Fatalf("the second time gives %v, conflicts %v", again.Patch(pod), conflicts)
		}
	})
}

// Whatever two policies take over from the app, neither gets anything of the other's sidecars, the
// app gets what both say, and another call of either one's webhook changes nothing.
func TestTwoPoliciesTakeOverFromTheAppAlone(t *testing.T) {
	both := 0
	rapid.Check(t, func(t *rapid.T) {
		pod, first, additions, ok := rendered(t)
		if !ok {
			return
		}
		injected := pod.DeepCopy()
		additions.Apply(injected)
		// The names of the second one's differ, or they would mostly clash.
		second := drawTemplate(t).With(func(template *v1alpha1.SidecarTemplate) {
			for i := range template.Sidecars {
				template.Sidecars[i].Name = fmt.Sprintf("second-%d", i)
				template.Sidecars[i].Ports = nil
			}
			template.InitContainers, template.Metadata, template.Volumes = nil, v1alpha1.TemplateMetadata{}, nil
		})
		between := injected.DeepCopy()
		more, conflicts := inject.Render(injected, "second", second.Revision(1))
		if len(conflicts) > 0 {
			return
		}
		more.Apply(injected)
		both++
		for _, name := range []string{policy, "second"} {
			template := first
			if name == "second" {
				template = second
			}
			if again, conflicts := inject.Render(injected, name, template.Revision(1)); len(again.Patch(injected))+len(conflicts) > 0 {
				t.Fatalf("another call for policy %s gives %v, conflicts %v", name, again.Patch(injected), conflicts)
			}
		}
		for i, before := range pod.Spec.Containers {
			got := injected.Spec.Containers[i]
			if diff := cmp.Diff(expected(before, first.Obj().AppContainers, second.Obj().AppContainers), got); diff != "" {
				t.Fatalf("container %s (-want +got):\n%s", before.Name, diff)
			}
		}
		for _, sidecar := range second.Obj().Sidecars {
			checkTaken(t, &sidecar, builders.SpecOf(injected, sidecar.Name), between, len(pod.Spec.Containers))
		}
	})
	if both == 0 {
		t.Error("no drawn pod ever got the sidecars of both")
	}
}

// expected is a container of the app with what policies give it.
func expected(before corev1.Container, policies ...[]v1alpha1.AppContainer) corev1.Container {
	want := *before.DeepCopy()
	for _, entry := range slices.Concat(policies...) {
		if entry.Selector == "*" || entry.Selector == want.Name {
			want.VolumeMounts = append(want.VolumeMounts, entry.VolumeMounts...)
			want.Env = append(want.Env, entry.Env...)
		}
	}
	return want
}

// checkTaken: what a sidecar has is its template's or the app's, which are the first containers of the pod.
func checkTaken(t *rapid.T, template *v1alpha1.Sidecar, got *corev1.Container, pod *corev1.Pod, apps int) {
	t.Helper()
	ofApp := func(has func(corev1.Container) bool) bool {
		return slices.ContainsFunc(pod.Spec.Containers[:apps], has)
	}
	for _, m := range got.VolumeMounts {
		share := template.ShareVolumeMounts
		switch {
		case slices.ContainsFunc(template.VolumeMounts, func(own corev1.VolumeMount) bool { return own.MountPath == m.MountPath && own.Name == m.Name }):
		case share == nil || slices.Contains(share.ExcludePaths, m.MountPath) || (share.ReadOnly && !m.ReadOnly):
			t.Fatalf("sidecar %s has the mount %+v, and shares %+v", got.Name, m, share)
		case !ofApp(func(c corev1.Container) bool {
			return slices.ContainsFunc(c.VolumeMounts, func(own corev1.VolumeMount) bool { return own.Name == m.Name && own.MountPath == m.MountPath })
		}):
			t.Fatalf("sidecar %s has the mount %+v, which is neither its own nor the app's", got.Name, m)
		}
	}
	for _, e := range got.Env {
		if !slices.Contains(template.Env, e) && !ofApp(func(c corev1.Container) bool { return slices.Contains(c.Env, e) }) {
			t.Fatalf("sidecar %s has the variable %+v, which is neither its own nor the app's", got.Name, e)
		}
	}
}

func patched(t rapid.TB, document []byte, additions inject.Additions, pod *corev1.Pod) []byte {
	t.Helper()
	ops := additions.Patch(pod)
	if len(ops) == 0 {
		return document
	}
	patch, err := jsonpatch.DecodePatch(mustMarshal(t, ops))
	must(t, err)
	result, err := patch.Apply(document)
	must(t, err)
	return result
}

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustMarshal(t rapid.TB, value any) []byte {
	t.Helper()
	data, err := json.Marshal(value)
	must(t, err)
	return data
}
