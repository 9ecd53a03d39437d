# Everything that is done with this repository. `make help` lists it.
#
# Needed: Go, make, git. The tools are built from their pins (hack/tools.sh), and the Kubernetes that
# the tests run against from its Go modules (hack/cluster).

VERSION ?= 0.1.0
IMG ?= ghcr.io/sidecar-dev/sidecar-operator:v$(VERSION)
BUNDLE_IMG ?= ghcr.io/sidecar-dev/sidecar-operator-bundle:v$(VERSION)
# The images of the bundles in a catalog; the package and the version of each go into the template.
BUNDLE_IMGS ?= ghcr.io/sidecar-dev/{{.Package}}-bundle:v{{.Version}}
# The bundles of a catalog, the oldest first.
BUNDLES ?= $(CURDIR)/bundle
# What the manager's image is built with and from, as arguments of its Dockerfile; empty takes the tags that stand there.
GO_IMAGE ?=
BASE_IMAGE ?=
KUBECTL ?= kubectl
# The name or address of this machine as the API server sees it, for `make run`.
WEBHOOK_HOST ?= 127.0.0.1
CONTAINER_TOOL ?= docker
# More arguments for go test: make test-unit ARGS='-run TestX -v'
ARGS ?=

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# One setting for all builds, or they would not share their cache. No cgo: Debian with Go has no C compiler.
export CGO_ENABLED ?= 0

CLUSTER := go run ./hack/cluster/cmd/cluster
BUNDLE := go -C hack/bundle run .
# What is generated, and committed.
GENERATED := ':(glob)api/**/zz_generated.*.go' config/crd/bases config/rbac/role.yaml dist bundle bundle.Dockerfile docs/reference
# Modules that are kept tidy.
MODULES := . hack/bundle hack/tools hack/tools/golangci-lint

##@ General

.PHONY: help
help: ## Say what each target does
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9A-Z._-]+:.*## / { printf "  %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Development

.PHONY: generate
generate: ## Generate the deep copies of the API types
	"$$(hack/tools.sh controller-gen)" object:headerFile=hack/boilerplate.go.txt paths=./api/...

.PHONY: manifests
manifests: ## Generate the CRD and the manager's role from the markers in the code
	"$$(hack/tools.sh controller-gen)" crd paths=./api/... output:crd:dir=config/crd/bases
	"$$(hack/tools.sh controller-gen)" rbac:roleName=manager-role 'paths={./controllers/...,./internal/admission,./internal/workload,./cmd/...}' output:rbac:dir=config/rbac

.PHONY: api-reference
api-reference: ## Write docs/reference/api.md from the API types
	@mkdir -p docs/reference
	"$$(hack/tools.sh crd-ref-docs)" --source-path=api --config=hack/api-reference.yaml --renderer=markdown \
	  --output-path=docs/reference/api.md --log-level=ERROR

.PHONY: fmt
fmt: ## Format the code and sort its imports
	"$$(hack/tools.sh golangci-lint)" fmt

.PHONY: lint
lint: ## Run the linters (.golangci.yml)
	"$$(hack/tools.sh golangci-lint)" run
	lint="$$(hack/tools.sh golangci-lint)" && cd hack/bundle && "$$lint" run

.PHONY: vet
vet: ## Run go vet, over the real-node suite too
	go vet -tags e2e ./...
	go -C hack/bundle vet ./...

.PHONY: verify
verify: verify-generated verify-tidy vet lint verify-vulnerabilities ## Fail if something generated is out of date, or the code does not pass vet, lint and govulncheck

.PHONY: verify-generated
verify-generated: generate manifests dist bundle api-reference ## Write all that is generated, and fail if it differs from git's index
	@if ! git diff --exit-code -- $(GENERATED); then \
	  echo "The files above were out of date, and are written anew: commit them." >&2; exit 1; fi
	@new="$$(git ls-files --others --exclude-standard -- $(GENERATED))"; if [ -n "$$new" ]; then \
	  printf "Not in git, and written now:\n%s\nCommit them.\n" "$$new" >&2; exit 1; fi

.PHONY: verify-tidy
verify-tidy: ## Fail if a go.mod or go.sum is not tidy
	@for module in $(MODULES); do echo "go mod tidy -diff in $$module"; go -C "$$module" mod tidy -diff; done

.PHONY: verify-vulnerabilities
verify-vulnerabilities: ## Fail if the code calls something with a known vulnerability; says so where the database can't be reached
	hack/vulnerabilities.sh

##@ Build

