// Package apiserver starts a real API server for a suite: etcd and kube-apiserver, and
// nothing else. No controller, no scheduler and no kubelet acts unless the test does.
package apiserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

const assetsEnv = "KUBEBUILDER_ASSETS"

var errNoAssets = errors.New(assetsEnv + " is not set, so there is no API server to test against: " +
	"run 'make test-envtest', which builds one first, or name a folder with etcd and kube-apiserver")

// Server is a running API server that serves the CRDs of this tree.
type Server struct {
	Config *rest.Config
	// Client is an administrator's. It reads from the API server, not from a cache.
	Client client.WithWatch

	environment *envtest.Environment
}

// Start starts an API server. The caller stops it.
func Start() (*Server, error) {
	if os.Getenv(assetsEnv) == "" {
		return nil, errNoAssets
	}
	s := &Server{environment: &envtest.Environment{
		CRDDirectoryPaths:     []string{filepath.Join(harness.Root(), "config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
	}}
	var err error
	if s.Config, err = s.environment.Start(); err != nil {
		return nil, fmt.Errorf("starting the API server of %s: %w", os.Getenv(assetsEnv), errors.Join(err, s.environment.Stop()))
	}
	if s.Client, err = harness.NewClient(s.Config); err != nil {
		return nil, errors.Join(err, s.environment.Stop())
	}
	return s, nil
}

// Stop stops the API server and removes all that it stored.
func (s *Server) Stop() error { return s.environment.Stop() }
