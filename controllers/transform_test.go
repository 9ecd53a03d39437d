package controllers_test

import (
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/controllers"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

var _ = DescribeTable("A cached node keeps what prefetching and judging pods look at", func(kubelet string, images int) {
	since := metav1.NewTime(builders.At(1))
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", ResourceVersion: "7", Labels: map[string]string{"zone": "a"}, Annotations: map[string]string{"a": "b"}},
		Spec:       corev1.NodeSpec{PodCIDR: "10.0.0.0/24"},
		Status: corev1.NodeStatus{
			NodeInfo:   corev1.NodeSystemInfo{KubeletVersion: kubelet, MachineID: "x"},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeDiskPressure}, {Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: since, LastHeartbeatTime: metav1.Now(), Message: "x"}},
			Images:     []corev1.ContainerImage{{Names: []string{"agent:1"}, SizeBytes: 5}},
		},
	}
	stripped, err := controllers.StripNode(node)
	Expect(err).NotTo(HaveOccurred())
	want := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", ResourceVersion: "7", Labels: map[string]string{"zone": "a"}},
		Status: corev1.NodeStatus{
			NodeInfo:   corev1.NodeSystemInfo{KubeletVersion: kubelet},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: since}},
		},
	}
	if images > 0 {
		want.Status.Images = []corev1.ContainerImage{{Names: []string{"agent:1"}}}
	}
	Expect(stripped).To(Equal(want))
},
	Entry("without images, where a prefetch pod tells", "v1.37.2", 0),
	Entry("with images, where nothing else does", "v1.34.1", 1),
)

// What is stripped of a pod is nothing that a judgement looks at.
var _ = It("A cached pod is judged like the whole one", func() {
	born := builders.Template("agent", "registry.example/agent:v1").Probe()
	one, two := born.Revision(1), born.Clone().Image("registry.example/agent:v2").Revision(2)
	view := &fleet.View{Policy: "agent", Target: two, Revisions: []revision.Revision{*one, *two}, Watching: true, Now: builders.At(600)}
	var whole, cached []fleet.Member
	stripper := &controllers.PodStripper{}
	for _, pod := range builders.PodsOf(builders.NewApps(8, 2, "agent", one, two)) {
		pod.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet"}}
		whole = append(whole, fleet.Member{Pod: pod})
		stripped, err := stripper.Strip(pod.DeepCopy())
		Expect(err).NotTo(HaveOccurred())
		cached = append(cached, fleet.Member{Pod: stripped.(*corev1.Pod)})
	}
	Expect(cached[0].Pod.ManagedFields).To(BeEmpty())
	Expect(cached[0].Pod.Status.PodIP).To(BeEmpty())
	Expect(cached[0].Pod.Status.Conditions).NotTo(ContainElement(HaveField("Type", corev1.PodScheduled)))
	want, got := fleet.Judge(whole, view), fleet.Judge(cached, view)
	Expect(want[0].Updated()).To(BeTrue())
	Expect(cmp.Diff(want, got, cmpopts.IgnoreFields(fleet.PodState{}, "Member"))).To(BeEmpty())
})

var _ = It("A cached pod clashes with the sidecars as the whole one does", func() {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Env: []corev1.EnvVar{
		{Name: "SECRET", Value: "x"}, {Name: "NAME", Value: "$(SECRET)"}, {Name: "URL", Value: "http://$(HOST)"}},
		EnvFrom: []corev1.EnvFromSource{{Prefix: "APP_", ConfigMapRef: &corev1.ConfigMapEnvSource{}}}}}}}
	stripped, err := (&controllers.PodStripper{}).Strip(pod)
	Expect(err).NotTo(HaveOccurred())
	Expect(stripped.(*corev1.Pod).Spec.Containers[0].Env).To(Equal([]corev1.EnvVar{{Name: "SECRET"}, {Name: "NAME", Value: "$(SECRET)"}, {Name: "URL", Value: "http://$(HOST)"}}))
	for _, name := range []string{"NAME", "URL"} {
		template := builders.Template("agent", "agent:v1").First(func(s *v1alpha1.Sidecar) {
			s.EnvFromApp = []v1alpha1.AppEnv{{Names: []string{name}}}
		})
		_, conflicts := inject.Render(stripped.(*corev1.Pod), "logs", template.Revision(1))
		Expect(conflicts).To(HaveExactElements(HaveField("Reason", v1alpha1.ReasonAppEnvMissing)), name)
	}
})

var _ = It("A cached pod keeps of its volumes what can be mounted in them, and shares it with others", func() {
	pod := func() *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{
			Volumes: []corev1.Volume{
				{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{Items: []corev1.KeyToPath{{Key: "a", Path: "b"}}}}},
				{Name: "archive", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "archive", ReadOnly: true}}},
				{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
				{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}}},
			},
			Containers: []corev1.Container{{Name: "app", VolumeMounts: []corev1.VolumeMount{
				{Name: "config", MountPath: "/config", ReadOnly: true}, {Name: "archive", MountPath: "/archive"}, {Name: "data", MountPath: "/data"},
				{Name: "token", MountPath: inject.TokenPath, ReadOnly: true}}}},
		}}
	}
	stripper := &controllers.PodStripper{}
	var cached []*corev1.Pod
	for range 2 {
		stripped, err := stripper.Strip(pod())
		Expect(err).NotTo(HaveOccurred())
		cached = append(cached, stripped.(*corev1.Pod))
	}
	for i, v := range cached[0].Spec.Volumes {
		Expect(v.ConfigMap).To(BeIdenticalTo(cached[1].Spec.Volumes[i].ConfigMap))
		Expect(v.Image).To(BeIdenticalTo(cached[1].Spec.Volumes[i].Image))
	}
	Expect(cached[0].Spec.Volumes[2]).To(Equal(corev1.Volume{Name: "data"}))
	for _, mount := range []string{"/config", "/archive", "/data", inject.TokenPath} {
		template := builders.Template("agent", "agent:v1").Volume("logs").App(v1alpha1.AppContainer{Selector: "*",
			VolumeMounts: []corev1.VolumeMount{{Name: "logs", MountPath: mount + "/logs"}}})
		_, want := inject.Render(pod(), "logs", template.Revision(1))
		_, got := inject.Render(cached[0], "logs", template.Revision(1))
		Expect(got).To(Equal(want), mount)
		if mount == "/archive" {
			Expect(want).NotTo(BeEmpty(), mount)
		} else {
			Expect(want).To(BeEmpty(), mount)
		}
	}
})
