package builders

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// TemplateBuilder builds a template.
type TemplateBuilder struct{ template v1alpha1.SidecarTemplate }

// Template is a template with one native sidecar of that image.
func Template(name, image string) *TemplateBuilder {
	return (&TemplateBuilder{}).Sidecar(name, image)
}

// Clone is an independent copy.
func (b *TemplateBuilder) Clone() *TemplateBuilder {
	return &TemplateBuilder{template: *b.template.DeepCopy()}
}

// Obj is the template.
func (b *TemplateBuilder) Obj() v1alpha1.SidecarTemplate { return *b.template.DeepCopy() }

// Revision is the template as a revision.
func (b *TemplateBuilder) Revision(number int64) *revision.Revision {
	return &revision.Revision{Hash: revision.Hash(b.template), Number: number, Template: revision.Normalize(b.template)}
}

// With changes the template in a way that no other method does.
func (b *TemplateBuilder) With(change func(*v1alpha1.SidecarTemplate)) *TemplateBuilder {
	change(&b.template)
	return b
}

// Sidecar adds a native sidecar.
func (b *TemplateBuilder) Sidecar(name, image string) *TemplateBuilder {
	return b.add(name, image, v1alpha1.ModeNative)
}

// Classic adds a sidecar of mode Container.
func (b *TemplateBuilder) Classic(name, image string) *TemplateBuilder {
	return b.add(name, image, v1alpha1.ModeContainer)
}

func (b *TemplateBuilder) add(name, image string, mode v1alpha1.SidecarMode) *TemplateBuilder {
	b.template.Sidecars = append(b.template.Sidecars,
		v1alpha1.Sidecar{Container: corev1.Container{Name: name, Image: image}, Mode: mode})
	return b
}

// First changes the first sidecar.
func (b *TemplateBuilder) First(change func(*v1alpha1.Sidecar)) *TemplateBuilder {
	change(&b.template.Sidecars[0])
	return b
}

// Image changes the first sidecar's image.
func (b *TemplateBuilder) Image(image string) *TemplateBuilder {
	b.template.Sidecars[0].Image = image
	return b
}

// Probe gives the first sidecar a startup probe.
func (b *TemplateBuilder) Probe() *TemplateBuilder {
	b.template.Sidecars[0].StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
		HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(2020)}}}
	return b
}

// Env gives the first sidecar a variable.
func (b *TemplateBuilder) Env(name, value string) *TemplateBuilder {
	b.template.Sidecars[0].Env = append(b.template.Sidecars[0].Env, corev1.EnvVar{Name: name, Value: value})
	return b
}

// Mount gives the first sidecar a mount.
func (b *TemplateBuilder) Mount(volume, path string) *TemplateBuilder {
	b.template.Sidecars[0].VolumeMounts = append(b.template.Sidecars[0].VolumeMounts,
		corev1.VolumeMount{Name: volume, MountPath: path})
	return b
}

// Volume adds an emptyDir.
func (b *TemplateBuilder) Volume(name string) *TemplateBuilder {
	b.template.Volumes = append(b.template.Volumes, EmptyDir(name))
	return b
}

// App adds an entry for the app's containers.
func (b *TemplateBuilder) App(entry v1alpha1.AppContainer) *TemplateBuilder {
	b.template.AppContainers = append(b.template.AppContainers, entry)
	return b
}

// EmptyDir is a volume.
func EmptyDir(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
}

// RolloutBuilder builds the settings of a roll-out.
type RolloutBuilder struct{ spec v1alpha1.RolloutSpec }

// Rollout is settings that bound nothing: tests of one budget must not meet another.
func Rollout() *RolloutBuilder {
	b := &RolloutBuilder{}
	b.spec.Steps = []v1alpha1.Step{{Name: "fleet", UpTo: ptr.To(intstr.FromString("100%"))}}
	return b.Budget(v1alpha1.PerFleet, "100%").Budget(v1alpha1.PerWorkload, "100%")
}

