package plugin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// policyFile is a policy as its author wrote it.
type policyFile struct{ *unstructured.Unstructured }

// readPolicies reads the policies of a file, and skips what else is in it.
func readPolicies(in io.Reader, name string) ([]*policyFile, error) {
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }() // it was only read
		in = file
	}
	var files []*policyFile
	documents := utilyaml.NewYAMLReader(bufio.NewReader(in))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		policy, err := readPolicy(document)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		if policy != nil {
			files = append(files, policy)
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no SidecarPolicy of %s", name, v1alpha1.GroupVersion)
	}
	return files, nil
}

// readPolicy is nil where the document is something else. A key that a policy has twice is a mistake: one of the values
// would be lost.
func readPolicy(document []byte) (*policyFile, error) {
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(document, &object.Object); err != nil {
		return nil, err
	}
	if object.GroupVersionKind() != v1alpha1.GroupVersion.WithKind("SidecarPolicy") {
		return nil, nil
	}
	object = &unstructured.Unstructured{}
	return &policyFile{object}, yaml.UnmarshalStrict(document, &object.Object)
}

// applied is the policy as it would be stored after kubectl apply, filled in and checked by the API server
// in a dry run: with --server-side or, where it was applied without that before, as then.
func (f *policyFile) applied(ctx context.Context, c client.Client, current *v1alpha1.SidecarPolicy, manager string) (*v1alpha1.SidecarPolicy, error) {
	object := f.DeepCopy()
	var err error
	if current != nil && appliedByClient(current) {
		err = f.patchByClient(ctx, c, current, object)
	} else { // the API server takes no field here that it does not know
		err = c.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.DryRunAll, client.ForceOwnership, client.FieldOwner(manager))
	}
	if err != nil {
		return nil, fmt.Errorf("the API server does not take it: %w", err)
	}
	policy := &v1alpha1.SidecarPolicy{}
	return policy, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, policy)
}

// appliedByClient says whether kubectl apply without --server-side was what wrote it last.
func appliedByClient(policy *v1alpha1.SidecarPolicy) bool {
	_, found := policy.Annotations[corev1.LastAppliedConfigAnnotation]
	for _, field := range policy.ManagedFields {
		found = found && (field.Operation != metav1.ManagedFieldsOperationApply || field.Subresource != "")
	}
	return found
}

// patchByClient sends the merge patch that kubectl apply would send, and as strictly: a misspelled field is refused.
func (f *policyFile) patchByClient(ctx context.Context, c client.Client, current *v1alpha1.SidecarPolicy, into *unstructured.Unstructured) error {
	modified, err := json.Marshal(f.Object)
	if err != nil {
		return err
	}
	stored := &unstructured.Unstructured{}
	stored.SetGroupVersionKind(f.GroupVersionKind())
	if err := c.Get(ctx, client.ObjectKeyFromObject(current), stored); err != nil {
		return err
	}
	now, err := json.Marshal(stored.Object)
	if err != nil {
		return err
	}
	patch, err := jsonmergepatch.CreateThreeWayJSONMergePatch([]byte(current.Annotations[corev1.LastAppliedConfigAnnotation]), modified, now)
	if err != nil {
		return err
	}
	return c.Patch(ctx, into, client.RawPatch(types.MergePatchType, patch), client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict))
}
