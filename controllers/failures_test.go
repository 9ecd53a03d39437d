package controllers_test

import (
	"errors"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// deleteNow deletes a pod without a kubelet's consent.
const deleteNow = client.GracePeriodSeconds(0)

var errBroken = errors.New("the network is down")

var _ = Describe("A pod that refuses its update", func() {
	It("is reported with the API server's words and tried again later; the others go on", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		w.newFleet(1, 3)
		lift := w.refuseUpdates("web0-1")

		w.setImage("agent:v2")
		for range 4 {
			w.settle()
			w.kubelet.sync(w.pods())
			w.clock.Step(2 * time.Second)
		}
		Expect(w.patches()).To(Equal([]string{"web0-0", "web0-1", "web0-2"}), "it is not tried again at once")
		Expect(w.images()).To(Equal(map[string]string{"web0-0": "agent:v2", "web0-1": "agent:v1", "web0-2": "agent:v2"}))
		Expect(w.condition(v1alpha1.ConditionDegraded)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonUpdateRefused))
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonRollingOut))
		Expect(w.status().Unhealthy).To(HaveExactElements(And(
			HaveField("Workload", "Deployment/"+w.name+"/web0"),
			HaveField("Reason", v1alpha1.ReasonUpdateRefused),
			HaveField("Message", ContainSubstring("nobody touches this pod")))))
		Expect(w.pass().RequeueAfter).To(BeNumerically(">", 0), "nothing but time makes it try again")

		By("lifting the refusal")
		lift()
		w.rollOut(func() {})
		Expect(w.images()).To(HaveEach("agent:v2"))
		Expect(w.condition(v1alpha1.ConditionDegraded)).To(haveStatus(metav1.ConditionFalse, v1alpha1.ReasonHealthy))
	})
})

var _ = Describe("A workload that refuses its update", func() {
	It("is known before anything moves, by a dry run with one of its pods", func() {
		w := newReadyWorld(budgets("100%", "100%"), steps(v1alpha1.Step{Name: "canary", UpTo: ptr.To(intstr.FromInt32(1))}))
		w.newFleet(2, 2)
		w.refuseUpdates("web0-0")
		w.setImage("agent:v2")
		w.pass()
		Expect(w.patches()).To(BeEmpty())
		w.settle()
		Expect(w.patches()).To(HaveExactElements(HavePrefix("web1-")), "the canary is a pod that can be upgraded")
		Expect(w.status().Unhealthy).To(ContainElement(And(
			HaveField("Workload", "Deployment/"+w.name+"/web0"), HaveField("Pods", BeEquivalentTo(2)), HaveField("Reason", v1alpha1.ReasonUpdateRefused))))
	})
})