.PHONY: build
build: ## Build the manager and the kubectl plugin into bin/
	go build -trimpath -o bin/ ./cmd/...

.PHONY: plugin-archives
plugin-archives: ## Build the archives of kubectl sidecar for all platforms into bin/plugin, and the manifest for krew with their sums
	go run ./hack/archives -out bin/plugin -tag v$(VERSION)

.PHONY: run
run: ## Run the manager here, against the cluster of the current kubeconfig, whose API server reaches it at WEBHOOK_HOST
	$(KUBECTL) apply --server-side -f config/crd/bases
	$(KUBECTL) create namespace sidecar-operator-system --dry-run=client -o yaml | $(KUBECTL) apply --server-side -f -
	go run ./cmd/manager --webhook-host=$(WEBHOOK_HOST) --leader-elect=false \
	  --metrics-bind-address=127.0.0.1:8080 --metrics-secure=false

.PHONY: docker-build
docker-build: ## Build the manager's image; IMG names it, GO_IMAGE and BASE_IMAGE what it is made of
	$(CONTAINER_TOOL) build $(if $(GO_IMAGE),--build-arg GO_IMAGE='$(GO_IMAGE)') $(if $(BASE_IMAGE),--build-arg BASE_IMAGE='$(BASE_IMAGE)') -t $(IMG) .

.PHONY: pin
pin: ## Name the manager's image by its digest in all manifests: IMG=...:v1.2.3@sha256:..., then make dist bundle
	$(BUNDLE) pin '$(CURDIR)/config/manager/kustomization.yaml' '$(IMG)'

.PHONY: dist install.yaml
dist: manifests ## Write dist/install.yaml, the whole installation in one file
	@mkdir -p dist
	"$$(hack/tools.sh kustomize)" build config/default -o dist/install.yaml
install.yaml: dist ## The same as dist

.PHONY: bundle
bundle: manifests ## Write the OLM bundle from config/manifests, and validate it
	"$$(hack/tools.sh kustomize)" build config/manifests | \
	  $(BUNDLE) generate -dir '$(CURDIR)' -icon '$(CURDIR)/config/manifests/icon.svg'
	$(BUNDLE) validate '$(CURDIR)/bundle'

.PHONY: bundle-build
bundle-build: ## Build the image of the OLM bundle; BUNDLE_IMG names it
	$(CONTAINER_TOOL) build -f bundle.Dockerfile -t $(BUNDLE_IMG) .

.PHONY: catalog
catalog: ## Write a file-based OLM catalog of BUNDLES to bin/catalog, and the Dockerfile of its image
	$(BUNDLE) catalog -out '$(CURDIR)/bin/catalog' -images '$(BUNDLE_IMGS)' $(BUNDLES)

.PHONY: clean
clean: ## Remove what was built here; the caches of the tools and of the cluster stay
	rm -rf bin

##@ Test

.PHONY: test
test: test-unit test-envtest test-e2e ## Run all tests: unit, against an API server, on a real node

.PHONY: cluster-build
cluster-build: ## Build the Kubernetes that the tests run against (slow once, then cached)
	$(CLUSTER) build

.PHONY: test-unit
test-unit: ## Run the tests that need nothing but Go
	hack/test.sh unit $(ARGS)

.PHONY: test-envtest
test-envtest: ## Run the tests against a real API server; KUBEBUILDER_ASSETS says where its binaries are, if not built here
	hack/test.sh envtest $(ARGS)

.PHONY: test-e2e
test-e2e: ## Run the tests on a real node: kubelet and containerd, as root on Linux
	hack/test.sh e2e $(ARGS)

.PHONY: bench
bench: ## Measure the speed of roll-outs, the writes, memory and admission
	go run ./test/bench $(ARGS)

.PHONY: demo
demo: ## Show a roll-out from beginning to end on a cluster of its own
	go run ./test/demo $(ARGS)

##@ Deployment

.PHONY: deploy
deploy: ## Install into the cluster of the current kubeconfig
	$(KUBECTL) apply --server-side -f dist/install.yaml

.PHONY: undeploy
undeploy: ## Remove from the cluster of the current kubeconfig, with all policies
	@# The policies first, while the operator still runs: their admission registrations go with them.
	if $(KUBECTL) get crd sidecarpolicies.fleet.sidecar.dev >/dev/null 2>&1; then \
	  $(KUBECTL) delete sidecarpolicies.fleet.sidecar.dev --all; fi
	$(KUBECTL) delete --ignore-not-found -f dist/install.yaml
