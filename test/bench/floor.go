package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// floorPatch is about what the operator answers for a pod of the benchmark.
const floorPatch = `[
	{"op": "add", "path": "/metadata/annotations", "value": {"injected.fleet.sidecar.dev/floor": "{\"revision\":\"c3808908a4\",\"sidecars\":[\"floor\"]}"}},
	{"op": "add", "path": "/metadata/labels/revision.fleet.sidecar.dev~1floor", "value": "c3808908a4"},
	{"op": "add", "path": "/spec/initContainers", "value": [{"name": "floor", "image": "registry.example/agent:v0", "restartPolicy": "Always"}]}
]`

// applyFloor has the API server call a webhook that knows its answer beforehand, until it is removed: what any webhook that
// injects costs.
func (b *bench) applyFloor(ctx context.Context) (remove func() error, err error) {
	server := httptest.NewTLSServer(http.HandlerFunc(answerAtOnce))
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "floor"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "floor.bench.sidecar.dev",
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL: ptr.To(server.URL), CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
			},
			FailurePolicy:           ptr.To(admissionregistrationv1.Fail),
			SideEffects:             ptr.To(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
			ObjectSelector:          &metav1.LabelSelector{MatchLabels: map[string]string{harness.FleetLabel: selected}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
		}},
	}
	if err := b.client.Create(ctx, configuration); err != nil {
		server.Close()
		return nil, err
	}
	return func() error {
		defer server.Close()
		return b.client.Delete(ctx, configuration)
	}, nil
}

func answerAtOnce(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true,
		Patch: []byte(floorPatch), PatchType: ptr.To(admissionv1.PatchTypeJSONPatch)}
	review.Request = nil
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
