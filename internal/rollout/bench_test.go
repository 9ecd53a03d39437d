package rollout_test

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/cputime"
)

// BenchmarkPass judges 10,000 pods of 500 workloads, all of which were upgraded in place once,
// and plans what to do now.
func BenchmarkPass(b *testing.B) {
	const policy = "agent"
	born := builders.Template(policy, "registry.example/agent:v1").Probe()
	one, two, three := born.Revision(1), born.Clone().Image("registry.example/agent:v2").Revision(2), born.Clone().Image("registry.example/agent:v3").Revision(3)
	revisions := []revision.Revision{*one, *two, *three}
	var members []fleet.Member
	for _, app := range builders.NewApps(10_000, 500, policy, one, two) {
		for _, pod := range app.Pods {
			members = append(members, fleet.Member{Pod: pod,
				Workload: fleet.Workload{Kind: "Deployment", Namespace: pod.Namespace, Name: app.Deployment.Name},
				Owner:    fleet.Owner{UID: string(app.ReplicaSet.UID), Settled: true}})
		}
	}
	// A cache lists in no order.
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	for _, bc := range []struct {
		name           string
		target, stable *revision.Revision
	}{
		{"nothing to do", two, two},
		{"at the end of a roll-out", two, one},
		{"at the beginning of a roll-out", three, two},
	} {
		b.Run(bc.name, func(b *testing.B) {
			object := &v1alpha1.SidecarPolicy{}
			object.Name, object.UID = policy, types.UID(policy)
			object.Spec.Rollout = *builders.Rollout().Health(10, 300).Obj()
			object.Status.StableRevision, object.Status.TargetRevision = bc.stable.Hash, bc.target.Hash
			aim := rollout.TakeAim(object, bc.target, revisions)
			view := &fleet.View{Policy: policy, Target: aim.Target, Revisions: revisions, Watching: aim.Rolling(),
				Records: &fleet.Records{},
				Health:  map[string]*v1alpha1.HealthSpec{policy: &object.Spec.Rollout.Health}, Now: builders.Epoch.Add(time.Hour)}
			b.ReportAllocs()
			started := cputime.Now()
			for b.Loop() {
				plan := rollout.Make(aim.Input(fleet.Judge(members, view), nil, view.Now))
				runtime.KeepAlive(plan)
			}
			b.ReportMetric(float64((cputime.Now()-started).Microseconds())/1000/float64(b.N), "CPU-ms/op")
		})
	}
}
