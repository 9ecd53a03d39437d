//go:build !linux

package cluster

import (
	"context"
	"errors"
)

// RealNodeSupported says why this machine cannot run a real node.
func RealNodeSupported() error {
	return errors.New("a real node needs Linux")
}

func prepareHost(context.Context, nodePaths) error { return RealNodeSupported() }

func cleanNode(string) error { return nil }
