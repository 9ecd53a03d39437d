package resources_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sidecar-dev/sidecar-operator/internal/resources"
)

// list reads pairs of a name and a quantity.
func list(pairs ...string) corev1.ResourceList {
	var l corev1.ResourceList
	for i := 0; i < len(pairs); i += 2 {
		if l == nil {
			l = corev1.ResourceList{}
		}
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func of(requests, limits corev1.ResourceList) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Requests: requests, Limits: limits}
}

func TestResizable(t *testing.T) {
	base := of(list("cpu", "50m", "memory", "32Mi"), list("cpu", "100m"))
	claiming := base
	claiming.Claims = []corev1.ResourceClaim{{Name: "gpu"}}
	disk := func(size string) corev1.ResourceRequirements { return of(list("ephemeral-storage", size), nil) }
	for _, tc := range []struct {
		name     string
		from, to corev1.ResourceRequirements
		want     bool
	}{
		{"nothing", of(nil, nil), of(nil, nil), true},
		{"the same", base, base, true},
		{"quantities", base, of(list("cpu", "60m", "memory", "64Mi"), list("cpu", "1")), true},
		{"a request that the limit stood for", of(nil, list("cpu", "1")), of(list("cpu", "500m"), list("cpu", "1")), true},
		{"a request added", of(list("cpu", "50m"), nil), of(list("cpu", "50m", "memory", "1Mi"), nil), false},
		{"a request removed", of(list("cpu", "50m", "memory", "1Mi"), nil), of(list("cpu", "50m"), nil), false},
		{"another one instead", of(list("cpu", "1"), nil), of(list("memory", "1Mi"), nil), false},
		{"a limit added", of(list("cpu", "50m"), nil), of(list("cpu", "50m"), list("cpu", "1")), false},
		{"the first ones", of(nil, nil), base, false},
		{"a claim", base, claiming, false},
		{"storage", disk("1Gi"), disk("2Gi"), false},
		{"the same storage", disk("1Gi"), disk("1024Mi"), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := resources.Resizable(tc.from, tc.to); got != tc.want {
				t.Errorf("Resizable() = %t, want %t", got, tc.want)
			}
			if got := resources.Resizable(tc.to, tc.from); got != tc.want {
				t.Errorf("the way back: Resizable() = %t, want %t", got, tc.want)
			}
		})
	}
}

func TestEqual(t *testing.T) {
	for _, tc := range []struct {
		name string
		a, b corev1.ResourceRequirements
		want bool
	}{
		{"1000m is 1", of(list("cpu", "1000m"), nil), of(list("cpu", "1"), nil), true},
		{"nil is empty", of(nil, nil), of(corev1.ResourceList{}, corev1.ResourceList{}), true},
		{"a limit stands for the request", of(nil, list("cpu", "1")), of(list("cpu", "1"), list("cpu", "1")), true},
		{"another quantity", of(list("cpu", "1"), nil), of(list("cpu", "2"), nil), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := resources.Equal(tc.a, tc.b); got != tc.want {
				t.Errorf("Equal() = %t, want %t", got, tc.want)
			}
		})
	}
}

func TestChanges(t *testing.T) {
	change := func(list, name, have, want string) resources.Change {
		return resources.Change{List: list, Name: corev1.ResourceName(name), Have: resource.MustParse(have), Want: resource.MustParse(want)}
	}
	have := of(list("cpu", "50m", "memory", "32Mi"), list("cpu", "100m"))
	for _, tc := range []struct {
		name string
		want corev1.ResourceRequirements
		out  []resources.Change
	}{
		{"nothing wanted", of(nil, nil), nil},
		{"the same", of(list("cpu", "0.05"), nil), nil},
		{"all", of(list("memory", "1Mi", "cpu", "1"), list("cpu", "2")), []resources.Change{
			change("requests", "cpu", "50m", "1"), change("requests", "memory", "32Mi", "1Mi"), change("limits", "cpu", "100m", "2")}},
		{"what the container lacks is left out", of(nil, list("memory", "1Mi")), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := resources.Changes(have, tc.want)
			if diff := cmp.Diff(tc.out, got); diff != "" {
				t.Errorf("Changes() (-want +got):\n%s", diff)
			}
			after := resources.Apply(have, got)
			if left := resources.Changes(after, tc.want); len(left) > 0 {
				t.Errorf("after Apply() there is left: %v", left)
			}
		})
	}
	if diff := cmp.Diff(of(list("cpu", "50m", "memory", "32Mi"), list("cpu", "100m")), have); diff != "" {
		t.Errorf("Apply() changed its input (-want +got):\n%s", diff)
	}
}

func TestRestarts(t *testing.T) {
	policies := []corev1.ContainerResizePolicy{
		{ResourceName: corev1.ResourceCPU, RestartPolicy: corev1.NotRequired},
		{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer},
	}
	for name, want := range map[corev1.ResourceName]bool{corev1.ResourceCPU: false, corev1.ResourceMemory: true} {
		if got := resources.Restarts(policies, []resources.Change{{List: "limits", Name: name}}); got != want {
			t.Errorf("Restarts() for %s = %t, want %t", name, got, want)
		}
	}
}

// As kubelet and API server answered for pods of these containers.
func TestQOSClass(t *testing.T) {
	same := list("cpu", "1", "memory", "1Mi")
	for _, tc := range []struct {
		name       string
		containers []corev1.ResourceRequirements
		want       corev1.PodQOSClass
	}{
		{"nothing", []corev1.ResourceRequirements{of(nil, nil), of(nil, nil)}, corev1.PodQOSBestEffort},
		{"zero is nothing", []corev1.ResourceRequirements{of(list("cpu", "0"), nil)}, corev1.PodQOSBestEffort},
		{"only what does not count", []corev1.ResourceRequirements{of(list("ephemeral-storage", "1Gi"), nil)}, corev1.PodQOSBestEffort},
		{"all limited to what they request", []corev1.ResourceRequirements{of(same, same), of(same, same)}, corev1.PodQOSGuaranteed},
		{"one requests less", []corev1.ResourceRequirements{of(same, same), of(list("cpu", "1", "memory", "1Ki"), same)}, corev1.PodQOSBurstable},
		{"one says nothing", []corev1.ResourceRequirements{of(same, same), of(nil, nil)}, corev1.PodQOSBurstable},
		{"cpu alone", []corev1.ResourceRequirements{of(list("cpu", "1"), list("cpu", "1"))}, corev1.PodQOSBurstable},
		{"a request alone", []corev1.ResourceRequirements{of(nil, nil), of(list("cpu", "1m"), nil)}, corev1.PodQOSBurstable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var containers []corev1.Container
			for _, r := range tc.containers {
				containers = append(containers, corev1.Container{Resources: r})
			}
			if got := resources.QOSClass(containers); got != tc.want {
				t.Errorf("QOSClass() = %s, want %s", got, tc.want)
			}
		})
	}
}
