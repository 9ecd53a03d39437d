package builders

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// App is one workload of a large fleet as the API shows it: a Deployment, its ReplicaSet and their
// pods, with all that a real pod carries.
type App struct {
	Deployment *appsv1.Deployment
	ReplicaSet *appsv1.ReplicaSet
	Pods       []*corev1.Pod
}

// NewApp makes a workload of which all pods run and are ready. They are injected with the policy's
// first revision and, where there is another, were upgraded to that in place at Epoch.
func NewApp(namespace, name string, replicas int, policy string, revisions ...*revision.Revision) App {
	number := map[string]string{"deployment.kubernetes.io/revision": "1"}
	count := int32(replicas)
	a := App{
		Deployment: &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("d/" + namespace + "/" + name), ResourceVersion: "1", Generation: 1, Annotations: number},
			Spec:       appsv1.DeploymentSpec{Replicas: &count},
			Status:     appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: count, UpdatedReplicas: count},
		},
	}
	a.ReplicaSet = &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name + "-6d4b75cb6d", UID: types.UID("r/" + namespace + "/" + name), ResourceVersion: "1", Annotations: number,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: name, UID: a.Deployment.UID, Controller: ptr.To(true)}}},
		Spec:   appsv1.ReplicaSetSpec{Replicas: &count},
		Status: appsv1.ReplicaSetStatus{ObservedGeneration: 1, Replicas: count},
	}
	for i := range replicas {
		pod := a.pod(fmt.Sprintf("%s-%05x", a.ReplicaSet.Name, i)).Injected(policy, revisions[0])
		if len(revisions) > 1 {
			upgraded(pod, policy, revisions[1])
		}
		a.Pods = append(a.Pods, pod.Obj())
	}
	return a
}

// pod has what a pod of an ordinary web app has, and what a kubelet says of it.
func (a *App) pod(name string) *PodBuilder {
	rs := a.ReplicaSet
	return Pod(rs.Namespace, name).Label("app", a.Deployment.Name).Label("pod-template-hash", "6d4b75cb6d").
		Container(corev1.Container{Name: "app", Image: "registry.example/shop/" + a.Deployment.Name + ":2026.1.5",
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
			Env:   []corev1.EnvVar{{Name: "PORT", Value: "8080"}, {Name: "LOG_LEVEL", Value: "info"}},
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("256Mi")}},
			VolumeMounts: []corev1.VolumeMount{{Name: "kube-api-access", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}},
		}).
		With(func(p *corev1.Pod) {
			p.GenerateName, p.CreationTimestamp = rs.Name+"-", metav1.NewTime(Epoch)
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: rs.Name, UID: rs.UID,
				Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true)}}
			p.Spec.NodeName, p.Spec.ServiceAccountName = "node-1", "default"
			p.Spec.Volumes = []corev1.Volume{{Name: "kube-api-access"}}
			p.Status.PodIP, p.Status.HostIP, p.Status.QOSClass = "10.0.0.1", "192.168.0.1", corev1.PodQOSBurstable
			for _, kind := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.ContainersReady, corev1.PodScheduled} {
				p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue,
					ObservedGeneration: 1, LastTransitionTime: metav1.NewTime(Epoch)})
			}
		})
}

// upgraded lets the kubelet restart what an upgrade to the revision changes.
func upgraded(pod *PodBuilder, policy string, to *revision.Revision) {
	pod.Upgraded(policy, to, Epoch)
	for _, sidecar := range to.Template.Sidecars {
		before := StatusOf(pod.pod, sidecar.Name).DeepCopy()
		pod.Restarted(sidecar.Name, Epoch.Add(2*time.Second)).Status(sidecar.Name, func(s *corev1.ContainerStatus) {
			s.RestartCount = 1
			s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ContainerID: before.ContainerID, Reason: "Completed",
				StartedAt: metav1.NewTime(Epoch), FinishedAt: metav1.NewTime(Epoch.Add(time.Second))}
		})
	}
}

// NewApps makes that many pods in as many apps, ten apps a namespace.
func NewApps(pods, apps int, policy string, revisions ...*revision.Revision) []App {
	list := make([]App, apps)
	for i := range list {
		list[i] = NewApp(fmt.Sprintf("team-%02d", i/10), fmt.Sprintf("app-%03d", i), pods/apps, policy, revisions...)
	}
	return list
}

// PodsOf are the pods of all apps.
func PodsOf(apps []App) []*corev1.Pod {
	var pods []*corev1.Pod
	for i := range apps {
		pods = slices.Concat(pods, apps[i].Pods)
	}
	return pods
}