// refuseUpdates has the API server deny updates of one pod, until the returned function is called.
func (w *world) refuseUpdates(name string) (lift func()) {
	GinkgoHelper()
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: w.name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: ptr.To(admissionregistrationv1.Fail),
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
				ResourceNames: []string{name},
				RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Update},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
				},
			}}},
			Validations: []admissionregistrationv1.Validation{{Expression: "false", Message: "nobody touches this pod"}},
		},
	}
	binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: w.name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: w.name, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
			MatchResources: &admissionregistrationv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"world": w.name}}},
		},
	}
	Expect(server.Client.Create(ctx, policy)).To(Succeed())
	Expect(server.Client.Create(ctx, binding)).To(Succeed())
	DeferCleanup(func() {
		Expect(client.IgnoreNotFound(server.Client.Delete(ctx, binding))).To(Succeed())
		Expect(client.IgnoreNotFound(server.Client.Delete(ctx, policy))).To(Succeed())
	})
	touch := func() error {
		return server.Client.Patch(ctx, w.pod(name), client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"touched":"yes"}}}`)), client.DryRunAll)
	}
	Eventually(touch).WithTimeout(30 * time.Second).Should(MatchError(ContainSubstring("nobody touches this pod")))
	return func() {
		GinkgoHelper()
		Expect(server.Client.Delete(ctx, binding)).To(Succeed())
		Eventually(touch).WithTimeout(30 * time.Second).Should(Succeed())
	}
}

func failing[T runtime.Object](verb string, err error) func(string, runtime.Object) error {
	return func(v string, object runtime.Object) error {
		if _, ok := object.(T); ok && v == verb {
			return err
		}
		return nil
	}
}

// failedPass makes a pass that must return the error.
func (w *world) failedPass(err error) {
	GinkgoHelper()
	_, got := w.reconciler.Reconcile(ctx, w.request())
	Expect(got).To(MatchError(err))
}

var _ = Describe("When the API server fails", func() {
	// The operator must not say what it could not see.
	DescribeTable("to list what the fleet is judged by, the status says Unknown:",
		func(fail func(string, runtime.Object) error) {
			w := newReadyWorld()
			w.newFleet(1, 1)
			w.fail = fail
			w.failedPass(errBroken)
			for _, kind := range []string{v1alpha1.ConditionProgressing, v1alpha1.ConditionAvailable, v1alpha1.ConditionDegraded, v1alpha1.ConditionReady} {
				condition := w.condition(kind)
				Expect(condition).To(haveStatus(metav1.ConditionUnknown, v1alpha1.ReasonObserveFailed), kind)
				Expect(condition.Message).To(ContainSubstring("the network is down"))
			}
			Expect(w.condition(v1alpha1.ConditionAccepted)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonValid))
			w.fail = nil
			w.settle()
			Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete))
			Expect(w.patches()).To(BeEmpty())
		},
		Entry("pods", failing[*corev1.PodList]("list", errBroken)),
		Entry("namespaces", failing[*corev1.NamespaceList]("list", errBroken)),
		Entry("policies", failing[*v1alpha1.SidecarPolicyList]("list", errBroken)),
	)

	DescribeTable("to say what is registered, running pods are looked at, upgraded and put back all the same:",
		func(fail func(string, runtime.Object) error) {
			w := newReadyWorld(budgets("100%", "100%"))
			w.newFleet(1, 1)
			w.fail = fail
			w.setImage("agent:v2")
			for range 3 {
				w.failedPass(errBroken)
			}
			Expect(w.condition(v1alpha1.ConditionInjecting).Status).To(Equal(metav1.ConditionUnknown))
			Expect(w.condition(v1alpha1.ConditionInjecting).Message).To(ContainSubstring("the network is down"))
			Expect(w.patches()).To(HaveLen(1))
			w.fail = nil
			w.rollOut(func() {})
			Expect(w.images()).To(HaveEach("agent:v2"))
		},
		Entry("the registration", failing[*admissionregistrationv1.MutatingWebhookConfiguration]("get", errBroken)),
		Entry("the certificate", failing[*corev1.Secret]("get", errBroken)),
	)

	It("to say whether it takes the template, the policy is neither accepted nor refused", func() {
		w := newReadyWorld()
		w.fail = failing[*corev1.Pod]("dry-run", apierrors.NewInternalError(errBroken))
		w.setImage("agent:v2")
		_, err := w.reconciler.Reconcile(ctx, w.request())
		Expect(err).To(MatchError(ContainSubstring("the network is down")))
		Expect(w.condition(v1alpha1.ConditionAccepted)).To(haveStatus(metav1.ConditionUnknown, v1alpha1.ReasonNotChecked))
		Expect(w.condition(v1alpha1.ConditionReady).Status).To(Equal(metav1.ConditionUnknown))
		Expect(w.revisions()).To(HaveLen(1))
		w.fail = nil
		w.settle()
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete))
	})

	It("to list revisions, the policy is neither accepted nor refused", func() {
		w := newReadyWorld()
		w.fail = failing[*appsv1.ControllerRevisionList]("list", errBroken)
		w.failedPass(errBroken)
		Expect(w.condition(v1alpha1.ConditionAccepted)).To(haveStatus(metav1.ConditionUnknown, v1alpha1.ReasonNotChecked))
		Expect(w.condition(v1alpha1.ConditionReady).Status).To(Equal(metav1.ConditionUnknown))
	})

	It("to keep the revision, nothing is injected from it", func() {
		w := newWorld()
		w.fail = failing[*appsv1.ControllerRevision]("create", errBroken)
		w.failedPass(errBroken)
		Expect(w.status().TargetRevision).To(BeEmpty())
		Expect(w.registration()).To(BeNil())
		w.fail = nil
		w.settle()
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete))
	})

	It("to answer an upgrade, it is tried again and no pod is blamed", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		w.newFleet(2, 2)
		w.setImage("agent:v2")
		w.pass() // the dry runs
		overloaded := apierrors.NewTooManyRequests("come back later", 1)
		w.fail = failing[*corev1.Pod]("patch", overloaded)
		w.failedPass(overloaded)
		Expect(w.status().Pods.Failed).To(BeZero())
		w.fail = nil
		w.rollOut(func() { Expect(w.status().Unhealthy).To(BeEmpty()) })
		Expect(w.patches()).To(Equal(w.podNames()))
	})

	It("an upgrade because the pod has changed, the pod is looked at anew", func() {
		w := newReadyWorld()
		w.newFleet(1, 1)
		w.setImage("agent:v2")
		w.pass() // the dry runs
		w.fail = failing[*corev1.Pod]("patch", apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, "web0-0", errBroken))
		w.pass()
		w.fail = nil
		w.rollOut(func() { Expect(w.status().Unhealthy).To(BeEmpty()) })
		Expect(w.images()).To(HaveEach("agent:v2"))
	})

	It("to take the status, the next pass writes it", func() {
		w := newWorld()
		w.fail = failing[*v1alpha1.SidecarPolicy]("update-status", errBroken)
		w.failedPass(errBroken)
		Expect(w.status().Conditions).To(BeEmpty())
		w.fail = nil
		w.settle()
		Expect(w.condition(v1alpha1.ConditionReady)).To(haveStatus(metav1.ConditionTrue, v1alpha1.ReasonComplete))
		Expect(w.revisions()).To(HaveLen(1))
	})
})

var _ = Describe("The status", func() {
	It("is not written again while nothing changes", func() {
		w := newReadyWorld()
		w.newFleet(2, 2)
		before := w.policy().ResourceVersion
		for range 3 {
			w.clock.Step(time.Hour)
			w.pass()
		}
		Expect(w.policy().ResourceVersion).To(Equal(before))
		Expect(w.writes).To(BeEmpty())
	})

	It("is written with the events of a pass after it, never before", func() {
		w := newReadyWorld()
		w.allEvents()
		w.edit(withPort(70000))
		w.fail = failing[*v1alpha1.SidecarPolicy]("update-status", errBroken)
		w.failedPass(errBroken)
		Expect(w.allEvents()).To(BeEmpty())
		w.fail = nil
		w.pass()
		Expect(w.allEvents()).To(ConsistOf(HavePrefix("Warning PodRefused")))
	})
})

// series are the metrics about a policy.
func series(policy string) map[string]float64 {
	GinkgoHelper()
	families, err := metrics.Registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	found := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, pair := range m.GetLabel() {
				labels[pair.GetName()] = pair.GetValue()
			}
			if labels["policy"] == policy {
				key := fmt.Sprintf("%s/%s%s%s%s%s%s", family.GetName(), labels["state"], labels["result"], labels["phase"], labels["per"], labels["type"], labels["status"])
				found[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return found
}

var _ = Describe("The metrics of a policy", func() {
	It("count its pods and upgrades, and go with it", func() {
		w := newReadyWorld(budgets("100%", "100%"))
		w.newFleet(1, 2)
		w.setImage("agent:v2")
		w.rollOut(func() {})
		Expect(series(w.name)).To(And(
			HaveKeyWithValue("sidecar_operator_pods/selected", 2.0),
			HaveKeyWithValue("sidecar_operator_pods/updated", 2.0),
			HaveKeyWithValue("sidecar_operator_pod_writes_total/accepted", 2.0),
			HaveKeyWithValue("sidecar_operator_rollout_phase/Complete", 1.0),
			HaveKeyWithValue("sidecar_operator_rollout_phase/Progressing", 0.0),
			HaveKeyWithValue("sidecar_operator_rollout_step/", 0.0),
			HaveKeyWithValue("sidecar_operator_policy_condition/ReadyTrue", 1.0),
			HaveKeyWithValue("sidecar_operator_policy_condition/ReadyFalse", 0.0),
			HaveKeyWithValue("sidecar_operator_budget_use_ratio/Workload", 0.0),
			HaveKeyWithValue("sidecar_operator_upgrade_duration_seconds/", 2.0),
		))
		Expect(series(w.name)).NotTo(HaveKey(HavePrefix("sidecar_operator_upgrade_failures_total")))

		By("failing an upgrade")
		w.setImage("agent:bad")
		for range 4 {
			w.pass()
			w.kubelet.sync(w.pods())
			Expect(series(w.name)).To(HaveKeyWithValue("sidecar_operator_upgrade_duration_seconds/", 2.0))
			if w.status().Pods.Unavailable > 0 {
				Expect(series(w.name)["sidecar_operator_budget_use_ratio/Fleet"]).To(BeNumerically(">", 0))
			}
			w.clock.Step(2 * time.Minute)
		}
		w.settle()
		Expect(series(w.name)).To(And(
			HaveKeyWithValue("sidecar_operator_upgrade_failures_total/", BeNumerically(">", 0)),
			HaveKeyWithValue("sidecar_operator_rollout_phase/Complete", 0.0),
		))

		By("failing to read the policy: that is not the same as its end")
		w.fail = failing[*v1alpha1.SidecarPolicy]("get", errBroken)
		w.failedPass(errBroken)
		Expect(series(w.name)).NotTo(BeEmpty())

		By("deleting the policy")
		w.fail = nil
		Expect(server.Client.Delete(ctx, w.policy())).To(Succeed())
		w.pass()
		Expect(series(w.name)).To(BeEmpty())
		Expect(w.images()).To(HaveLen(2), "running pods keep their sidecars")
	})
})
