package inject

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
)

// Patch is the JSON patch (RFC 6902) that adds the additions to a pod. It consists
// of 'add' operations alone, so that fields of the pod which this build does
// not know can't be lost.
func (a Additions) Patch(pod *corev1.Pod) []jsonpatch.Operation {
	var ops []jsonpatch.Operation
	ops = append(ops, mapOps("/metadata/labels", pod.Labels, a.Labels)...)
	ops = append(ops, mapOps("/metadata/annotations", pod.Annotations, a.Annotations)...)
	for _, i := range slices.Sorted(maps.Keys(a.App)) {
		path := fmt.Sprintf("/spec/containers/%d", i)
		ops = append(ops, appendOps(path+"/volumeMounts", pod.Spec.Containers[i].VolumeMounts, a.App[i].VolumeMounts)...)
		ops = append(ops, appendOps(path+"/env", pod.Spec.Containers[i].Env, a.App[i].Env)...)
	}
	ops = append(ops, initOps(pod.Spec.InitContainers, ahead(pod), a.InitContainers, a.LateInitContainers)...)
	ops = append(ops, appendOps("/spec/containers", pod.Spec.Containers, a.Containers)...)
	ops = append(ops, appendOps("/spec/volumes", pod.Spec.Volumes, a.Volumes)...)
	ops = append(ops, appendOps("/spec/imagePullSecrets", pod.Spec.ImagePullSecrets, a.ImagePullSecrets)...)
	ops = append(ops, appendOps("/spec/readinessGates", pod.Spec.ReadinessGates, a.ReadinessGates)...)
	if a.ShareProcessNamespace {
		ops = append(ops, jsonpatch.NewOperation("add", "/spec/shareProcessNamespace", true))
	}
	return ops
}

// appendOps adds entries at the end of a list, which is made where it is not there.
func appendOps[T any](path string, own, added []T) []jsonpatch.Operation {
	if len(added) > 0 && len(own) == 0 {
		return []jsonpatch.Operation{jsonpatch.NewOperation("add", path, added)}
	}
	var ops []jsonpatch.Operation
	for _, item := range added {
		ops = append(ops, jsonpatch.NewOperation("add", path+"/-", item))
	}
	return ops
}

// initOps adds init containers at an index and after all.
func initOps(own []corev1.Container, at int, before, after []corev1.Container) []jsonpatch.Operation {
	const path = "/spec/initContainers"
	if len(own) == 0 {
		return appendOps(path, own, slices.Concat(before, after))
	}
	var ops []jsonpatch.Operation
	for i, item := range before {
		ops = append(ops, jsonpatch.NewOperation("add", fmt.Sprintf("%s/%d", path, at+i), item))
	}
	return append(ops, appendOps(path, own, after)...)
}

// mapOps adds keys to a map, which is made where it is not there.
func mapOps(path string, own, added map[string]string) []jsonpatch.Operation {
	if len(added) > 0 && len(own) == 0 {
		return []jsonpatch.Operation{jsonpatch.NewOperation("add", path, added)}
	}
	var ops []jsonpatch.Operation
	for _, key := range slices.Sorted(maps.Keys(added)) {
		// One with another value can only be the operator's own: for others it is a conflict.
		if value, ok := own[key]; !ok || value != added[key] {
			ops = append(ops, jsonpatch.NewOperation("add", path+"/"+escape.Replace(key), added[key]))
		}
	}
	return ops
}

// escape writes a key as a reference token of RFC 6901.
var escape = strings.NewReplacer("~", "~0", "/", "~1")
