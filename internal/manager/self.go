package manager

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// containerName is that of the manager in its own pod.
const containerName = "manager"

// findImage reads the operator's own image from its pod.
func (o *Options) findImage(reader client.Reader) error {
	if o.PrefetchImage != "" || o.PodName == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	pod := &corev1.Pod{}
	if err := reader.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: o.PodName}, pod); err != nil {
		return fmt.Errorf("reading the operator's own pod %s/%s for its image (or write --prefetch-image): %w", o.Namespace, o.PodName, err)
	}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == containerName {
			o.PrefetchImage = pod.Spec.Containers[i].Image
		}
	}
	return nil
}

// serverVersion asks the API server for its version, which changes when it is upgraded.
type serverVersion struct {
	client discovery.ServerVersionInterface

	mu      sync.Mutex
	version string
	until   time.Time
}

// versionTTL is how long an answer is believed.
const versionTTL = 10 * time.Minute

func newServerVersion(cluster *rest.Config) (*serverVersion, error) {
	client, err := discovery.NewDiscoveryClientForConfig(cluster)
	if err != nil {
		return nil, fmt.Errorf("creating a discovery client: %w", err)
	}
	return &serverVersion{client: client}, nil
}

func (v *serverVersion) get() (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now := time.Now(); now.After(v.until) {
		info, err := v.client.ServerVersion()
		if err != nil {
			return "", err
		}
		v.version, v.until = info.GitVersion, now.Add(versionTTL)
	}
	return v.version, nil
}
