package limits_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/limits"
)

func list(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func container(name string, requests, limits corev1.ResourceList) corev1.Container {
	return corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}
}

// native is a sidecar, which runs beside the app.
func native(c corev1.Container) *corev1.Container {
	c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
	return &c
}

func pod(app corev1.Container, sidecars ...*corev1.Container) *corev1.Pod {
	p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{app}}}
	for _, s := range sidecars {
		p.Spec.InitContainers = append(p.Spec.InitContainers, *s)
	}
	return p
}

func ranged(items ...corev1.LimitRangeItem) limits.Namespace {
	r := corev1.LimitRange{Spec: corev1.LimitRangeSpec{Limits: items}}
	r.Name = "limits"
	return limits.Namespace{Ranges: []corev1.LimitRange{r}}
}

func quota(hard, used corev1.ResourceList, changes ...func(*corev1.ResourceQuotaSpec)) limits.Namespace {
	q := corev1.ResourceQuota{Status: corev1.ResourceQuotaStatus{Hard: hard, Used: used}}
	q.Name = "quota"
	for _, change := range changes {
		change(&q.Spec)
	}
	return limits.Namespace{Quotas: []corev1.ResourceQuota{q}}
}

func scoped(scope corev1.ResourceQuotaScope) func(*corev1.ResourceQuotaSpec) {
	return func(s *corev1.ResourceQuotaSpec) { s.Scopes = append(s.Scopes, scope) }
}

