package controllers_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

var _ = Describe("A policy's status", func() {
	It("gathers counts that go on changing, and nothing else", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		w.newFleet(1, 2)
		w.kubelet.sync(w.pods())
		w.settle()
		w.reconciler.CountsEvery = 10 * time.Second

		w.forgetWrites()
		w.newPod("one-more")
		w.clock.Step(time.Second)
		Expect(w.pass().RequeueAfter).To(And(BeNumerically(">", 0), BeNumerically("<=", 9*time.Second)))
		Expect(w.writes).To(BeEmpty())
		Expect(w.status().Pods.Injected).To(BeEquivalentTo(2))

		w.setImage("agent:v2")
		w.pass()
		Expect(w.status()).To(And(HaveField("Phase", v1alpha1.PhaseProgressing), HaveField("Pods.Injected", BeEquivalentTo(3))),
			"a change of the phase brings the counts along at once")

		w.kubelet.sync(w.pods())
		w.settle()
		w.newPod("another")
		w.clock.Step(9 * time.Second)
		w.pass()
		w.clock.Step(10 * time.Second)
		w.pass()
		Expect(w.status().Pods.Injected).To(BeEquivalentTo(4), "what was gathered is written in the end")
	})
})
