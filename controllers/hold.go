package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/admissionpolicy"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
)

// retryHeld is when the API server is asked again whether new pods would wait for the sidecars.
const retryHeld = 5 * time.Second

// registerHold has the API server keep new pods from being scheduled until the webhook has answered for them, where the
// policy's author wants that.
func (r *SidecarPolicyReconciler) registerHold(ctx context.Context, p *pass) error {
	if !p.policy.Spec.Injection.Holds() {
		_, err := r.unregisterAdmissionPolicy(ctx, admissionpolicy.HoldName(p.policy.Name))
		return err
	}
	want, err := admissionpolicy.CompileHold(&admissionpolicy.Input{Policy: p.policy, Namespace: r.Namespace})
	wrote, since := false, time.Time{}
	if err == nil {
		wrote, err = r.applyAdmissionPolicy(ctx, p, want)
	}
	if err == nil {
		since, err = r.actsOn(ctx, p, want, wrote)
	}
	switch {
	case err != nil:
		p.injecting = finding{unknown, v1alpha1.ReasonNotRegistered, err.Error()}
		return err
	case since.IsZero():
		p.injecting.reason = v1alpha1.ReasonWaitingForAPIServer
		p.injecting.message += "; where the operator can't be reached, they do not wait for them yet: the API server does not act on the MutatingAdmissionPolicy yet"
	default:
		p.injecting.message += "; where the operator can't be reached, they wait for them"
	}
	return nil
}

// replaceHeld are the evictions of pods that wait for the sidecars. There is none while new pods would wait, too, as
// the dry run of one of them shows.
func (r *SidecarPolicyReconciler) replaceHeld(ctx context.Context, p *pass) ([]write, error) {
	pods := p.plan.Held
	if len(pods) == 0 {
		return nil, nil
	}
	waits, sure, err := r.wouldWait(ctx, p.policy.Name, pods[0].Pod)
	switch {
	case err != nil:
		p.lookAgain(retryHeld)
		_, err = r.judgeAnswer(p, pods[0], err)
		return nil, err
	case waits:
		p.stillAway = true
		p.lookAgain(retryHeld)
		return nil, nil
	case !sure:
		pods = pods[:1]
	}
	var writes []write
	for _, pod := range pods {
		writes = append(writes, write{pod, "replace", func(ctx context.Context) error { return r.evictPod(ctx, pod) }})
	}
	return writes, nil
}

// wouldWait says whether a pod like this one would wait for the policy's sidecars if it were created now. It is not sure where a used-up
// quota keeps the API server from saying so: the eviction of one pod makes room, and shows.
func (r *SidecarPolicyReconciler) wouldWait(ctx context.Context, policy string, held *corev1.Pod) (waits, sure bool, err error) {
	whole := &corev1.PodList{} // the cache has but a part of it
	if err := r.Live.List(ctx, whole, client.InNamespace(held.Namespace),
		client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector(metav1.ObjectNameField, held.Name)}); err != nil || len(whole.Items) == 0 {
		return true, false, err
	}
	pod := &corev1.Pod{Spec: whole.Items[0].Spec}
	pod.GenerateName, pod.Namespace, pod.Labels, pod.Annotations = "hold-check-", held.Namespace, maps.Clone(held.Labels), whole.Items[0].Annotations
	pod.Spec.SchedulingGates = slices.DeleteFunc(pod.Spec.SchedulingGates, func(gate corev1.PodSchedulingGate) bool {
		return strings.HasPrefix(gate.Name, v1alpha1.HoldGatePrefix)
	})
	sure, err = r.tryCreate(ctx, pod)
	return v1alpha1.HoldGateIndex(pod, policy) >= 0, sure, err
}

// releasePod lets a pod be scheduled that waits for sidecars which it is not to get.
func (r *SidecarPolicyReconciler) releasePod(ctx context.Context, policy string, state *fleet.PodState) error {
	at := v1alpha1.HoldGateIndex(state.Pod, policy)
	if at < 0 {
		return nil
	}
	path := fmt.Sprintf("/spec/schedulingGates/%d", at)
	patch, err := json.Marshal([]jsonpatch.Operation{
		jsonpatch.NewOperation("test", "/metadata/uid", state.Pod.UID),
		jsonpatch.NewOperation("test", path+"/name", v1alpha1.HoldGate(policy)),
		jsonpatch.NewOperation("remove", path, nil),
	})
	if err != nil {
		return err
	}
	return r.Patch(ctx, named(state), client.RawPatch(types.JSONPatchType, patch))
}

// heldMessage says how many pods wait for the sidecars, and what becomes of them; empty where none does.
func heldMessage(p *pass) string {
	count, held := p.plan.Summary.Counts.Held, &p.plan.Summary.Held
	message := fmt.Sprintf("%d pods wait for the sidecars", count)
	switch {
	case count == 0:
		return ""
	case p.stillAway:
		return message + ", and new ones would wait, too: see whether the API server reaches the webhook (kubectl sidecar doctor)"
	case held.Unmanaged > 0:
		return message + fmt.Sprintf("; nobody makes %d of them anew: delete and create them again, or write rollout.evictUnmanaged: true, or let them start without by the label %s: \"false\"",
			held.Unmanaged, v1alpha1.InjectLabel)
	case held.Refused != "":
		return message + ", and can't be replaced: " + held.Refused
	}
	return message + " and are being replaced"
}

// heldTrouble is what keeps pods waiting until somebody does something.
func heldTrouble(p *pass) (finding, bool) {
	held := &p.plan.Summary.Held
	if p.plan.Summary.Counts.Held == 0 || (!p.stillAway && held.Unmanaged == 0 && held.Refused == "") {
		return finding{}, false
	}
	return finding{yes, v1alpha1.ReasonHeld, heldMessage(p)}, true
}
