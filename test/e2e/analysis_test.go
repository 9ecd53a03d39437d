//go:build e2e

package e2e

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	client_golang "github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
	"github.com/sidecar-dev/sidecar-operator/test/prometheus"
)

var _ = Describe("An analysis", func() {
	It("rolls a version back that a real Prometheus speaks against, and lets a good one pass", func() {
		const name = "analysis"
		errors := client_golang.NewGaugeVec(client_golang.GaugeOpts{Name: "app_errors_ratio"}, []string{"app_namespace"})
		registry := client_golang.NewRegistry()
		registry.MustRegister(errors)
		errors.WithLabelValues(name).Set(0.5)
		exporter := prometheus.Serve(registry)
		DeferCleanup(exporter.Close)
		server, err := prometheus.Start(ctx, GinkgoT().TempDir(), exporter.Listener.Addr().String())
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(server.Stop)
		Expect(server.WaitForTargets(ctx)).To(Succeed())

		fleet := newFleet(name, 1, 3, func(p *v1alpha1.SidecarPolicy) {
			canaryFirst(0, "")(p)
			p.Spec.Rollout.Analysis = []v1alpha1.AnalysisQuery{{
				Name:             "errors",
				Prometheus:       v1alpha1.PrometheusQuery{Address: server.URL, Query: `max(app_errors_ratio{app_namespace=~"{{.Namespaces}}"})`},
				SuccessCondition: "result[0] < 0.01",
				Interval:         &metav1.Duration{Duration: time.Second},
				Count:            ptr.To[int32](2), FailureLimit: ptr.To[int32](1),
			}}
		})
		agents := identities(name, name)
		Expect(harness.SetImage(ctx, c, name, name, image("agent:v2"))).To(Succeed())
		policy := waitForPhase(name, v1alpha1.PhaseRolledBack, settleTimeout)
		Expect(policy.Status.FailureMessage).To(And(ContainSubstring("analysis failed"), ContainSubstring("errors: 2 failed, 1 tolerated"), ContainSubstring("0.5")))
		Expect(changed(name, name, agents)).To(Equal(1), "the canary")

		errors.WithLabelValues(name).Set(0.001)
		Expect(harness.SetImage(ctx, c, name, name, image("agent:v3"))).To(Succeed())
		policy, err = harness.WaitReady(ctx, c, name, settleTimeout)
		Expect(err).NotTo(HaveOccurred())
		Expect(policy.Status.Pods.Updated).To(BeEquivalentTo(fleet.Pods()))
	})
})
