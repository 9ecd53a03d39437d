package prefetch_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/sidecar-dev/sidecar-operator/internal/prefetch"
)

func names(pods []*corev1.Pod) []string {
	var all []string
	for _, pod := range pods {
		all = append(all, pod.Namespace+"/"+pod.Spec.NodeName)
	}
	return all
}

func TestPlan(t *testing.T) {
	cart := wantOf(newPod("shop", "cart", "n1").Obj(), newImage)
	cart2 := wantOf(newPod("shop", "cart2", "n1").Obj(), newImage)
	secretive := wantOf(newPod("shop", "cart3", "n1").With(secret("registry")).Obj(), newImage)
	bank := wantOf(newPod("bank", "till", "n1").Obj(), newImage)
	succeeded := corev1.PodStatus{Phase: corev1.PodSucceeded}
	for _, tc := range []struct {
		name           string
		change         func(*prefetch.Input)
		wants          []prefetch.Want
		create, remove []string
		requeue        time.Duration
	}{
		{name: "nothing wanted"},
		{name: "one for all pods on a node that pull alike", wants: []prefetch.Want{cart, cart2}, create: []string{"shop/n1"}},
		{name: "one for each set of secrets", wants: []prefetch.Want{cart, secretive}, create: []string{"shop/n1", "shop/n1"}},
		{name: "one for each namespace", wants: []prefetch.Want{cart, bank}, create: []string{"shop/n1", "bank/n1"}},
		{name: "one for each image", wants: []prefetch.Want{cart, wantOf(cart2.Pod, "registry.example/agent:3")}, create: []string{"shop/n1", "shop/n1"}},
		{name: "it is there", change: func(in *prefetch.Input) { asked(in, cart, waiting("ContainerCreating", "")) },
			wants: []prefetch.Want{cart2}, requeue: deadline},
		{name: "it is done, and a pod still waits for its upgrade", change: func(in *prefetch.Input) { asked(in, cart, succeeded) },
			wants: []prefetch.Want{cart2}},
		{name: "nothing waits for it any more", change: func(in *prefetch.Input) { asked(in, cart, succeeded) },
			wants: []prefetch.Want{bank}, create: []string{"bank/n1"}, remove: []string{"shop/n1"}},
		{name: "of another revision", change: func(in *prefetch.Input) {
			asked(in, cart, succeeded)
			in.Revision = "other"
		}, wants: []prefetch.Want{cart}, create: []string{"shop/n1"}, remove: []string{"shop/n1"}},
		{name: "mode Never", change: func(in *prefetch.Input) {
			asked(in, cart, succeeded)
			in.Mode = prefetch.Never
		}, wants: []prefetch.Want{cart}, remove: []string{"shop/n1"}},
		{name: "a failure stays as long as it is wanted", change: func(in *prefetch.Input) {
			asked(in, cart, waiting("ErrImagePull", "not found"))
		}, wants: []prefetch.Want{cart}},
		{name: "and no longer", change: func(in *prefetch.Input) { asked(in, cart, waiting("ErrImagePull", "not found")) },
			remove: []string{"shop/n1"}},
		{name: "rejected by the kubelet", change: func(in *prefetch.Input) { asked(in, cart, rejected) },
			wants: []prefetch.Want{cart}, requeue: time.Minute},
		{name: "rejected a while ago", change: func(in *prefetch.Input) {
			asked(in, cart, rejected)
			in.Now = in.Now.Add(time.Minute)
		}, wants: []prefetch.Want{cart}, remove: []string{"shop/n1"}},
		{name: "on a node that is not ready", change: func(in *prefetch.Input) {
			asked(in, cart, waiting("ContainerCreating", ""))
			in.Nodes[0] = newNode("n1", notReady)
		}, wants: []prefetch.Want{cart}, remove: []string{"shop/n1"}},
		{name: "being deleted: its name is not free yet", change: func(in *prefetch.Input) {
			asked(in, cart, succeeded).DeletionTimestamp = &metav1.Time{Time: in.Now}
		}, wants: []prefetch.Want{cart}},
		{name: "another pod runs it", change: running(newPod("shop", "other", "n1").
			Container(corev1.Container{Name: "agent", Image: newImage}).Obj()), wants: []prefetch.Want{cart}},
		{name: "refused by the namespace", change: func(in *prefetch.Input) {
			in.Refusals = map[string]prefetch.Refusal{"shop": {Until: in.Now.Add(time.Second)}}
		}, wants: []prefetch.Want{cart, bank}, create: []string{"bank/n1"}, requeue: time.Second},
		{name: "refused, and it is time to try again", change: func(in *prefetch.Input) {
			in.Refusals = map[string]prefetch.Refusal{"shop": {Until: in.Now}}
		}, wants: []prefetch.Want{cart}, create: []string{"shop/n1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := newInput(newNode("n1"))
			if tc.change != nil {
				tc.change(&in)
			}
			plan := prefetch.NewView(in).Plan(tc.wants)
			got := []any{names(plan.Create), names(plan.Delete), plan.Requeue}
			if diff := cmp.Diff([]any{tc.create, tc.remove, tc.requeue}, got); diff != "" {
				t.Errorf("Plan() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlanServesTheFrontFirst(t *testing.T) {
	in := newInput()
	var wants []prefetch.Want
	for i := range 2 * prefetch.MaxNodes {
		node := fmt.Sprintf("n%d", 99-i)
		in.Nodes = append(in.Nodes, newNode(node))
		wants = append(wants, wantOf(newPod("shop", node, node).Obj(), newImage), wantOf(newPod("bank", node, node).Obj(), newImage))
	}
	plan := prefetch.NewView(in).Plan(wants)
	if len(plan.Create) != 2*prefetch.MaxNodes {
		t.Fatalf("%d prefetch pods on %d nodes", len(plan.Create), prefetch.MaxNodes)
	}
	for i, pod := range plan.Create {
		if pod.Spec.NodeName != wants[i].Pod.Spec.NodeName {
			t.Errorf("prefetch pod %d is on node %s, want %s", i, pod.Spec.NodeName, wants[i].Pod.Spec.NodeName)
		}
	}
}

// A cluster at random lives through kubelets, upgrades and lost nodes in any order: never do more
// nodes pull than allowed, a plan made twice is the same plan, nothing that is unwanted
// stays, and in the end every wanted image has been asked for.
func TestPlanOverRandomClusters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := newInput()
		for i := range rapid.IntRange(1, 30).Draw(t, "nodes") {
			in.Nodes = append(in.Nodes, newNode(fmt.Sprintf("n%d", i)))
		}
		var wants []prefetch.Want
		for i := range rapid.IntRange(0, 60).Draw(t, "pods") {
			node := in.Nodes[rapid.IntRange(0, len(in.Nodes)-1).Draw(t, "node")].Name
			namespace := rapid.SampledFrom([]string{"shop", "bank"}).Draw(t, "namespace")
			wants = append(wants, wantOf(newPod(namespace, fmt.Sprint(i), node).Obj(), newImage))
		}
		for range 100 {
			step(t, &in)
			plan := prefetch.NewView(in).Plan(wants)
			if diff := cmp.Diff(plan, prefetch.NewView(in).Plan(wants)); diff != "" {
				t.Fatalf("two plans:\n%s", diff)
			}
			carryOut(&in, plan)
			if n := pullingNodes(in); n > prefetch.MaxNodes {
				t.Fatalf("%d nodes pull at once", n)
			}
		}
		finish(t, &in, wants)
	})
}

// step lets something happen.
func step(t *rapid.T, in *prefetch.Input) {
	in.Now = in.Now.Add(time.Second)
	if len(in.Prefetches) > 0 && rapid.Bool().Draw(t, "kubelet") {
		pod := in.Prefetches[rapid.IntRange(0, len(in.Prefetches)-1).Draw(t, "prefetch pod")]
		if !ended(pod) {
			pod.Status = outcomes[rapid.IntRange(0, len(outcomes)-1).Draw(t, "outcome")]
		}
		return
	}
	i := rapid.IntRange(0, len(in.Nodes)-1).Draw(t, "changed node")
	in.Nodes[i] = newNode(in.Nodes[i].Name)
	if rapid.Bool().Draw(t, "lost") {
		notReady(in.Nodes[i])
	}
}

var outcomes = []corev1.PodStatus{
	{Phase: corev1.PodSucceeded}, rejected, waiting("ErrImagePull", "not found"), waiting("ErrImagePull", "i/o timeout"),
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func carryOut(in *prefetch.Input, plan prefetch.Plan) {
	gone := map[*corev1.Pod]bool{}
	for _, pod := range plan.Delete {
		gone[pod] = true
	}
	var kept []*corev1.Pod
	for _, pod := range in.Prefetches {
		if !gone[pod] {
			kept = append(kept, pod)
		}
	}
	for _, pod := range plan.Create {
		pod.CreationTimestamp = metav1.NewTime(in.Now)
		kept = append(kept, pod)
	}
	in.Prefetches = kept
}

func pullingNodes(in prefetch.Input) int {
	nodes := map[string]bool{}
	for _, pod := range in.Prefetches {
		if !ended(pod) {
			nodes[pod.Spec.NodeName] = true
		}
	}
	return len(nodes)
}

// finish lets every node be ready and every kubelet succeed.
func finish(t *rapid.T, in *prefetch.Input, wants []prefetch.Want) {
	for i := range in.Nodes {
		in.Nodes[i] = newNode(in.Nodes[i].Name)
	}
	for range len(in.Nodes) + 1 {
		in.Now = in.Now.Add(time.Minute)
		carryOut(in, prefetch.NewView(*in).Plan(wants))
		for _, pod := range in.Prefetches {
			pod.Status = corev1.PodStatus{Phase: corev1.PodSucceeded}
		}
	}
	view := prefetch.NewView(*in)
	for _, w := range wants {
		if got, message := view.Presence(w.Pod, w.Images); got != prefetch.Present {
			t.Fatalf("pod %s/%s in the end: %s, %s", w.Pod.Namespace, w.Pod.Name, got, message)
		}
	}
	carryOut(in, view.Plan(nil))
	if len(in.Prefetches) > 0 {
		t.Fatalf("%d prefetch pods are left when nothing is wanted", len(in.Prefetches))
	}
}
