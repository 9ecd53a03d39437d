//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var _ = Describe("A manager that is killed at random moments", func() {
	It("breaks no promise through 20 roll-outs", func() {
		const name, rollouts = "chaos", 20
		fleet := newFleet(name, 2, 2, func(p *v1alpha1.SidecarPolicy) {
			canaryFirst(time.Second, "")(p)
			p.Spec.Rollout.Health = health(0, 45)
			p.Spec.Rollout.Budgets = []v1alpha1.Budget{{Per: v1alpha1.PerFleet, MaxUnavailable: ptr.To(intstr.FromInt32(2))}}
		})
		random := rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), 0)) // Ginkgo prints its seed
		done := observe(name, 1)
		killWithin3s := func() {
			timer := time.NewTimer(time.Duration(random.IntN(3000)) * time.Millisecond)
			<-timer.C
			manager.Kill()
			startManager()
		}
		for i := range rollouts {
			if i%5 == 4 { // one that can't be had goes before: it is taken back, and no sidecar is restarted for it
				Expect(harness.SetImage(ctx, c, name, name, image(fmt.Sprintf("agent:chaos-missing-%d", i)))).To(Succeed())
				killWithin3s()
				waitForPhase(name, v1alpha1.PhaseRolledBack, settleTimeout)
			}
			// A version of its own each time: a kubelet delays the restart of one that it has run
			// before, by 10 s and twice as long each time, for 10 minutes.
			version := fmt.Sprintf("agent:chaos-%d", i)
			push(version, "--port=9000")
			Expect(harness.SetImage(ctx, c, name, name, image(version))).To(Succeed())
			killWithin3s()
			policy, err := harness.WaitReady(ctx, c, name, settleTimeout)
			Expect(err).NotTo(HaveOccurred(), "roll-out %d", i)
			Expect(policy.Status.Pods.Updated).To(BeEquivalentTo(fleet.Pods()))
		}
		done()
		for pod, agent := range identities(name, name) {
			Expect(agent.RestartCount).To(BeEquivalentTo(rollouts), fmt.Sprintf("the agent of pod %s is upgraded once by each roll-out", pod))
		}
	})
})
