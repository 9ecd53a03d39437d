package limits_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/limits"
)

// wanting is a quota by its spec, the status of which nobody has written yet.
func wanting(hard corev1.ResourceList, changes ...func(*corev1.ResourceQuotaSpec)) limits.Namespace {
	namespace := quota(nil, nil, changes...)
	namespace.Quotas[0].Spec.Hard = hard
	return namespace
}

func both(a, b limits.Namespace) limits.Namespace {
	return limits.Namespace{Ranges: append(a.Ranges, b.Ranges...), Quotas: append(a.Quotas, b.Quotas...)}
}

func TestAlone(t *testing.T) {
	of := corev1.LimitTypeContainer
	agent := container("agent", list("cpu", "100m", "memory", "32Mi"), list("cpu", "1"))
	quiet := container("agent", nil, nil)
	limited := container("agent", nil, list("memory", "32Mi"))
	const byRange, byQuota = "with the sidecars every pod would be refused by LimitRange limits: ", "with the sidecars every pod would be refused by ResourceQuota quota: "
	for _, c := range []struct {
		name      string
		namespace limits.Namespace
		sidecar   corev1.Container
		reason    v1alpha1.Reason
		message   string
	}{
		{"nothing limits", limits.Namespace{}, quiet, "", ""},
		{"within the range", ranged(corev1.LimitRangeItem{Type: of, Max: list("cpu", "1"), Min: list("cpu", "50m")}), agent, "", ""},
		{"above the most", ranged(corev1.LimitRangeItem{Type: of, Max: list("cpu", "500m")}), agent, v1alpha1.ReasonLimitRangeConflict,
			byRange + `container "agent" has the limit 1 for cpu, and 500m is the most`},
		{"below the least", ranged(corev1.LimitRangeItem{Type: of, Min: list("memory", "64Mi")}), agent, v1alpha1.ReasonLimitRangeConflict,
			byRange + `container "agent" requests 32Mi of memory, and 64Mi is the least`},
		{"too uneven", ranged(corev1.LimitRangeItem{Type: of, MaxLimitRequestRatio: list("cpu", "4")}), agent, v1alpha1.ReasonLimitRangeConflict,
			byRange + `container "agent" has the limit 1 for cpu, more than 4 times the request of 100m`},
		{"nothing written", ranged(corev1.LimitRangeItem{Type: of, Max: list("cpu", "1")}), quiet, v1alpha1.ReasonLimitRangeConflict,
			byRange + `container "agent" has no limit for cpu, of which 1 is the most`},
		{"nothing written, and a default", ranged(corev1.LimitRangeItem{Type: of, Max: list("cpu", "1"), Default: list("cpu", "1")}), quiet, "", ""},
		{"the second item", ranged(corev1.LimitRangeItem{Type: of, Max: list("cpu", "2")}, corev1.LimitRangeItem{Type: of, Max: list("cpu", "500m")}), agent,
			v1alpha1.ReasonLimitRangeConflict, byRange + `container "agent" has the limit 1 for cpu, and 500m is the most`},
		{"the pod as a whole is another matter", ranged(corev1.LimitRangeItem{Type: corev1.LimitTypePod, Max: list("cpu", "1m")}), agent, "", ""},

		{"what every container must say", wanting(list("limits.memory", "10Gi")), agent, v1alpha1.ReasonQuotaConflict, byQuota + `container "agent" must say limits.memory`},
		{"by a short name", wanting(list("memory", "10Gi")), quiet, v1alpha1.ReasonQuotaConflict, byQuota + `container "agent" must say memory`},
		{"what the sidecar says", wanting(list("limits.cpu", "10", "requests.memory", "10Gi")), agent, "", ""},
		{"a limit is a request", wanting(list("requests.memory", "10Gi")), limited, "", ""},
		{"what a LimitRange says for it", both(ranged(corev1.LimitRangeItem{Type: of, Default: list("memory", "64Mi")}), wanting(list("limits.memory", "10Gi"))), agent, "", ""},
		{"what nobody has to say", wanting(list("pods", "10", "services", "1", "requests.ephemeral-storage", "1Gi", "requests.storage", "1Gi")), quiet, "", ""},
		{"what is left is another matter", quota(list("limits.cpu", "10m"), list("limits.cpu", "10m")), agent, "", ""},
		{"a quota with a scope may count any pod", wanting(list("limits.memory", "10Gi"), scoped(corev1.ResourceQuotaScopeTerminating)), agent, v1alpha1.ReasonQuotaConflict,
			byQuota + `container "agent" must say limits.memory`},
	} {
		t.Run(c.name, func(t *testing.T) {
			template := &v1alpha1.SidecarTemplate{Sidecars: []v1alpha1.Sidecar{{Container: c.sidecar}}}
			asInit := &v1alpha1.SidecarTemplate{InitContainers: []v1alpha1.InitContainer{{Container: c.sidecar}}}
			for _, template := range []*v1alpha1.SidecarTemplate{template, asInit} {
				got := c.namespace.Alone(template)
				switch {
				case c.reason == "" && got != nil:
					t.Errorf("%s: %s", got.Reason, got.Message)
				case c.reason != "" && (got == nil || got.Reason != c.reason || got.Message != c.message+": write resources that fit into the template"):
					t.Errorf("got %+v, want %s: %s", got, c.reason, c.message)
				}
			}
		})
	}
}

// Whatever is refused alone is refused with an app that the namespace takes.
func TestWhatIsRefusedAloneIsRefusedWithAnApp(t *testing.T) {
	app := container("app", list("cpu", "100m", "memory", "64Mi"), list("cpu", "200m", "memory", "64Mi"))
	agent := container("agent", list("cpu", "100m"), nil)
	template := &v1alpha1.SidecarTemplate{Sidecars: []v1alpha1.Sidecar{{Container: agent}}}
	for _, name := range []corev1.ResourceName{"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"} {
		hard := corev1.ResourceList{name: list("cpu", "10Gi")["cpu"]}
		namespace := wanting(hard)
		namespace.Quotas[0].Status.Hard = hard
		alone, together := namespace.Alone(template), namespace.Check(pod(app), pod(app, native(agent)))
		if (alone == nil) != (together == nil) {
			t.Errorf("%s: alone %+v, together %+v", name, alone, together)
		}
	}
}
