package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// Component is a binary of the cluster.
type Component string

// The binaries that a cluster is made of.
const (
	Etcd                  Component = "etcd"
	KubeAPIServer         Component = "kube-apiserver"
	KubeControllerManager Component = "kube-controller-manager"
	KubeScheduler         Component = "kube-scheduler"
	Kubelet               Component = "kubelet"
	Kubectl               Component = "kubectl"
	Containerd            Component = "containerd"
	ContainerdShim        Component = "containerd-shim-runc-v2"
	CNIBridge             Component = "bridge"
	CNIHostLocal          Component = "host-local"
	Kwok                  Component = "kwok"
)

// The binaries of Operator Lifecycle Manager, which StartOLM runs. The last two
// run in pods.
const (
	OLMOperator        Component = "olm-operator"
	OLMCatalogOperator Component = "olm-catalog-operator"
	OLMPackager        Component = "opm"
	OLMBundleCopier    Component = "cpb"
)

// OLMComponents lists the binaries of Operator Lifecycle Manager.
func OLMComponents() []Component {
	return []Component{OLMOperator, OLMCatalogOperator, OLMPackager, OLMBundleCopier}
}

// EnvtestAssets are the binaries that controller-runtime's envtest looks for
// in KUBEBUILDER_ASSETS.
func EnvtestAssets() []Component {
	return []Component{Etcd, KubeAPIServer, Kubectl}
}

// ComponentsFor lists the binaries that a cluster of this kind runs.
func ComponentsFor(kind Kind) []Component {
	components := append(EnvtestAssets(), KubeControllerManager, KubeScheduler)
	switch kind {
	case Simulated:
		return append(components, Kwok)
	case RealNode:
		return append(components, Kubelet, Containerd, ContainerdShim, CNIBridge, CNIHostLocal)
	default:
		return components
	}
}

// source says where a component is built from.
type source struct {
	// module is a folder under components/, a Go module of its own.
	module string
	// requirement is the module in that folder's go.mod whose version is the
	// version of the component.
	requirement string
	pkg         string
	tags        string
	// cold is what the build takes on two cores with an empty build cache.
	cold string
}

const (
	kubernetesModule = "k8s.io/kubernetes"
	containerdModule = "github.com/containerd/containerd/v2"
	cniModule        = "github.com/containernetworking/plugins"
	etcdModule       = "go.etcd.io/etcd/server/v3"
	kwokModule       = "sigs.k8s.io/kwok"
	olmModule        = "github.com/operator-framework/operator-lifecycle-manager"
	opmModule        = "github.com/operator-framework/operator-registry"

	// containerdTags leave out the snapshotters that need C libraries.
	containerdTags = "no_btrfs no_devmapper no_zfs"
	// opmTags choose the check of signatures that needs no C library.
	opmTags = "containers_image_openpgp"
)

// sources is a map because it is only ever looked up, never walked.
var sources = map[Component]source{
	Etcd:                  {"etcd", etcdModule, etcdModule, "", "1 min"},
	KubeAPIServer:         {"kubernetes", kubernetesModule, kubernetesModule + "/cmd/kube-apiserver", "", "7 min"},
	KubeControllerManager: {"kubernetes", kubernetesModule, kubernetesModule + "/cmd/kube-controller-manager", "", "2 min"},
	KubeScheduler:         {"kubernetes", kubernetesModule, kubernetesModule + "/cmd/kube-scheduler", "", "1 min"},
	Kubelet:               {"kubernetes", kubernetesModule, kubernetesModule + "/cmd/kubelet", "", "2 min"},
	Kubectl:               {"kubernetes", kubernetesModule, kubernetesModule + "/cmd/kubectl", "", "1 min"},
	Containerd:            {"containerd", containerdModule, containerdModule + "/cmd/containerd", containerdTags, "1 min"},
	ContainerdShim:        {"containerd", containerdModule, containerdModule + "/cmd/containerd-shim-runc-v2", containerdTags, "1 min"},
	CNIBridge:             {"cni", cniModule, cniModule + "/plugins/main/bridge", "", "10 s"},
	CNIHostLocal:          {"cni", cniModule, cniModule + "/plugins/ipam/host-local", "", "10 s"},
	Kwok:                  {"kwok", kwokModule, kwokModule + "/cmd/kwok", "", "1 min"},
	OLMOperator:           {"olm", olmModule, olmModule + "/cmd/olm", "", "3 min"},
	OLMCatalogOperator:    {"olm", olmModule, olmModule + "/cmd/catalog", "", "10 s"},
	OLMPackager:           {"olm", opmModule, opmModule + "/cmd/opm", opmTags, "30 s"},
	OLMBundleCopier:       {"olm", olmModule, olmModule + "/util/cpb", "", "10 s"},
}

// componentsDir is the folder that holds the components' modules. The path
// compiled into the program is right for `go run` and `go test`; a binary
// built with -trimpath has to look for the repository around it.
func componentsDir() (string, error) {
	root, err := repoRoot()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "hack", "cluster", "components"), nil
}

const rootModule = "github.com/sidecar-dev/sidecar-operator"

func repoRoot() (string, error) {
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		root := filepath.Join(filepath.Dir(file), "..", "..")
		if isModule(root, rootModule) {
			return root, nil
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if isModule(dir, rootModule) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no folder above the working directory holds the module %s", rootModule)
		}
	}
}

func isModule(dir, path string) bool {
	data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	return err == nil && modfile.ModulePath(data) == path
}

// moduleVersion reads the version of a requirement out of a go.mod, so that a
// version is written down in one place only.
func moduleVersion(gomod []byte, requirement string) (string, error) {
	file, err := modfile.ParseLax("go.mod", gomod, nil)
	if err != nil {
		return "", err
	}
	for _, require := range file.Require {
		if require.Mod.Path == requirement {
			return require.Mod.Version, nil
		}
	}
	return "", fmt.Errorf("go.mod does not require %s", requirement)
}

// ldflags drops the symbol tables, and tells Kubernetes its own version, which
// otherwise calls itself v0.0.0-master.
func ldflags(module, version string) string {
	flags := []string{"-s", "-w"}
	if module != "kubernetes" {
		return strings.Join(flags, " ")
	}
	const pkg = "k8s.io/component-base/version"
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	for len(parts) < 2 {
		parts = append(parts, "")
	}
	return strings.Join(append(flags,
		fmt.Sprintf("-X %s.gitVersion=%s", pkg, version),
		fmt.Sprintf("-X %s.gitMajor=%s", pkg, parts[0]),
		fmt.Sprintf("-X %s.gitMinor=%s", pkg, parts[1]),
		fmt.Sprintf("-X %s.gitTreeState=clean", pkg),
	), " ")
}

// cacheKey changes with everything that changes a module's binaries.
func cacheKey(parts ...[]byte) string {
	sum := sha256.New()
	for _, part := range parts {
		// The length keeps two neighbouring parts apart.
		_, _ = fmt.Fprintf(sum, "%d:", len(part))
		sum.Write(part)
	}
	return hex.EncodeToString(sum.Sum(nil))[:12]
}

// uniqueComponents keeps the order, which is the order of the build.
func uniqueComponents(components []Component) []Component {
	var unique []Component
	for _, component := range components {
		if !slices.Contains(unique, component) {
			unique = append(unique, component)
		}
	}
	return unique
}
