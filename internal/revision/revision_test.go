package revision_test

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// full is a template that says something in every part.
func full() *builders.TemplateBuilder {
	return builders.Template("agent", "registry.example/agent:1").Env("LEVEL", "info").Mount("logs", "/logs").
		Classic("proxy", "registry.example/proxy:1").
		Volume("logs").
		App(v1alpha1.AppContainer{Selector: "*", VolumeMounts: []corev1.VolumeMount{{Name: "logs", MountPath: "/var/log/app"}}}).
		With(func(t *v1alpha1.SidecarTemplate) {
			t.Metadata.Labels = map[string]string{"logging": "on"}
			t.Metadata.Annotations = map[string]string{"note": "by the platform team"}
			t.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
			t.Sidecars[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
		})
}

// Nothing may roll because a build hashes differently. Whoever has to change this value
// raises hashVersion too.
func TestHashNeverChangesBetweenBuilds(t *testing.T) {
	const want = "b79bca79b2"
	if got := revision.Hash(full().Obj()); got != want {
		t.Errorf("Hash() = %s, want %s", got, want)
	}
}

// What an operator of before stored is found under its old name, also by one whose templates have
// more fields: they are left out where they say nothing.
func TestStoredRevisionsKeepTheirNames(t *testing.T) {
	data, err := os.ReadFile("testdata/stored-by-the-first-build.json")
	if err != nil {
		t.Fatal(err)
	}
	object := &appsv1.ControllerRevision{}
	if err := json.Unmarshal(data, object); err != nil {
		t.Fatal(err)
	}
	stored, err := revision.Decode(object)
	if err != nil {
		t.Fatal(err)
	}
	if got := revision.Hash(stored.Template); got != stored.Hash {
		t.Errorf("Hash() of the stored template = %s, want %s as it was stored", got, stored.Hash)
	}
	said := full().With(func(t *v1alpha1.SidecarTemplate) { t.Sidecars[0].Order = v1alpha1.OrderBefore }).Obj()
	for name, template := range map[string]v1alpha1.SidecarTemplate{"the same": full().Obj(), "the same with defaults said": said} {
		if got := revision.Hash(template); got != stored.Hash {
			t.Errorf("%s: Hash() = %s, want %s", name, got, stored.Hash)
		}
		if revision.Find([]revision.Revision{stored}, template) == nil {
			t.Errorf("%s: Find() does not find the stored revision", name)
		}
	}
}

func TestHashDependsOnMeaningAlone(t *testing.T) {
	unsaid := full().First(func(s *v1alpha1.Sidecar) { s.Mode = "" })
	if got, want := revision.Hash(unsaid.Obj()), revision.Hash(full().Obj()); got != want {
		t.Errorf("mode left out: %s, want %s as with mode Native", got, want)
	}
	if got := revision.Hash(full().Image("registry.example/agent:2").Obj()); got == revision.Hash(full().Obj()) {
		t.Errorf("another image has the same hash %s", got)
	}
}

func TestNormalizeLeavesItsInputAlone(t *testing.T) {
	template := full().First(func(s *v1alpha1.Sidecar) { s.Mode = "" }).Obj()
	normal := revision.Normalize(template)
	if got := template.Sidecars[0].Mode; got != "" {
		t.Errorf("the input's mode became %q", got)
	}
	if diff := cmp.Diff(full().Obj(), normal); diff != "" {
		t.Errorf("Normalize() (-want +got):\n%s", diff)
	}
}

func TestFindComparesByMeaning(t *testing.T) {
	old := revision.Revision{Hash: "by-an-older-build", Number: 1, Template: full().Obj()}
	for _, tc := range []struct {
		name     string
		template *builders.TemplateBuilder
		want     string
	}{
		{"the same", full(), old.Hash},
		{"mode left out is Native", full().First(func(s *v1alpha1.Sidecar) { s.Mode = "" }), old.Hash},
		{"nil is empty", full().First(func(s *v1alpha1.Sidecar) { s.Args = []string{} }), old.Hash},
		{"nil map is empty", full().First(func(s *v1alpha1.Sidecar) { s.Resources.Limits = corev1.ResourceList{} }), old.Hash},
		{"1000m is 1", full().First(func(s *v1alpha1.Sidecar) {
			s.Resources.Requests[corev1.ResourceCPU] = resource.MustParse("1000m")
		}), old.Hash},
		{"another image", full().Image("registry.example/agent:2"), ""},
		{"another mode", full().First(func(s *v1alpha1.Sidecar) { s.Mode = v1alpha1.ModeContainer }), ""},
		{"another quantity", full().First(func(s *v1alpha1.Sidecar) {
			s.Resources.Requests[corev1.ResourceCPU] = resource.MustParse("999m")
		}), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			others := []revision.Revision{{Hash: "other", Template: builders.Template("x", "x:1").Obj()}, old}
			got := ""
			if found := revision.Find(others, tc.template.Obj()); found != nil {
				got = found.Hash
			}
			if got != tc.want {
				t.Errorf("Find() = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestCompare(t *testing.T) {
	for _, tc := range []struct {
		name string
		to   func(*v1alpha1.SidecarTemplate)
		want revision.Difference
		way  revision.Change
	}{
		{"nothing", func(*v1alpha1.SidecarTemplate) {}, revision.Difference{}, revision.ChangeNone},
		{"the same in other words", func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars[0].Args = []string{}
			t.Sidecars[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("1000m")
		}, revision.Difference{}, revision.ChangeNone},
		{"one image", func(t *v1alpha1.SidecarTemplate) { t.Sidecars[1].Image = "proxy:2" },
			revision.Difference{Images: []string{"proxy"}}, revision.ChangeInPlace},
		{"both images", func(t *v1alpha1.SidecarTemplate) { t.Sidecars[0].Image, t.Sidecars[1].Image = "a:2", "p:2" },
			revision.Difference{Images: []string{"agent", "proxy"}}, revision.ChangeInPlace},
		{"image and env", func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars[0].Image, t.Sidecars[0].Env[0].Value = "a:2", "debug"
		}, revision.Difference{Images: []string{"agent"}, Fixed: []string{"sidecars[agent].env"}}, revision.ChangeRecreate},
		{"quantities", func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("2")
		},
			revision.Difference{Resources: []string{"agent"}}, revision.ChangeInPlace},
		{"quantities and image", func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars[0].Image, t.Sidecars[0].Resources.Requests[corev1.ResourceCPU] = "a:2", resource.MustParse("2")
		}, revision.Difference{Images: []string{"agent"}, Resources: []string{"agent"}}, revision.ChangeInPlace},
		{"a limit added, which a rollback could not take away", func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
		}, fixed("sidecars[agent].resources"), revision.ChangeRecreate},
		{"requests removed", func(t *v1alpha1.SidecarTemplate) { t.Sidecars[0].Resources.Requests = nil },
			fixed("sidecars[agent].resources"), revision.ChangeRecreate},
		{"resizePolicy", func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceCPU, RestartPolicy: corev1.RestartContainer}}
		}, fixed("sidecars[agent].resizePolicy"), revision.ChangeRecreate},
		{"env added", func(t *v1alpha1.SidecarTemplate) { t.Sidecars[1].Env = []corev1.EnvVar{{Name: "A"}} },
			fixed("sidecars[proxy].env"), revision.ChangeRecreate},
		{"command and args", func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars[0].Command, t.Sidecars[0].Args = []string{"run"}, []string{"-v"}
		}, fixed("sidecars[agent].args", "sidecars[agent].command"), revision.ChangeRecreate},
		{"mount", func(t *v1alpha1.SidecarTemplate) { t.Sidecars[0].VolumeMounts[0].MountPath = "/l" },
			fixed("sidecars[agent].volumeMounts"), revision.ChangeRecreate},
		{"probe", func(t *v1alpha1.SidecarTemplate) { t.Sidecars[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1} },
			fixed("sidecars[agent].readinessProbe"), revision.ChangeRecreate},
		{"mode", func(t *v1alpha1.SidecarTemplate) { t.Sidecars[0].Mode = v1alpha1.ModeContainer },
			fixed("sidecars[agent].mode"), revision.ChangeRecreate},
		{"order of a sidecar", func(t *v1alpha1.SidecarTemplate) { t.Sidecars[0].Order = v1alpha1.OrderAfter },
			fixed("sidecars[agent].order"), revision.ChangeRecreate},
		{"init container added", func(t *v1alpha1.SidecarTemplate) { t.InitContainers = append(t.InitContainers, initContainer("new")) },
			fixed("initContainers[new] (added)"), revision.ChangeRecreate},
		{"init container removed", func(t *v1alpha1.SidecarTemplate) { t.InitContainers = t.InitContainers[:1] },
			fixed("initContainers[certs] (removed)"), revision.ChangeRecreate},
		{"the image of an init container, which has run", func(t *v1alpha1.SidecarTemplate) { t.InitContainers[0].Image = "rules:2" },
			fixed("initContainers[rules].image"), revision.ChangeRecreate},
		{"order of init containers", func(t *v1alpha1.SidecarTemplate) {
			t.InitContainers[0], t.InitContainers[1] = t.InitContainers[1], t.InitContainers[0]
		}, fixed("initContainers (order)"), revision.ChangeRecreate},
		{"shared processes", func(t *v1alpha1.SidecarTemplate) { t.ShareProcessNamespace = true },
			fixed("shareProcessNamespace"), revision.ChangeRecreate},
		{"what is taken over from the app", func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars[0].EnvFromApp = []v1alpha1.AppEnv{{Names: []string{"A"}}}
			t.Sidecars[1].ShareVolumeMounts = &v1alpha1.SharedVolumeMounts{}
			t.InitContainers[0].ShareVolumeMounts = &v1alpha1.SharedVolumeMounts{}
		}, fixed("initContainers[rules].shareVolumeMounts", "sidecars[agent].envFromApp", "sidecars[proxy].shareVolumeMounts"), revision.ChangeRecreate},
		{"sidecar added", func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars = append(t.Sidecars, v1alpha1.Sidecar{Container: corev1.Container{Name: "new"}})
		}, fixed("sidecars[new] (added)"), revision.ChangeRecreate},
		{"sidecar removed", func(t *v1alpha1.SidecarTemplate) { t.Sidecars = t.Sidecars[:1] },
			fixed("sidecars[proxy] (removed)"), revision.ChangeRecreate},
		{"sidecar renamed", func(t *v1alpha1.SidecarTemplate) { t.Sidecars[1].Name = "envoy" },
			fixed("sidecars[envoy] (added)", "sidecars[proxy] (removed)"), revision.ChangeRecreate},
		{"order", func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars[0], t.Sidecars[1] = t.Sidecars[1], t.Sidecars[0]
		}, fixed("sidecars (order)"), revision.ChangeRecreate},
		{"app containers", func(t *v1alpha1.SidecarTemplate) { t.AppContainers[0].Env = []corev1.EnvVar{{Name: "A"}} },
			fixed("appContainers[*]"), revision.ChangeRecreate},
		{"another app container", func(t *v1alpha1.SidecarTemplate) { t.AppContainers[0].Selector = "app" },
			fixed("appContainers[*] (removed)", "appContainers[app] (added)"), revision.ChangeRecreate},
		{"volume", func(t *v1alpha1.SidecarTemplate) { t.Volumes[0].EmptyDir.Medium = corev1.StorageMediumMemory },
			fixed("volumes[logs]"), revision.ChangeRecreate},
		{"volume added", func(t *v1alpha1.SidecarTemplate) { t.Volumes = append(t.Volumes, builders.EmptyDir("tmp")) },
			fixed("volumes[tmp] (added)"), revision.ChangeRecreate},
		{"volume removed", func(t *v1alpha1.SidecarTemplate) { t.Volumes = nil },
			fixed("volumes[logs] (removed)"), revision.ChangeRecreate},
		{"label", func(t *v1alpha1.SidecarTemplate) { t.Metadata.Labels["logging"] = "off" },
			fixed("metadata[labels]"), revision.ChangeRecreate},
		{"annotations removed", func(t *v1alpha1.SidecarTemplate) { t.Metadata.Annotations = nil },
			fixed("metadata[annotations] (removed)"), revision.ChangeRecreate},
		{"pull secret", func(t *v1alpha1.SidecarTemplate) { t.ImagePullSecrets[0].Name = "mirror" },
			fixed("imagePullSecrets[mirror] (added)", "imagePullSecrets[registry] (removed)"), revision.ChangeRecreate},
	} {
		t.Run(tc.name, func(t *testing.T) {
			from, to := whole().Obj(), whole().With(tc.to).Obj()
			got := revision.Compare(&from, &to)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Compare() (-want +got):\n%s", diff)
			}
			if got.Change() != tc.way {
				t.Errorf("Change() = %s, want %s", got.Change(), tc.way)
			}
			for _, part := range slices.Concat(tc.want.Images, tc.want.Resources, tc.want.Fixed) {
				if !strings.Contains(got.String(), part) {
					t.Errorf("String() = %q does not name %s", got, part)
				}
			}
		})
	}
}

