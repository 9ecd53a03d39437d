package plugin

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/explain"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// explained is what is said of a pod and the policy of its namespace.
func explained(namespace, pod string) explain.Answer {
	GinkgoHelper()
	answers := decoded[[]explain.Answer]("explain", "-n", namespace, pod, "--policy", namespace)
	Expect(answers).To(HaveLen(1))
	return answers[0]
}

func answer(has explain.Has, reason v1alpha1.Reason, message string) OmegaMatcher {
	return And(HaveField("Has", has), HaveField("Reason", reason), HaveField("Message", ContainSubstring(message)))
}

func plainPod(namespace, name string, labels map[string]string) {
	GinkgoHelper()
	Expect(server.Client.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:1"}}}})).To(Succeed())
}

var _ = Describe("Explaining a pod", func() {
	It("says why it has, lacks or waits for a sidecar", func() {
		newPolicy("why", withApproval)
		newPods("why", "web", 3)
		newPods("why", "clash", 1, func(pod *corev1.Pod) { pod.Spec.Containers = []corev1.Container{{Name: "agent", Image: "own:1"}} })
		plainPod("why", "bare", map[string]string{harness.FleetLabel: "why"})
		plainPod("why", "other", nil)
		settle("why")
		Expect(explained("why", "web-a")).To(answer(explain.HasIt, v1alpha1.ReasonComplete, "healthy on it"))
		Expect(explained("why", "clash-a")).To(answer(explain.LacksIt, v1alpha1.ReasonContainerNameConflict, `"agent"`))
		Expect(explained("why", "bare")).To(And(answer(explain.LacksIt, explain.ReasonMissing, "it gets the sidecars when it is recreated"), HaveField("Next", Equal("kubectl delete pod -n why bare"))))
		Expect(explained("why", "other")).To(answer(explain.LacksIt, explain.ReasonNotSelected, "spec.selector (namespaces <none>, pods fleet=why)"))

		setImage("why", "agent:2")
		Expect(policyNow("why").Status.Phase).To(Equal(v1alpha1.PhaseAwaitingApproval), harness.Describe(policyNow("why")))
		Expect(explained("why", "web-c")).To(And(
			answer(explain.WaitsForIt, v1alpha1.ReasonAwaitingApproval, "it lacks image agent:2 of agent: step canary has not reached it"),
			HaveField("Target", policyNow("why").Status.TargetRevision), HaveField("Next", "kubectl sidecar approve why")))
		succeed("pause", "why")
		Expect(explained("why", "web-c")).To(answer(explain.WaitsForIt, v1alpha1.ReasonPaused, "spec.rollout.paused is true"))
		succeed("resume", "why")
		settle("why")
		succeed("approve", "why")
		settle("why")
		Expect(policyNow("why").Status.Phase).To(Equal(v1alpha1.PhaseComplete), harness.Describe(policyNow("why")))
		Expect(explained("why", "web-c")).To(answer(explain.HasIt, v1alpha1.ReasonComplete, "healthy on it"))
	})

	It("names a pod that fails, and what to do", func() {
		newPolicy("why-failed", func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.OnFailure = v1alpha1.FailurePause })
		newPods("why-failed", "web", 1)
		setImage("why-failed", "agent:bad")
		Expect(explained("why-failed", "web-a")).To(answer(explain.FailsOnIt, v1alpha1.ReasonImagePull, `sidecar "agent" is waiting: ErrImagePull`))
		Expect(succeed("explain", "why-failed/web-a", "--policy", "why-failed")).To(And(ContainSubstring("Pod why-failed/web-a"), ContainSubstring("next: kubectl describe pod")))
		Expect(refuse("explain", "nobody")).To(ContainSubstring(`there is no pod "nobody" in namespace default`))
		Expect(succeed("__complete", "explain", "-n", "why-failed", "")).To(ContainSubstring("web-a"))
	})

	It("honors the exemptions of teams", func() {
		newPolicy("why-exempt", func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Steps = harness.AllAtOnce() })
		newPods("why-exempt", "web", 2)
		namespace := &corev1.Namespace{}
		namespace.Name = "why-exempt"
		exempt := []byte(`{"metadata":{"annotations":{"` + v1alpha1.ExemptUntilAnnotation + `":"2999-12-31"}}}`)
		Expect(server.Client.Patch(ctx, namespace, client.RawPatch(types.MergePatchType, exempt))).To(Succeed())
		setImage("why-exempt", "agent:2")
		Expect(explained("why-exempt", "web-a")).To(answer(explain.WaitsForIt, v1alpha1.ReasonExempt, "until 3000-01-01T00:00:00Z"))
	})
})
