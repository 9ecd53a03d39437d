package harness

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Identity is what changes when the kubelet restarts a container.
type Identity struct {
	ContainerID  string
	RestartCount int32
	StartedAt    time.Time
}

// IdentityOf reads a container's identity from the kubelet's status; zero when it does not run.
func IdentityOf(pod *corev1.Pod, container string) Identity {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, s := range list {
			if s.Name == container && s.State.Running != nil {
				return Identity{s.ContainerID, s.RestartCount, s.State.Running.StartedAt.Time}
			}
		}
	}
	return Identity{}
}

// Observer watches the pods of a namespace, every change of them, from Start to Stop.
type Observer struct {
	mu             sync.Mutex
	pods           map[types.UID]*corev1.Pod
	apps           map[types.UID]Identity
	addresses      map[types.UID]string
	maxUnavailable map[string]int
	fleetMax       int
	violations     []string
	cancel         context.CancelFunc
	stopped        chan struct{}
}

// Observe starts to watch the pods of a namespace, which must be ready.
func Observe(ctx context.Context, c client.WithWatch, namespace string) (*Observer, error) {
	ctx, cancel := context.WithCancel(ctx)
	o := &Observer{
		pods: map[types.UID]*corev1.Pod{}, apps: map[types.UID]Identity{}, addresses: map[types.UID]string{},
		maxUnavailable: map[string]int{}, cancel: cancel, stopped: make(chan struct{}),
	}
	pods, w, err := WatchPods(ctx, c, namespace)
	if err != nil {
		cancel()
		return nil, err
	}
	for i := range pods {
		o.see(watch.Added, &pods[i])
	}
	go o.follow(ctx, w)
	return o, nil
}

func (o *Observer) follow(ctx context.Context, w watch.Interface) {
	defer close(o.stopped)
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-w.ResultChan():
			pod, ok := e.Object.(*corev1.Pod)
			if !open || !ok {
				o.broken(fmt.Sprintf("the watch of the pods broke: %v", e.Object))
				return
			}
			o.see(e.Type, pod)
		}
	}
}

// broken makes an observation that may have missed something count as a violation.
func (o *Observer) broken(why string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.violations = append(o.violations, why)
}

// see takes in one change.
func (o *Observer) see(kind watch.EventType, pod *corev1.Pod) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if kind == watch.Deleted || pod.DeletionTimestamp != nil {
		delete(o.pods, pod.UID)
	} else {
		o.pods[pod.UID] = pod
		o.compare(pod)
	}
	o.count()
}

// compare notes what must never change in a pod.
func (o *Observer) compare(pod *corev1.Pod) {
	app, known := o.apps[pod.UID]
	if now := IdentityOf(pod, AppContainer); known && app != now {
		o.violations = append(o.violations, fmt.Sprintf("the app container of pod %s changed from %+v to %+v", pod.Name, app, now))
	} else if now != (Identity{}) {
		o.apps[pod.UID] = now // from its first start on
	}
	address, known := o.addresses[pod.UID]
	if now := pod.Status.PodIP; known && address != now {
		o.violations = append(o.violations, fmt.Sprintf("the IP of pod %s changed from %s to %s", pod.Name, address, now))
	} else if now != "" {
		o.addresses[pod.UID] = now
	}
}

func (o *Observer) count() {
	unavailable := map[string]int{}
	total := 0
	for _, pod := range o.pods {
		if !Ready(pod) {
			unavailable[pod.Labels[AppLabel]]++
			total++
		}
	}
	for workload, count := range unavailable {
		o.maxUnavailable[workload] = max(o.maxUnavailable[workload], count)
	}
	o.fleetMax = max(o.fleetMax, total)
}

// Stop ends the watch.
func (o *Observer) Stop() {
	o.cancel()
	<-o.stopped
}

// MaxUnavailable is the highest count of pods that were not Ready at once, by workload.
func (o *Observer) MaxUnavailable() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.maxUnavailable)
}

// MaxUnavailableOfFleet is the highest count of pods that were not Ready at once.
func (o *Observer) MaxUnavailableOfFleet() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fleetMax
}

// Violations are the changes of app containers and pod IPs that were seen.
func (o *Observer) Violations() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.violations...)
}
