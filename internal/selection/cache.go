package selection

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/memo"
)

// maxCached is how many selectors a cache keeps before it starts anew, so that policies that are gone don't fill it.
const maxCached = 1000

// Cache remembers selectors: every event of a pod, and every pod that is created, asks those of all policies. The
// zero value is empty; several goroutines may use it.
type Cache struct {
	cached memo.Memo[generation, Selector]
}

// generation is one state of the spec of a policy, or of a registration.
type generation struct {
	uid    types.UID
	number int64
}

// OfPolicy is what New reads of a policy as the API server has stored it.
func (c *Cache) OfPolicy(policy *v1alpha1.SidecarPolicy, operatorNamespace string) (Selector, error) {
	return c.of(policy, func() []Pair { return Pairs(&policy.Spec.Selector, operatorNamespace) })
}

// OfRegistration is what a policy selected when its spec was last accepted.
func (c *Cache) OfRegistration(registration *admissionregistrationv1.MutatingWebhookConfiguration) (Selector, error) {
	return c.of(registration, func() []Pair {
		var pairs []Pair
		for i := range registration.Webhooks {
			pairs = append(pairs, Pair{registration.Webhooks[i].NamespaceSelector, registration.Webhooks[i].ObjectSelector})
		}
		return joined(pairs, v1alpha1.RevisionLabel(registration.Labels[v1alpha1.PolicyLabel]))
	})
}

func (c *Cache) of(object metav1.Object, pairs func() []Pair) (Selector, error) {
	return c.cached.Get(generation{object.GetUID(), object.GetGeneration()}, maxCached, func() (Selector, error) { return read(pairs()) })
}
