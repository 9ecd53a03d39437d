#!/usr/bin/env bash
# Runs one of the test suites; further arguments go to go test:
#
#   hack/test.sh unit | envtest | e2e [-run TestX ...]
set -euo pipefail
cd "$(dirname "$0")/.."

# unit needs nothing but Go.
unit() {
  go test "$@" ./api/... ./internal/... ./cmd/... ./hack/... ./test/images/...
  go -C hack/bundle test "$@" ./...
}

# envtest runs against an API server and etcd, built from their Go modules where KUBEBUILDER_ASSETS names none,
# and against Prometheus (test/prometheus).
envtest() {
  if [ -z "${KUBEBUILDER_ASSETS:-}" ]; then
    KUBEBUILDER_ASSETS=$(go run ./hack/cluster/cmd/cluster build --print-assets)
    export KUBEBUILDER_ASSETS
  fi
  # Not from the test cache: it does not see that those binaries have changed.
  go test -count=1 "$@" ./controllers/... ./test/envtest/... ./test/prometheus/...
}

# e2e runs on a node of its own: kubelet, containerd and runc on this machine.
e2e() {
  if [ "$(uname -s)" != Linux ]; then
    not_run "it needs Linux, and this is $(uname -s)"
    return
  fi
  if [ "$(id -u)" != 0 ]; then
    not_run "a kubelet needs root, and this is user $(id -un)"
    return
  fi
  install_node_packages
  # What the tests run is built before them: their time is limited.
  go run ./hack/cluster/cmd/cluster build --kind real-node olm-operator olm-catalog-operator opm cpb >/dev/null
  go test -tags e2e -count=1 -timeout 30m "$@" ./test/e2e/...
}

not_run() {
  cat >&2 <<BANNER

############################################################################
##
##   THE REAL-NODE SUITE WAS NOT RUN: $1.
##
##   Nothing has shown here that a kubelet upgrades a sidecar in place
##   without touching the app. Run 'make test-e2e' as root on Linux.
##
############################################################################

BANNER
}

# install_node_packages gets what a node needs and Go modules can't give: runc with seccomp.
install_node_packages() {
  command -v runc >/dev/null && return
  if ! command -v apt-get >/dev/null; then
    echo "The real-node suite needs runc (built with seccomp), and there is no apt-get to install it: install runc." >&2
    return 1
  fi
  echo "installing runc ..." >&2
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends runc >&2
}

case "${1:-}" in
  unit | envtest | e2e) "$@" ;;
  *) echo "usage: $0 unit | envtest | e2e [arguments of go test]" >&2; exit 2 ;;
esac