// whole is full with init containers, which templates did not have when full got its hash.
func whole() *builders.TemplateBuilder {
	return full().With(func(t *v1alpha1.SidecarTemplate) {
		t.InitContainers = []v1alpha1.InitContainer{initContainer("rules"), initContainer("certs")}
	})
}

func initContainer(name string) v1alpha1.InitContainer {
	return v1alpha1.InitContainer{Container: corev1.Container{Name: name, Image: name + ":1"}}
}

// A field that Compare() does not know would reach no running pod, and nobody would say so.
func TestCompareKnowsEveryField(t *testing.T) {
	type field struct {
		name string
		of   func(*v1alpha1.SidecarTemplate) reflect.Value
	}
	var fields []field
	add := func(name string, of func(*v1alpha1.SidecarTemplate) reflect.Value) {
		template := whole().Obj()
		kind := of(&template).Type()
		for i := range kind.NumField() {
			if kind.Field(i).Anonymous || kind.Field(i).Tag.Get("json") == "-" {
				continue
			}
			fields = append(fields, field{name + kind.Field(i).Name, func(t *v1alpha1.SidecarTemplate) reflect.Value { return of(t).Field(i) }})
		}
	}
	add("template.", func(t *v1alpha1.SidecarTemplate) reflect.Value { return reflect.ValueOf(t).Elem() })
	add("sidecar.", func(t *v1alpha1.SidecarTemplate) reflect.Value { return reflect.ValueOf(&t.Sidecars[0]).Elem() })
	add("initContainer.", func(t *v1alpha1.SidecarTemplate) reflect.Value { return reflect.ValueOf(&t.InitContainers[0]).Elem() })
	add("sidecar.", func(t *v1alpha1.SidecarTemplate) reflect.Value { return reflect.ValueOf(&t.Sidecars[0].FromApp).Elem() })
	add("initContainer.", func(t *v1alpha1.SidecarTemplate) reflect.Value {
		return reflect.ValueOf(&t.InitContainers[0].FromApp).Elem()
	})
	for _, f := range fields {
		t.Run(f.name, func(t *testing.T) {
			if f.name == "template.RestartedAt" {
				t.Skip("is no content of a pod: fleet judges it")
			}
			from, to := whole().Obj(), whole().Obj()
			f.of(&to).Set(something(f.of(&to).Type()))
			if got := revision.Compare(&from, &to); got.Change() == revision.ChangeNone {
				t.Errorf("Compare() finds nothing where it is %+v", f.of(&to))
			}
		})
	}
}

