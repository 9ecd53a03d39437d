package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// RealNodeSupported says why this machine cannot run a real node, and nil if
// it can.
func RealNodeSupported() error {
	if os.Geteuid() != 0 {
		return errors.New("a real node needs root")
	}
	if len(cgroupRoots()) == 0 {
		return errors.New("a real node needs cgroups, and none are mounted")
	}
	_, aptErr := exec.LookPath("apt-get")
	for _, tool := range []string{"runc", "ip"} {
		if _, err := exec.LookPath(tool); err != nil && aptErr != nil {
			return fmt.Errorf("a real node needs %s, and there is no apt-get to install it", tool)
		}
	}
	return nil
}

// prepareHost makes what kubelet and containerd expect to find. The bridge
// comes first of all, because the API server listens on it.
func prepareHost(ctx context.Context, paths nodePaths) error {
	if err := saveSysctls(paths.sysctls()); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"link", "add", bridge, "address", bridgeMAC, "type", "bridge"},
		{"address", "add", nodeIPMask, "dev", bridge},
		{"address", "add", serviceIP + "/32", "dev", bridge},
		{"link", "set", bridge, "up"},
	} {
		if err := command(ctx, "ip", args...); err != nil {
			return fmt.Errorf("set up the bridge: %w", err)
		}
	}
	for _, root := range cgroupRoots() {
		if err := os.MkdirAll(filepath.Join(root, cgroupName), 0o755); err != nil {
			return err
		}
		// With cgroup v2 the root has to hand its controllers down.
		_ = os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+cpu +cpuset +memory +pids +io"), 0o644)
	}
	return nil
}

// cleanNode takes away what a node left behind, in whatever state it is. Each
// step says by itself what is ours: by our socket, our cgroup, our folder.
func cleanNode(run string) error {
	paths := nodePaths{run}
	killContainers()
	killShims(paths.socket())
	if err := unmountBelow(run); err != nil {
		return err
	}
	removeCgroups()
	_ = exec.Command("ip", "link", "delete", bridge).Run()
	removeCNICache()
	removeLogLinks(run)
	return restoreSysctls(paths.sysctls())
}

// cgroupRoots lists the cgroup hierarchies.
func cgroupRoots() []string {
	var roots []string
	for _, mount := range mounts() {
		if (mount.fstype == "cgroup" || mount.fstype == "cgroup2") && !slices.Contains(roots, mount.point) {
			roots = append(roots, mount.point)
		}
	}
	return roots
}

type mountPoint struct{ point, fstype string }

func mounts() []mountPoint {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil
	}
	return parseMounts(data)
}

// parseMounts undoes the escapes of /proc/mounts for blanks.
func parseMounts(data []byte) []mountPoint {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var list []mountPoint
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) >= 3 {
			list = append(list, mountPoint{unescape.Replace(fields[1]), fields[2]})
		}
	}
	return list
}

// unmountBelow goes backwards, as a later mount may lie inside an earlier one.
// Whoever removes the folder afterwards relies on the error: removing
// through a mount would remove somebody else's files.
func unmountBelow(dir string) error {
	prefix := dir + string(filepath.Separator)
	list := mounts()
	slices.Reverse(list)
	var errs []error
	for _, mount := range list {
		if !strings.HasPrefix(mount.point, prefix) {
			continue
		}
		if err := syscall.Unmount(mount.point, syscall.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", mount.point, err))
		}
	}
	return errors.Join(errs...)
}

// killContainers kills by cgroup, while the shims are there to collect the
// dead, and waits until the groups are empty.
func killContainers() {
	_ = poll(3*time.Second, func() bool {
		left := false
		for _, dir := range cgroupDirs() {
			for _, pid := range processesIn(dir) {
				left = true
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return !left
	})
}

// cgroupDirs lists our groups, each before the ones inside it.
func cgroupDirs() []string {
	var dirs []string
	for _, root := range cgroupRoots() {
		_ = filepath.WalkDir(filepath.Join(root, cgroupName), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
	}
	return dirs
}

func processesIn(dir string) []int {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for scanner.Scan() {
		if pid, err := strconv.Atoi(scanner.Text()); err == nil && pid > 1 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// removeCgroups goes from the inside out. A group stays busy for a moment
// after its last process.
func removeCgroups() {
	_ = poll(2*time.Second, func() bool {
		dirs := cgroupDirs()
		slices.Reverse(dirs)
		for _, dir := range dirs {
			_ = syscall.Rmdir(dir)
		}
		return len(cgroupDirs()) == 0
	})
}

// killShims finds the shims by the socket of their containerd, which is in our
// folder. They outlive containerd on purpose.
func killShims(socket string) {
	_ = poll(3*time.Second, func() bool {
		left := false
		for _, pid := range shims(socket) {
			left = true
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return !left
	})
}

func shims(socket string) []int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var pids []int
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || !isShim(data, socket) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// isShim reads a command line as /proc has it: each argument ends with a 0.
func isShim(cmdline []byte, socket string) bool {
	args := strings.Split(string(cmdline), "\x00")
	if filepath.Base(args[0]) != string(ContainerdShim) {
		return false
	}
	i := slices.Index(args, "-address")
	return i >= 0 && i+1 < len(args) && args[i+1] == socket
}

// removeCNICache removes what the CNI library keeps outside our folder.
func removeCNICache() {
	files, _ := filepath.Glob("/var/lib/cni/results/" + networkName + "-*")
	for _, file := range files {
		_ = os.Remove(file)
	}
	for _, dir := range []string{"/var/lib/cni/results", "/var/lib/cni"} {
		// Rmdir leaves a folder alone that somebody else uses.
		_ = syscall.Rmdir(dir)
	}
}

// removeLogLinks removes the kubelet's links to our pods' logs. Their folder
// is fixed in the kubelet.
func removeLogLinks(run string) {
	links, _ := filepath.Glob("/var/log/containers/*.log")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, run+"/") {
			_ = os.Remove(link)
		}
	}
}

// kubeletSysctls are the host's settings that a kubelet changes when it starts.
var kubeletSysctls = []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"}

func saveSysctls(path string) error {
	values := map[string]string{}
	for _, name := range kubeletSysctls {
		if value, err := os.ReadFile(filepath.Join("/proc/sys", name)); err == nil {
			values[name] = strings.TrimSpace(string(value))
		}
	}
	data, err := json.Marshal(values)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

func restoreSysctls(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	values := map[string]string{}
	if err := json.Unmarshal(data, &values); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	for _, name := range kubeletSysctls {
		if value, saved := values[name]; saved {
			_ = os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644)
		}
	}
	return nil
}

// poll waits for something that does not announce itself.
func poll(timeout time.Duration, done func() bool) error {
	return wait.PollUntilContextTimeout(context.Background(), 50*time.Millisecond, timeout, true,
		func(context.Context) (bool, error) { return done(), nil })
}
