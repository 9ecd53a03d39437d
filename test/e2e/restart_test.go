//go:build e2e

package e2e

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

var _ = Describe("A restart in place", func() {
	// restart asks for one, and waits until it is done.
	restart := func(name string) {
		GinkgoHelper()
		Expect(harness.Edit(ctx, c, name, func(p *v1alpha1.SidecarPolicy) {
			now := metav1.NewTime(time.Now().Truncate(time.Second).Add(time.Second)) // later than what has just been started
			p.Spec.Template.RestartedAt = &now
		})).To(Succeed())
		_, err := harness.WaitReady(ctx, c, name, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
	}

	DescribeTable("starts the sidecars anew with the same image, again and again, and leaves the app alone",
		func(name string, reference func() string) {
			newFleet(name, 1, 2, func(p *v1alpha1.SidecarPolicy) {
				p.Spec.Template.Sidecars[0].Image = reference()
				p.Spec.Rollout.Health = health(0, 45)
			})
			ids := imageIDs(name, name)
			done := observe(name, 1)
			for i := range int32(3) {
				restart(name)
				for pod, agent := range identities(name, name) {
					Expect(agent.RestartCount).To(Equal(i+1), "the sidecar of pod %s", pod)
				}
			}
			done()
			Expect(imageIDs(name, name)).To(Equal(ids))
		},
		Entry("by tag", "restart-tag", func() string { return image("agent:v1") }),
		Entry("by digest", "restart-digest", func() string { return pinned(false) }),
		Entry("by tag and digest", "restart-both", func() string { return pinned(true) }),
	)

	It("comes when a Secret under restartOn changes: the sidecars serve by it, and the app runs on", func() {
		const name = "restart-secret"
		labels := map[string]string{harness.FleetLabel: name}
		Expect(c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})).To(Succeed())
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "password"}, StringData: map[string]string{"version": "old"}}
		Expect(c.Create(ctx, secret)).To(Succeed())
		newFleet(name, 1, 2, func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Rollout.Health = health(0, 45)
			p.Spec.Rollout.RestartOn = []v1alpha1.RestartTrigger{{Kind: v1alpha1.TriggerSecret, Name: secret.Name}}
			p.Spec.Template.Sidecars[0].Env = []corev1.EnvVar{{Name: "TESTPOD_VERSION", ValueFrom: &corev1.EnvVarSource{
				SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: secret.Name}, Key: "version"}}}}
		})
		serves := func(version string) {
			GinkgoHelper()
			fleet := &corev1.PodList{}
			Expect(c.List(ctx, fleet, client.InNamespace(name), client.MatchingLabels(labels))).To(Succeed())
			Expect(fleet.Items).To(HaveLen(2))
			for _, pod := range fleet.Items {
				Expect(get(&pod, 9000, "/", nil)).To(ContainSubstring(version))
			}
		}
		serves("old")
		By("being seen before, which the operator does every 30 s")
		Eventually(func(g Gomega) {
			seen := &corev1.ConfigMap{}
			g.Expect(c.Get(ctx, client.ObjectKey{Namespace: "default", Name: "sidecar-operator-restart-on-" + name}, seen)).To(Succeed())
			g.Expect(seen.Data).To(HaveKeyWithValue("contents.json", ContainSubstring(name)))
		}).WithTimeout(settleTimeout).Should(Succeed())
		done := observe(name, 1)
		secret.StringData = map[string]string{"version": "new"}
		Expect(c.Update(ctx, secret)).To(Succeed())
		Eventually(func(g Gomega) {
			for pod, agent := range identities(name, name) {
				g.Expect(agent.RestartCount).To(BeEquivalentTo(1), "the sidecar of pod %s", pod)
			}
		}).WithTimeout(settleTimeout).Should(Succeed())
		_, err := harness.WaitReady(ctx, c, name, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		serves("new")
		done()
	})
})

// pinned is the agent's first version by its digest, with its tag or without.
func pinned(tag bool) string {
	GinkgoHelper()
	digest := push("agent:v1", "--port=9000", "--version=v1")
	_, hash, _ := strings.Cut(digest, "@")
	if !tag {
		return digest
	}
	return image("agent:v1") + "@" + hash
}

// imageIDs are what one native sidecar runs, by pod.
func imageIDs(namespace, container string) map[string]string {
	GinkgoHelper()
	ids := map[string]string{}
	for _, pod := range podsOf(namespace) {
		for _, status := range pod.Status.InitContainerStatuses {
			if status.Name == container {
				ids[pod.Name] = status.ImageID
			}
		}
	}
	return ids
}
