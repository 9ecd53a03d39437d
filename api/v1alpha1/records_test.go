package v1alpha1_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// Pods carry records that other builds wrote: their form is part of the API.
func TestRecordsKeepTheirForm(t *testing.T) {
	injected := v1alpha1.InjectionRecord{Revision: "r1", Sidecars: []string{"agent", "proxy"}}
	if got, want := injected.Encode(), `{"revision":"r1","sidecars":["agent","proxy"]}`; got != want {
		t.Errorf("injection record %s, want %s", got, want)
	}
	full := v1alpha1.InjectionRecord{Revision: "r1", Sidecars: []string{"agent"}, InitContainers: []string{"setup"}, Overrides: map[string]v1alpha1.Override{
		"agent": {Env: map[string]string{"LEVEL": "debug"}, Resources: v1alpha1.OverriddenResources{Limits: corev1.ResourceList{"cpu": resource.MustParse("1")}}}}}
	if got, want := full.Encode(), `{"revision":"r1","sidecars":["agent"],"initContainers":["setup"],"overrides":{"agent":{"env":{"LEVEL":"debug"},"resources":{"limits":{"cpu":"1"}}}}}`; got != want {
		t.Errorf("injection record %s, want %s", got, want)
	}
	noted := v1alpha1.InjectionRecord{Revision: "r1", Sidecars: []string{"agent"}, After: []string{"agent"}, Volumes: []string{"logs"}, Labels: []string{"l"},
		Annotations: []string{"a"}, App: map[string]v1alpha1.AppRecord{"web": {Env: []string{"LEVEL"}, MountPaths: []string{"/logs"}}}}
	if got, want := noted.Encode(), `{"revision":"r1","sidecars":["agent"],"after":["agent"],"volumes":["logs"],"labels":["l"],"annotations":["a"],"app":{"web":{"env":["LEVEL"],"mountPaths":["/logs"]}}}`; got != want {
		t.Errorf("injection record %s, want %s", got, want)
	}
	upgraded := v1alpha1.UpgradeRecord{Revision: "r2", At: metav1.NewTime(time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC)),
		Before: map[string]string{"agent": "containerd://1"}, WasReady: true}
	if got, want := upgraded.Encode(), `{"revision":"r2","at":"2026-01-05T08:00:00Z","before":{"agent":"containerd://1"},"wasReady":true}`; got != want {
		t.Errorf("upgrade record %s, want %s", got, want)
	}
	annotations := map[string]string{v1alpha1.InjectedAnnotation("logs"): injected.Encode(), v1alpha1.UpgradeAnnotation("logs"): upgraded.Encode()}
	gotInjected, err := v1alpha1.ParseInjectionRecord(annotations, "logs")
	if diff := cmp.Diff(&injected, gotInjected); err != nil || diff != "" {
		t.Errorf("ParseInjectionRecord: %v (-want +got):\n%s", err, diff)
	}
	gotUpgraded, err := v1alpha1.ParseUpgradeRecord(annotations, "logs")
	if err != nil || !gotUpgraded.At.Time.Equal(upgraded.At.Time) {
		t.Fatalf("ParseUpgradeRecord = %+v, %v", gotUpgraded, err)
	}
	gotUpgraded.At = upgraded.At
	if diff := cmp.Diff(&upgraded, gotUpgraded); diff != "" {
		t.Errorf("ParseUpgradeRecord (-want +got):\n%s", diff)
	}
}

func TestRecordOfAnotherPolicyOrNoneIsNil(t *testing.T) {
	annotations := map[string]string{v1alpha1.UpgradeAnnotation("mesh"): "{}"}
	if got, err := v1alpha1.ParseUpgradeRecord(annotations, "logs"); got != nil || err != nil {
		t.Errorf("ParseUpgradeRecord = %v, %v; want nil, nil", got, err)
	}
	if got, err := v1alpha1.ParseInjectionRecord(nil, "logs"); got != nil || err != nil {
		t.Errorf("ParseInjectionRecord = %v, %v; want nil, nil", got, err)
	}
	if _, err := v1alpha1.ParseUpgradeRecord(map[string]string{v1alpha1.UpgradeAnnotation("logs"): "{"}, "logs"); err == nil {
		t.Error("a record that can't be read gives no error")
	}
}
