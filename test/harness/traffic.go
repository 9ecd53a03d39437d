package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// trafficWorkers send requests side by side, each one after the other.
	trafficWorkers = 4
	// trafficPause is between two requests of one worker.
	trafficPause = 20 * time.Millisecond
	// trafficTimeout bounds one request.
	trafficTimeout = 5 * time.Second
)

// Traffic is requests to the pods behind the Service of a namespace. Each goes, by a connection of its
// own, to one of the endpoints that are ready at that moment, as kube-proxy would send it. None is repeated.
type Traffic struct {
	prepare func(*http.Request)
	client  http.Client

	mu        sync.Mutex
	endpoints []string
	sent      int
	answers   map[string]int
	failures  []string

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// SendTraffic sends requests from now on until Stop, which must be called. Each asks for / with the
// parameter id, counted from 1; prepare adds what else the pods want to see. Nil adds nothing.
func SendTraffic(ctx context.Context, c client.WithWatch, namespace string, prepare func(*http.Request)) (*Traffic, error) {
	ctx, cancel := context.WithCancel(ctx)
	endpoints, err := c.Watch(ctx, &discoveryv1.EndpointSliceList{}, client.InNamespace(namespace))
	if err != nil {
		cancel()
		return nil, err
	}
	t := &Traffic{
		prepare: prepare, answers: map[string]int{}, cancel: cancel,
		client: http.Client{Timeout: trafficTimeout, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	served := make(chan struct{})
	t.done.Go(func() { t.follow(ctx, endpoints, served) })
	select {
	case <-served:
	case <-time.After(trafficTimeout):
		t.Stop()
		return nil, fmt.Errorf("the Service of namespace %s has no ready endpoint", namespace)
	}
	for range trafficWorkers {
		t.done.Go(func() { t.work(ctx) })
	}
	return t, nil
}

// follow keeps the endpoints that are ready. It closes served when there are some.
func (t *Traffic) follow(ctx context.Context, endpoints watch.Interface, served chan<- struct{}) {
	defer endpoints.Stop()
	once := sync.OnceFunc(func() { close(served) })
	for event := range endpoints.ResultChan() {
		slice, ok := event.Object.(*discoveryv1.EndpointSlice)
		if !ok {
			break
		}
		ready := readyEndpoints(slice)
		t.mu.Lock()
		t.endpoints = ready
		t.mu.Unlock()
		if len(ready) > 0 {
			once()
		}
	}
	if ctx.Err() == nil {
		t.fail("the watch of the endpoints broke")
	}
}

func readyEndpoints(slice *discoveryv1.EndpointSlice) []string {
	var ready []string
	for _, endpoint := range slice.Endpoints {
		if !ptr.Deref(endpoint.Conditions.Ready, false) {
			continue
		}
		for _, port := range slice.Ports {
			ready = append(ready, net.JoinHostPort(endpoint.Addresses[0], strconv.Itoa(int(*port.Port))))
		}
	}
	return ready
}

// work sends requests one after the other.
func (t *Traffic) work(ctx context.Context) {
	pause := time.NewTicker(trafficPause)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		id, endpoint := t.next()
		answer, err := t.send(id, endpoint)
		if err != nil {
			t.fail(fmt.Sprintf("%s: request %d to %s: %s", time.Now().Format("15:04:05.000"), id, endpoint, err))
			continue
		}
		t.mu.Lock()
		t.answers[answer]++
		t.mu.Unlock()
	}
}

// next is the number of the next request and where it goes.
func (t *Traffic) next() (int, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent++
	if len(t.endpoints) == 0 {
		return t.sent, "no endpoint"
	}
	return t.sent, t.endpoints[rand.IntN(len(t.endpoints))]
}

// send does not end with the traffic: a request that is under way is answered, or fails.
func (t *Traffic) send(id int, endpoint string) (string, error) {
	request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://%s/?id=%d", endpoint, id), nil)
	if err != nil {
		return "", err
	}
	if t.prepare != nil {
		t.prepare(request)
	}
	response, err := t.client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		return "", errors.Join(errors.New(response.Status), err)
	}
	return strings.TrimSpace(string(body)), err
}

func (t *Traffic) fail(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures = append(t.failures, why)
}

// Stop sends no further requests, and waits for those that are under way.
func (t *Traffic) Stop() {
	t.cancel()
	t.done.Wait()
}

// Sent is how many requests were sent.
func (t *Traffic) Sent() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sent
}

// Answers are how many requests were answered, by what the answer was.
func (t *Traffic) Answers() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.answers)
}

// Failures are the requests that were not answered with 200 OK, and why.
func (t *Traffic) Failures() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.failures)
}