func TestCheck(t *testing.T) {
	of := corev1.LimitTypeContainer
	small := container("app", list("cpu", "100m", "memory", "64Mi"), list("cpu", "200m", "memory", "64Mi"))
	silent := container("app", nil, nil)
	agent := native(container("agent", list("cpu", "100m", "memory", "32Mi"), list("cpu", "1", "memory", "32Mi")))
	quiet := native(container("agent", nil, nil))
	for _, c := range []struct {
		name      string
		namespace limits.Namespace
		app       corev1.Container
		sidecar   *corev1.Container
		want      v1alpha1.Reason
		message   string
	}{
		{"nothing limits", limits.Namespace{}, silent, quiet, "", ""},
		{"within the range", ranged(corev1.LimitRangeItem{Type: of, Max: list("cpu", "1"), Min: list("cpu", "50m")}), small, agent, "", ""},
		{"above the most", ranged(corev1.LimitRangeItem{Type: of, Max: list("cpu", "500m")}), small, agent, v1alpha1.ReasonLimitRangeConflict,
			`with the sidecars the pod would be refused by LimitRange limits: container "agent" has the limit 1 for cpu, and 500m is the most`},
		{"below the least", ranged(corev1.LimitRangeItem{Type: of, Min: list("memory", "64Mi")}), small, agent, v1alpha1.ReasonLimitRangeConflict,
			`with the sidecars the pod would be refused by LimitRange limits: container "agent" requests 32Mi of memory, and 64Mi is the least`},
		{"nothing written", ranged(corev1.LimitRangeItem{Type: of, Max: list("cpu", "1")}), small, quiet, v1alpha1.ReasonLimitRangeConflict,
			`with the sidecars the pod would be refused by LimitRange limits: container "agent" has no limit for cpu, of which 1 is the most`},
		{"nothing written, and a default", ranged(corev1.LimitRangeItem{Type: of, Max: list("cpu", "1"), Default: list("cpu", "1"), DefaultRequest: list("cpu", "1")}), small, quiet, "", ""},
		{"too uneven", ranged(corev1.LimitRangeItem{Type: of, MaxLimitRequestRatio: list("cpu", "4")}), small, agent, v1alpha1.ReasonLimitRangeConflict,
			`with the sidecars the pod would be refused by LimitRange limits: container "agent" has the limit 1 for cpu, more than 4 times the request of 100m`},
		{"the pod as a whole", ranged(corev1.LimitRangeItem{Type: corev1.LimitTypePod, Max: list("cpu", "1100m")}), small, agent, v1alpha1.ReasonLimitRangeConflict,
			`with the sidecars the pod would be refused by LimitRange limits: the pod has the limit 1200m for cpu, and 1100m is the most`},
		{"refused anyway", ranged(corev1.LimitRangeItem{Type: of, Max: list("cpu", "150m")}), small, agent, "", ""},
		{"of something else", ranged(corev1.LimitRangeItem{Type: corev1.LimitTypePersistentVolumeClaim, Max: list("storage", "1Gi")}), small, agent, "", ""},

		{"room in the quota", quota(list("requests.cpu", "1", "pods", "1"), list("requests.cpu", "800m", "pods", "1")), small, agent, "", ""},
		{"no room in the quota", quota(list("requests.cpu", "1"), list("requests.cpu", "850m")), small, agent, v1alpha1.ReasonQuotaConflict,
			"with the sidecars the pod would be refused by ResourceQuota quota: requests.cpu: the pod asks for 200m, 850m of 1 are used"},
		{"no room for limits", quota(list("limits.memory", "96Mi"), list("limits.memory", "1Mi")), small, agent, v1alpha1.ReasonQuotaConflict,
			"with the sidecars the pod would be refused by ResourceQuota quota: limits.memory: the pod asks for 96Mi, 1Mi of 96Mi are used"},
		{"a short name", quota(list("cpu", "1"), list("cpu", "850m")), small, agent, v1alpha1.ReasonQuotaConflict,
			"with the sidecars the pod would be refused by ResourceQuota quota: cpu: the pod asks for 200m, 850m of 1 are used"},
		{"no room for the app alone", quota(list("cpu", "1"), list("cpu", "950m")), small, agent, "", ""},
		{"what every container must say", quota(list("limits.cpu", "10"), nil), small, quiet, v1alpha1.ReasonQuotaConflict,
			`with the sidecars the pod would be refused by ResourceQuota quota: container "agent" must say limits.cpu`},
		{"a quota of pods that are best effort", quota(list("requests.cpu", "100m"), nil, scoped(corev1.ResourceQuotaScopeBestEffort)), small, agent, "", ""},
		{"no best effort any more", quota(list("requests.cpu", "50m"), nil, scoped(corev1.ResourceQuotaScopeNotBestEffort)), silent, agent, v1alpha1.ReasonQuotaConflict,
			`with the sidecars the pod would be refused by ResourceQuota quota: container "app" must say requests.cpu`},
		{"a quota of pods that end", quota(list("requests.cpu", "100m"), nil, scoped(corev1.ResourceQuotaScopeTerminating)), small, agent, "", ""},
		{"a quota of pods that don't", quota(list("requests.cpu", "150m"), nil, scoped(corev1.ResourceQuotaScopeNotTerminating)), small, agent, v1alpha1.ReasonQuotaConflict,
			"with the sidecars the pod would be refused by ResourceQuota quota: requests.cpu: the pod asks for 200m, 0 of 150m are used"},
		{"a quota of another priority", quota(list("cpu", "150m"), nil, func(s *corev1.ResourceQuotaSpec) {
			s.ScopeSelector = &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
				{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{"high"}}}}
		}), small, agent, "", ""},
		{"a quota whose scope is not known", quota(list("cpu", "150m"), nil, scoped("Unheard")), small, agent, "", ""},
		{"a quota of which nothing is known yet", quota(nil, nil), small, agent, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.namespace.Check(pod(c.app), pod(c.app, c.sidecar))
			if c.want == "" {
				if got != nil {
					t.Errorf("%s: %s", got.Reason, got.Message)
				}
				return
			}
			if got == nil || got.Reason != c.want || got.Message != c.message {
				t.Errorf("got %+v, want %s: %s", got, c.want, c.message)
			}
		})
	}
}

func TestCheckLeavesThePodAsItIs(t *testing.T) {
	namespace := ranged(corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, Default: list("cpu", "1"), DefaultRequest: list("cpu", "1")})
	after := pod(container("app", nil, nil), native(container("agent", nil, nil)))
	namespace.Check(pod(container("app", nil, nil)), after)
	if len(after.Spec.Containers[0].Resources.Limits) > 0 {
		t.Error("the pod has got defaults that it is not created with")
	}
}
