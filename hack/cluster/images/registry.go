package images

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Registry is a registry in this process, on the loopback address.
type Registry struct {
	address string
	server  *http.Server
}

// Serve starts a registry that keeps its blobs in dir. Port 0 takes a free one.
func Serve(dir string, port int) (*Registry, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start the registry: %w", err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("start the registry: %w", err)
	}
	handler := registry.New(
		registry.WithBlobHandler(registry.NewDiskBlobHandler(dir)),
		registry.Logger(log.New(io.Discard, "", 0)),
	)
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	return &Registry{address: listener.Addr().String(), server: server}, nil
}

// Address is the host and port that references to its images start with.
func (r *Registry) Address() string { return r.address }

// Close stops the registry at once.
func (r *Registry) Close() error { return r.server.Close() }