// something is a value of the type that says something in every part.
func something(kind reflect.Type) reflect.Value {
	v := reflect.New(kind).Elem()
	switch kind.Kind() {
	case reflect.String:
		v.SetString("something")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(kind.Elem()))
		v.Elem().Set(something(kind.Elem()))
	case reflect.Slice:
		v.Set(reflect.Append(v, something(kind.Elem())))
	case reflect.Map:
		v.Set(reflect.MakeMap(kind))
		v.SetMapIndex(something(kind.Key()), something(kind.Elem()))
	case reflect.Struct:
		for i := range kind.NumField() {
			switch kind.Field(i).Type.Kind() {
			case reflect.String, reflect.Bool, reflect.Map:
				v.Field(i).Set(something(kind.Field(i).Type))
			}
		}
	}
	return v
}

func fixed(fields ...string) revision.Difference { return revision.Difference{Fixed: fields} }

func TestEncodeDecode(t *testing.T) {
	want := *full().Revision(7)
	object, err := revision.Encode("logs", "sidecar-system", want)
	if err != nil {
		t.Fatal(err)
	}
	if object.Name != revision.ObjectName("logs", want.Hash) || object.Namespace != "sidecar-system" {
		t.Errorf("encoded as %s/%s", object.Namespace, object.Name)
	}
	got, err := revision.Decode(object)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Decode(Encode()) (-want +got):\n%s", diff)
	}
	if found := revision.Find([]revision.Revision{got}, full().Obj()); found == nil {
		t.Error("Find() does not find what was stored")
	}
}

