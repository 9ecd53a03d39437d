// Package injection holds random pods and random templates against a real API server:
// what it takes without the sidecars, it must take with them.
package injection

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/test/envtest/apiserver"
)

// checks is how many random cases are tried; another number can be given with -rapid.checks.
const checks = "500"

const policyName = "random"

var server *apiserver.Server

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	flags := map[string]string{"rapid.checks": checks, "rapid.nofailfile": "true"}
	flag.Parse()
	flag.Visit(func(f *flag.Flag) { delete(flags, f.Name) })
	for name, value := range flags {
		if err := flag.Set(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	var err error
	if server, err = apiserver.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = server.Stop() }() // nothing is tested any more
	return m.Run()
}

// dryRun asks the API server for the pod as it would store it.
func dryRun(pod *corev1.Pod) (*corev1.Pod, error) {
	stored := pod.DeepCopy()
	err := server.Client.Create(context.Background(), stored, client.DryRunAll)
	return stored, err
}

// A case that fails is printed with its seed: -run TestInjected... -rapid.seed=... repeats it.
func TestInjectedPodsAreTaken(t *testing.T) {
	injected, ignored, conflicting := 0, 0, map[v1alpha1.Reason]int{}
	rapid.Check(t, func(t *rapid.T) {
		template := templates().Draw(t, "template")
		pod := pods().Draw(t, "pod")
		if _, err := dryRun(sample(template)); err != nil {
			t.Skip("no policy with this template would be accepted: ", refusal(t, err))
		}
		bare, err := dryRun(pod)
		if err != nil {
			t.Skip("the API server does not take this pod: ", refusal(t, err))
		}
		// The webhook gets pods with their defaults.
		before := pod
		if rapid.Bool().Draw(t, "defaulted") {
			before = asSent(bare)
		}
		r := revision.Next(nil, template)
		additions, conflicts := inject.Render(before, policyName, &r, overridable...)
		if len(conflicts) > 0 {
			conflicting[conflicts[0].Reason]++
			return
		}
		injected++
		if len(additions.Ignored) > 0 {
			ignored++
		}
		after := before.DeepCopy()
		additions.Apply(after)
		checkOnlyAdded(t, before, after, &template)
		checkOnce(t, after, &r)
		if _, err := dryRun(after); err != nil {
			t.Fatalf("the API server takes the pod, and refuses it with the sidecars: %v\nbefore:\n%s\nafter:\n%s", err, dump(before), dump(after))
		}
	})
	t.Logf("%d pods were injected, %d of them without their overrides; these clashed: %v", injected, ignored, conflicting)
	if injected < 50 || ignored < 5 || len(conflicting) < 5 {
		t.Errorf("%d pods were injected, %d of them without their overrides, %v clashed: that proves little", injected, ignored, conflicting)
	}
}

// refusal is an error that is about the pod; others end the test.
func refusal(t *rapid.T, err error) string {
	if !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err) {
		t.Fatalf("asking the API server: %v", err)
	}
	return err.Error()
}

// asSent is a stored pod as the webhook gets it.
func asSent(stored *corev1.Pod) *corev1.Pod {
	pod := stored.DeepCopy()
	pod.UID, pod.ResourceVersion, pod.ManagedFields, pod.Status = "", "", nil, corev1.PodStatus{}
	return pod
}

func dump(pod *corev1.Pod) string {
	data, err := yaml.Marshal(pod.Spec)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// checkOnlyAdded: all that the pod had, it has; the app's containers got mounts and env, and
// only those that the template names.
func checkOnlyAdded(t *rapid.T, before, after *corev1.Pod, template *v1alpha1.SidecarTemplate) {
	mounts, env := map[string]bool{}, map[string]bool{}
	for _, entry := range template.AppContainers {
		for _, m := range entry.VolumeMounts {
			mounts[m.MountPath] = true
		}
		for _, e := range entry.Env {
			env[e.Name] = true
		}
	}
	for i, was := range before.Spec.Containers {
		is := *after.Spec.Containers[i].DeepCopy()
		for _, m := range is.VolumeMounts[len(was.VolumeMounts):] {
			if !mounts[m.MountPath] {
				t.Fatalf("container %s got a mount at %s, which the template does not name", was.Name, m.MountPath)
			}
		}
		for _, e := range is.Env[len(was.Env):] {
			if !env[e.Name] {
				t.Fatalf("container %s got the variable %s, which the template does not name", was.Name, e.Name)
			}
		}
		is.VolumeMounts, is.Env = is.VolumeMounts[:len(was.VolumeMounts)], is.Env[:len(was.Env)]
		if !equality.Semantic.DeepEqual(was, is) {
			t.Fatalf("container %s was changed:\nbefore: %+v\nafter: %+v", was.Name, was, is)
		}
	}
	added := inject.InjectedNames(after)
	own := slices.DeleteFunc(slices.Clone(after.Spec.InitContainers), func(c corev1.Container) bool { return added[c.Name] })
	if len(before.Spec.InitContainers) > 0 && !equality.Semantic.DeepEqual(before.Spec.InitContainers, own) {
		t.Fatalf("the pod's own init containers were changed")
	}
	if len(before.Spec.Volumes) > 0 && !equality.Semantic.DeepEqual(before.Spec.Volumes, after.Spec.Volumes[:len(before.Spec.Volumes)]) {
		t.Fatalf("the pod's own volumes were changed")
	}
	for key, value := range before.Labels {
		if after.Labels[key] != value {
			t.Fatalf("label %s was changed", key)
		}
	}
}

// checkOnce: a pod that comes by a second time is left as it is.
func checkOnce(t *rapid.T, injected *corev1.Pod, r *revision.Revision) {
	again, conflicts := inject.Render(injected, policyName, r)
	if len(conflicts) > 0 {
		t.Fatalf("an injected pod clashes with what it was given: %s", inject.Explain(conflicts))
	}
	if ops := again.Patch(injected); len(ops) > 0 {
		t.Fatalf("an injected pod gets more the second time: %v", ops)
	}
	twice := injected.DeepCopy()
	again.Apply(twice)
	if !equality.Semantic.DeepEqual(injected, twice) {
		t.Fatalf("an injected pod is changed the second time")
	}
}
