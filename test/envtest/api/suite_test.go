// Package api tests what the API server itself takes and refuses of a SidecarPolicy: the
// rules, their messages, the defaults and what kubectl shows.
package api

import (
	"context"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/sidecar-dev/sidecar-operator/test/envtest/apiserver"
)

var (
	ctx    = context.Background()
	server *apiserver.Server
)

func TestAPI(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "The SidecarPolicy API")
}

var _ = BeforeSuite(func() {
	var err error
	server, err = apiserver.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(server.Stop()).To(Succeed()) })
})
