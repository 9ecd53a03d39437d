package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
)

// lookAtContent is how often the objects of restartOn are looked at. They are listed by name and not
// watched: a watch would hold every ConfigMap and Secret of the cluster.
const lookAtContent = 30 * time.Second

// +kubebuilder:rbac:groups="",resources=configmaps,verbs=list
// +kubebuilder:rbac:groups="",namespace=system,resources=configmaps,verbs=get;create;update

// contents remembers what was seen at the last look, policy by policy. The truth is in a ConfigMap
// for each policy. It is safe for concurrent use.
type contents struct {
	mu   sync.Mutex
	last map[string]look
}

type look struct {
	at       time.Time
	triggers string
	contents map[string]fleet.Content
}

func (c *contents) fresh(policy, triggers string, now time.Time) (map[string]fleet.Content, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last, ok := c.last[policy]
	return last.contents, ok && last.triggers == triggers && now.Sub(last.at) < lookAtContent
}

func (c *contents) keep(policy string, l look) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		c.last = map[string]look{}
	}
	c.last[policy] = l
}

func (c *contents) forget(policy string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.last, policy)
}

// lookAround finds out when the configuration that the sidecars read was changed.
func (r *SidecarPolicyReconciler) lookAround(ctx context.Context, p *pass) error {
	triggers := p.policy.Spec.Rollout.RestartOn
	if len(triggers) == 0 {
		return nil
	}
	key := fmt.Sprint(triggers)
	var known bool
	if p.contents, known = r.contents.fresh(p.policy.Name, key, p.now); known {
		return nil
	}
	seen, err := r.hashes(ctx, p)
	if err != nil {
		return err
	}
	if p.contents, err = r.remember(ctx, p, seen, key); err != nil {
		return err
	}
	r.contents.keep(p.policy.Name, look{at: p.now, triggers: key, contents: p.contents})
	return nil
}

// hashes are of the content of all triggers together, by namespace of the fleet.
func (r *SidecarPolicyReconciler) hashes(ctx context.Context, p *pass) (map[string]string, error) {
	selector, err := r.selectors.OfPolicy(p.policy, r.Namespace)
	if err != nil {
		return nil, err
	}
	namespaces, err := r.namespaces(ctx, selector)
	if err != nil {
		return nil, err
	}
	inFleet := map[string]bool{}
	for i := range namespaces {
		inFleet[namespaces[i].Name] = true
	}
	hashes := map[string]string{}
	for _, trigger := range p.policy.Spec.Rollout.RestartOn {
		found, err := r.contentOf(ctx, trigger)
		if err != nil {
			return nil, fmt.Errorf("spec.rollout.restartOn: listing %ss named %s: %w", trigger.Kind, trigger.Name, err)
		}
		for namespace, content := range found {
			if inFleet[namespace] {
				hashes[namespace] = hashOf([]any{hashes[namespace], trigger, content})
			}
		}
	}
	return hashes, nil
}

// contentOf reads one trigger in all namespaces.
func (r *SidecarPolicyReconciler) contentOf(ctx context.Context, trigger v1alpha1.RestartTrigger) (map[string]any, error) {
	byName := client.MatchingFields{"metadata.name": trigger.Name}
	found := map[string]any{}
	if trigger.Kind == v1alpha1.TriggerSecret {
		list := &corev1.SecretList{}
		if err := r.Live.List(ctx, list, byName); err != nil {
			return nil, err
		}
		for i := range list.Items {
			found[list.Items[i].Namespace] = list.Items[i].Data
		}
		return found, nil
	}
	list := &corev1.ConfigMapList{}
	if err := r.Live.List(ctx, list, byName); err != nil {
		return nil, err
	}
	for i := range list.Items {
		found[list.Items[i].Namespace] = []any{list.Items[i].Data, list.Items[i].BinaryData}
	}
	return found, nil
}

func hashOf(content any) string {
	data, err := json.Marshal(content)
	if err != nil {
		panic(err) // maps of strings and bytes always marshal
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// contentKey is where the ConfigMap of a policy holds what is remembered.
const contentKey = "contents.json"

// triggersAnnotation on it names the triggers that they are of.
const triggersAnnotation = "fleet.sidecar.dev/restart-on"

// rememberedIn is the name of a policy's ConfigMap.
func rememberedIn(policy string) string { return "sidecar-operator-restart-on-" + policy }

// remember compares what was seen with the policy's ConfigMap, and writes it where something is new.
// With other triggers than before, what is there now is what the pods have read.
func (r *SidecarPolicyReconciler) remember(ctx context.Context, p *pass, seen map[string]string, triggers string) (map[string]fleet.Content, error) {
	stored := &corev1.ConfigMap{}
	stored.Namespace, stored.Name = r.Namespace, rememberedIn(p.policy.Name)
	err := r.Live.Get(ctx, client.ObjectKeyFromObject(stored), stored)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("reading what is remembered of spec.rollout.restartOn: %w", err)
	}
	absent := apierrors.IsNotFound(err)
	var known map[string]fleet.Content
	if stored.Annotations[triggersAnnotation] == triggers {
		_ = json.Unmarshal([]byte(stored.Data[contentKey]), &known) // what can't be read is seen for the first time
	}
	remembered, changed := fleet.NoteContent(known, seen, p.now)
	if !changed && !absent {
		return remembered, nil
	}
	data, err := json.Marshal(remembered)
	if err != nil {
		return nil, err
	}
	stored.Labels = map[string]string{v1alpha1.PolicyLabel: p.policy.Name}
	stored.OwnerReferences = ownedBy(p.policy)
	metav1.SetMetaDataAnnotation(&stored.ObjectMeta, triggersAnnotation, triggers)
	stored.Data = map[string]string{contentKey: string(data)}
	if absent {
		err = r.Create(ctx, stored)
	} else {
		err = r.Update(ctx, stored)
	}
	if err != nil {
		return nil, fmt.Errorf("remembering spec.rollout.restartOn: %w", err)
	}
	return remembered, nil
}

// template is the spec's, restarted for the last change of what its sidecars read.
func (p *pass) template() v1alpha1.SidecarTemplate {
	template := p.policy.Spec.Template
	last := metav1.NewTime(fleet.LastChange(p.contents).Truncate(time.Second))
	if !last.IsZero() && (template.RestartedAt == nil || template.RestartedAt.Before(&last)) {
		template.RestartedAt = &last
	}
	return template
}