// Clone is an independent copy.
func (b *RolloutBuilder) Clone() *RolloutBuilder { return &RolloutBuilder{spec: *b.spec.DeepCopy()} }

// Obj is the settings.
func (b *RolloutBuilder) Obj() *v1alpha1.RolloutSpec { return b.spec.DeepCopy() }

// With changes the settings in a way that no other method does.
func (b *RolloutBuilder) With(change func(*v1alpha1.RolloutSpec)) *RolloutBuilder {
	change(&b.spec)
	return b
}

// Budget replaces a budget by a count ("3") or a percentage ("25%").
func (b *RolloutBuilder) Budget(per v1alpha1.BudgetScope, maxUnavailable string) *RolloutBuilder {
	value := intstr.Parse(maxUnavailable)
	for i := range b.spec.Budgets {
		if b.spec.Budgets[i].Per == per {
			b.spec.Budgets[i].MaxUnavailable = &value
			return b
		}
	}
	b.spec.Budgets = append(b.spec.Budgets, v1alpha1.Budget{Per: per, MaxUnavailable: &value})
	return b
}

// Steps replaces the steps.
func (b *RolloutBuilder) Steps(steps ...v1alpha1.Step) *RolloutBuilder {
	b.spec.Steps = steps
	return b
}

// Step is a step that reaches so much of the fleet, a count ("3") or a percentage ("25%"), and soaks.
func Step(name, upTo string, soak time.Duration) v1alpha1.Step {
	return v1alpha1.Step{Name: name, UpTo: ptr.To(intstr.Parse(upTo)), Soak: &metav1.Duration{Duration: soak}}
}

// Method replaces the method.
func (b *RolloutBuilder) Method(method v1alpha1.RolloutMethod) *RolloutBuilder {
	b.spec.Method = method
	return b
}

// Drain sets for how long pods are drained.
func (b *RolloutBuilder) Drain(seconds int32) *RolloutBuilder {
	b.spec.Drain.Seconds = seconds
	return b
}

// Topology adds a budget for each value of a label of nodes.
func (b *RolloutBuilder) Topology(key, maxUnavailable string) *RolloutBuilder {
	b.Budget(v1alpha1.PerTopology, maxUnavailable)
	b.spec.Budgets[len(b.spec.Budgets)-1].TopologyKey = key
	return b
}

// Window adds a window.
func (b *RolloutBuilder) Window(schedule string, duration time.Duration) *RolloutBuilder {
	b.spec.Windows = append(b.spec.Windows, v1alpha1.Window{Schedule: schedule, Duration: metav1.Duration{Duration: duration}})
	return b
}

// Health sets minReadySeconds and progressDeadlineSeconds.
func (b *RolloutBuilder) Health(minReady, deadline int32) *RolloutBuilder {
	b.spec.Health = *Health(minReady, deadline)
	return b
}

// Health is settings of how pods are judged.
func Health(minReady, deadline int32) *v1alpha1.HealthSpec {
	return &v1alpha1.HealthSpec{MinReadySeconds: &minReady, ProgressDeadlineSeconds: &deadline}
}

// PDBBuilder builds a PodDisruptionBudget.
type PDBBuilder struct{ pdb *policyv1.PodDisruptionBudget }

// PDB is a PodDisruptionBudget over the pods with a label app of that value. Its status is up to date:
// desired pods must stay healthy, and allowed more may be disrupted.
func PDB(namespace, app string, desired, allowed int32) *PDBBuilder {
	return &PDBBuilder{pdb: &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: app, Generation: 1},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: ptr.To(intstr.FromInt32(desired)),
			Selector:     &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
		},
		Status: policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DesiredHealthy: desired, DisruptionsAllowed: allowed},
	}}
}

// With changes the PodDisruptionBudget.
func (b *PDBBuilder) With(change func(*policyv1.PodDisruptionBudget)) *PDBBuilder {
	change(b.pdb)
	return b
}

// Obj is the PodDisruptionBudget.
func (b *PDBBuilder) Obj() *policyv1.PodDisruptionBudget { return b.pdb.DeepCopy() }
