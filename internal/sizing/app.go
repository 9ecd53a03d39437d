// Package sizing computes the resources of a sidecar from those of its app: expressions in CEL
// over what the app's containers request and are limited to. It is pure.
package sizing

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/internal/resources"
)

// App is what containers have together: cores of cpu, bytes of the others.
type App struct {
	// Requests are 0 of the computable resources that none requests.
	Requests map[string]float64
	// Limits are of the resources that all of them limit.
	Limits map[string]float64
}

// computable are the resources that an expression can ask for without has().
var computable = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}

// Sum is what containers with these resources have together.
func Sum(containers []corev1.ResourceRequirements) App {
	app := App{Requests: map[string]float64{}, Limits: map[string]float64{}}
	for _, name := range computable {
		app.Requests[string(name)] = 0
	}
	requests, limits, limited := corev1.ResourceList{}, corev1.ResourceList{}, map[corev1.ResourceName]int{}
	for i := range containers {
		effective := resources.Effective(containers[i])
		add(requests, effective.Requests)
		add(limits, effective.Limits)
		for name := range effective.Limits {
			limited[name]++
		}
	}
	for name, quantity := range requests {
		app.Requests[string(name)] = quantity.AsApproximateFloat64()
	}
	for name, quantity := range limits {
		if limited[name] == len(containers) {
			app.Limits[string(name)] = quantity.AsApproximateFloat64()
		}
	}
	return app
}

func add(to, more corev1.ResourceList) {
	for name, quantity := range more {
		sum := to[name]
		sum.Add(quantity)
		to[name] = sum
	}
}
