#!/usr/bin/env bash
# Prints the path of a pinned tool, and builds it first where that has not been done yet:
#
#   hack/tools.sh controller-gen | kustomize | crd-ref-docs | govulncheck | golangci-lint
#
# The versions are those of hack/tools/go.mod and hack/tools/golangci-lint/go.mod. golangci-lint
# has a module of its own, so that its many dependencies don't move the versions of the others.
#
# The binaries live outside the work tree, in a folder named by the hash of everything that
# decides what they are: a pin that changes is a new folder, and `git clean` costs nothing.
set -euo pipefail

case "${1:-}" in
  controller-gen | kustomize | crd-ref-docs | govulncheck) module=hack/tools ;;
  golangci-lint) module=hack/tools/golangci-lint ;;
  *) echo "usage: $0 controller-gen | kustomize | crd-ref-docs | govulncheck | golangci-lint" >&2; exit 2 ;;
esac

cd "$(dirname "$0")/.."
unset GOOS GOARCH # the tools run here, whatever is being cross-built
export CGO_ENABLED=0
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/sidecar-operator/tools
hash=$({ go env GOVERSION GOOS GOARCH; cat "$module/go.mod" "$module/go.sum"; } | git hash-object --stdin)
bin=$cache/$hash/bin

if [ ! -x "$bin/$1" ]; then
  echo "building the tools of $module (once, into $bin) ..." >&2
  mkdir -p "$cache"
  # Built beside and moved into place whole: an interrupted build leaves nothing that looks finished.
  building=$(mktemp -d "$cache/.building.XXXXXX")
  trap 'rm -rf "$building"' EXIT
  go -C "$module" build -trimpath -o "$building/bin/" tool >&2
  mkdir -p "$cache/$hash"
  [ -x "$bin/$1" ] || mv "$building/bin" "$bin"
fi
echo "$bin/$1"