func TestDecodeSaysWhatIsWrong(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(*appsv1.ControllerRevision)
		want  string
	}{
		{"no revision label", func(o *appsv1.ControllerRevision) { delete(o.Labels, v1alpha1.RevisionLabel("logs")) }, "has no label"},
		{"no policy label", func(o *appsv1.ControllerRevision) { delete(o.Labels, v1alpha1.PolicyLabel) }, "has no label"},
		{"no JSON", func(o *appsv1.ControllerRevision) { o.Data.Raw = []byte("{") }, "decoding ControllerRevision logs-"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			object, err := revision.Encode("logs", "sidecar-system", *full().Revision(1))
			if err != nil {
				t.Fatal(err)
			}
			tc.spoil(object)
			if _, err := revision.Decode(object); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Decode() = %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestNextCountsOnFromTheHighest(t *testing.T) {
	got := revision.Next([]revision.Revision{{Number: 4}, {Number: 9}, {Number: 2}}, full().Obj())
	if diff := cmp.Diff(*full().Revision(10), got); diff != "" {
		t.Errorf("Next() (-want +got):\n%s", diff)
	}
	if first := revision.Next(nil, full().Obj()); first.Number != 1 {
		t.Errorf("the first revision has number %d, want 1", first.Number)
	}
}

func TestExpiredKeepsWhatIsInUse(t *testing.T) {
	all := []revision.Revision{{Hash: "r2", Number: 2}, {Hash: "r5", Number: 5}, {Hash: "r1", Number: 1}, {Hash: "r4", Number: 4}, {Hash: "r3", Number: 3}}
	for _, tc := range []struct {
		name  string
		inUse []string
		limit int
		want  []string
	}{
		{"all fit", nil, 5, nil},
		{"the oldest go", nil, 3, []string{"r2", "r1"}},
		{"no history", nil, 0, []string{"r5", "r4", "r3", "r2", "r1"}},
		{"in use does not count", []string{"r1", "r5"}, 3, nil},
		{"in use is kept, however old", []string{"r1"}, 1, []string{"r4", "r3", "r2"}},
		{"in use and unknown", []string{"r9"}, 4, []string{"r1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inUse := map[string]bool{}
			for _, hash := range tc.inUse {
				inUse[hash] = true
			}
			var got []string
			for _, r := range revision.Expired(all, inUse, tc.limit) {
				got = append(got, r.Hash)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Expired() (-want +got):\n%s", diff)
			}
			if all[0].Hash != "r2" {
				t.Error("Expired() reordered its input")
			}
		})
	}
}
