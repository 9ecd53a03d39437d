package controllers_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

var _ = Describe("Configuration under restartOn", func() {
	It("restarts the sidecars in place when it changes, also when the manager was away meanwhile", func() {
		w := newReadyWorld(budgets("100%", "100%"), func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Rollout.RestartOn = []v1alpha1.RestartTrigger{{Kind: v1alpha1.TriggerConfigMap, Name: "agent-config"}}
		})
		config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.name, Name: "agent-config"}, Data: map[string]string{"level": "info"}}
		Expect(server.Client.Create(ctx, config)).To(Succeed())
		w.newFleet(1, 2)
		w.clock.Step(time.Minute)
		w.settle()
		Expect(w.patches()).To(BeEmpty(), "what is there at first has not changed")
		Expect(w.pass().RequeueAfter).To(BeNumerically("<=", 30*time.Second), "nothing else tells of a change")

		By("changing its metadata alone")
		metav1.SetMetaDataAnnotation(&config.ObjectMeta, "who", "me")
		Expect(server.Client.Update(ctx, config)).To(Succeed())
		w.clock.Step(time.Minute)
		w.settle()
		Expect(w.patches()).To(BeEmpty())

		By("changing its content")
		config.Data["level"] = "debug"
		Expect(server.Client.Update(ctx, config)).To(Succeed())
		w.restartOperator()
		w.clock.Step(time.Minute)
		w.settle()
		w.rollOut(func() {})
		Expect(w.patches()).To(Equal(w.podNames()))
		Expect(w.images()).To(HaveEach("agent:v1@" + digest))
		for _, pod := range w.pods() {
			Expect(container(&pod, agent).RestartCount).To(BeEquivalentTo(1))
			Expect(container(&pod, "app").RestartCount).To(BeZero())
		}

		By("nothing more")
		w.forgetWrites()
		w.clock.Step(time.Minute)
		w.settle()
		Expect(w.patches()).To(BeEmpty())
	})
})
