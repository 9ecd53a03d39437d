//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/hack/cluster/images"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
	"github.com/sidecar-dev/sidecar-operator/test/images/programs"
)

// trafficProof is how many requests have to be answered for the pods to count as in use.
const trafficProof = 100

var _ = Describe("A real sidecar", func() {
	It("as logging agent: an OpenTelemetry Collector loses no line of the app's log, and reads none twice", func() {
		p := pattern{name: "logging-agent", app: nginxApp(), port: 8080}
		p.push(func(version string) images.Spec { return programs.OTelCollector(fmt.Sprintf(collectorConfig, version)) })
		p.plugIn(func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars[0].VolumeMounts = []corev1.VolumeMount{{Name: "logs", MountPath: "/logs", ReadOnly: true}, {Name: "agent", MountPath: "/agent"}}
			t.AppContainers = []v1alpha1.AppContainer{{Selector: "*", VolumeMounts: []corev1.VolumeMount{{Name: "logs", MountPath: "/var/log/app"}}}}
			t.Volumes = []corev1.Volume{{Name: "logs"}, {Name: "agent"}}
			for i := range t.Volumes {
				t.Volumes[i].EmptyDir = &corev1.EmptyDirVolumeSource{}
			}
		})
		traffic := p.upgrade(nil)
		var want []int
		for id := range traffic.Sent() {
			want = append(want, id+1)
		}
		Eventually(func() []int { return slices.Sorted(maps.Keys(collected(p.name))) }, "20s", "200ms").Should(Equal(want))
		Expect(slices.Collect(maps.Values(collected(p.name)))).To(And(HaveEach(HaveLen(1)), ContainElements([]string{"v1"}, []string{"v2"})))
		p.unplug()
	})

	It("as ambassador: nginx before an outgoing connection of the app", func() {
		upstream := echo()
		p := pattern{name: "ambassador", app: nginxApp(), port: 8080, drain: 2}
		p.push(func(version string) images.Spec {
			return nginx(fmt.Sprintf(`
				server { listen 9101; location = /readyz { return 200 "ok\n"; } }
				server { listen 127.0.0.1:9100; location / { proxy_pass %s; proxy_set_header Via %s; } }`, upstream, version))
		})
		p.plugIn(func(t *v1alpha1.SidecarTemplate) { t.Sidecars[0].ReadinessProbe = httpProbe(9101) })
		// What the pods answer comes from upstream, through the ambassador.
		traffic := p.upgrade(func(r *http.Request) { r.URL.Path = "/out/" })
		Expect(traffic.Answers()).To(And(HaveLen(2), HaveKey("echo via v1"), HaveKey("echo via v2")))
		p.unplug()
	})

	It("as adapter: Prometheus' exporter of the StatsD metrics that the app sends", func() {
		versions := map[string]string{"v1": "0.30", "v2": "0.31"}
		push("app:statsd", "--port=8080", "--statsd=127.0.0.1:9125")
		p := pattern{name: "adapter", app: image("app:statsd"), port: 8080, drain: 2}
		p.push(func(version string) images.Spec { return programs.StatsdExporter(versions[version]) })
		p.plugIn(func(*v1alpha1.SidecarTemplate) {})
		metrics := func(version string) {
			GinkgoHelper()
			for _, pod := range podsOf(p.name) {
				Eventually(func() string { return get(&pod, 9102, "/metrics", nil) }, "20s", "200ms").Should(And(
					MatchRegexp(`(?m)^requests [1-9]`), ContainSubstring(fmt.Sprintf(`,version="%s"}`, version))))
			}
		}
		traffic, err := harness.SendTraffic(ctx, c, p.name, nil)
		Expect(err).NotTo(HaveOccurred())
		metrics("0.30")
		traffic.Stop()
		p.upgrade(nil)
		metrics("0.31")
		p.unplug()
	})

	It("as auth proxy: oauth2-proxy before the app, with passwords that change", func() {
		passwords := map[string]map[string]string{"v1": {"ann": "1"}, "v2": {"ann": "1", "ben": "2"}}
		p := pattern{name: "auth-proxy", app: nginxApp(), port: 4180, drain: 2}
		p.push(func(version string) images.Spec { return programs.OAuth2Proxy(passwords[version]) })
		p.plugIn(func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars[0].ReadinessProbe = httpProbe(4180)
			t.Sidecars[0].ReadinessProbe.HTTPGet.Path = "/ready"
		})
		in := func(user *url.Userinfo, want string) {
			GinkgoHelper()
			for _, pod := range podsOf(p.name) {
				Expect(get(&pod, 4180, "/", user)).To(HavePrefix(want))
			}
		}
		in(nil, "403 Forbidden")
		in(url.UserPassword("ben", "2"), "403 Forbidden")
		p.upgrade(func(r *http.Request) { r.SetBasicAuth("ann", "1") })
		in(nil, "403 Forbidden")
		in(url.UserPassword("ben", "2"), "200 OK: app")
		p.unplug()
	})

	It("as proxy: HAProxy before the app", func() {
		p := pattern{name: "proxy", app: nginxApp(), port: 8000, drain: 2}
		p.push(func(version string) images.Spec {
			spec, err := programs.HAProxy(ctx, fmt.Sprintf(proxyConfig, version))
			Expect(err).NotTo(HaveOccurred())
			return spec
		})
		p.plugIn(func(t *v1alpha1.SidecarTemplate) { t.Sidecars[0].ReadinessProbe = httpProbe(8000) })
		traffic := p.upgrade(nil)
		Expect(traffic.Answers()).To(And(HaveLen(2), HaveKey("app via v1"), HaveKey("app via v2")))
		p.unplug()
	})
})

// collectorConfig marks each line with the version that read it. How far it has read is kept
// beside what it writes: the next version goes on from there.
const collectorConfig = `
receivers:
  file_log:
    include: [/logs/*.log]
    start_at: beginning
    storage: file_storage
    operators:
    - {type: add, field: attributes.agent, value: %s}
exporters:
  file: {path: /agent/sink.json, append: true}
extensions:
  file_storage: {directory: /agent/read, create_directory: true}
service:
  extensions: [file_storage]
  telemetry: {metrics: {level: none}}
  pipelines:
    logs: {receivers: [file_log], exporters: [file]}
`

const proxyConfig = `
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
frontend in
  bind :8000
  monitor-uri /readyz
  http-request set-header Via %s
  default_backend app
backend app
  server app 127.0.0.1:8080
`

// pattern is one way to use a sidecar, of two versions: the images <name>:v1 and <name>:v2.
type pattern struct {
	// name is also that of the namespace, the policy and the sidecar.
	name string
	// app is the image of the app.
	app string
	// port is where requests enter the pod: the app's, or the sidecar's.
	port int32
	// drain is for how many seconds a pod gets no requests before its sidecar is restarted.
	drain int32
}

// push makes both versions.
func (p pattern) push(spec func(version string) images.Spec) {
	GinkgoHelper()
	for _, version := range []string{"v1", "v2"} {
		_, err := images.Push(ctx, image(p.name+":"+version), spec(version))
		Expect(err).NotTo(HaveOccurred())
	}
}

// plugIn creates pods with the first version.
func (p pattern) plugIn(change func(*v1alpha1.SidecarTemplate)) {
	GinkgoHelper()
	plugIn(&harness.Fleet{Namespace: p.name, Deployments: 1, Replicas: 2, Image: p.app, Probe: true}, func(policy *v1alpha1.SidecarPolicy) {
		policy.Spec.Template.Sidecars[0].Image = image(p.name + ":v1")
		policy.Spec.Rollout.Drain.Seconds = p.drain
		policy.Spec.OnRemoval = v1alpha1.RemovalRecreate
		change(&policy.Spec.Template)
	})
	DeferCleanup(func() { // or a failure in the middle would keep the policy
		err := harness.Edit(ctx, c, p.name, func(p *v1alpha1.SidecarPolicy) { p.Spec.OnRemoval = v1alpha1.RemovalKeep })
		Expect(client.IgnoreNotFound(err)).To(Succeed())
	})
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: p.name, Name: "app"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{harness.AppLabel: "app-00"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(p.port)}},
	}}
	Expect(c.Create(ctx, service)).To(Succeed())
	Eventually(func() []string { return serving(p.name) }, settleTimeout, "200ms").Should(HaveLen(2))
}

// upgrade brings the second version to pods that are in use: no request fails, and no app is touched.
func (p pattern) upgrade(prepare func(*http.Request)) *harness.Traffic {
	GinkgoHelper()
	apps, sidecars := identities(p.name, harness.AppContainer), identities(p.name, p.name)
	done := observe(p.name, 1)
	traffic, err := harness.SendTraffic(ctx, c, p.name, prepare)
	Expect(err).NotTo(HaveOccurred())
	defer traffic.Stop()
	Eventually(traffic.Sent, "30s", "50ms").Should(BeNumerically(">", trafficProof))
	Expect(harness.SetImage(ctx, c, p.name, p.name, image(p.name+":v2"))).To(Succeed())
	_, err = harness.WaitReady(ctx, c, p.name, settleTimeout)
	Expect(err).NotTo(HaveOccurred())
	Eventually(func() []string { return serving(p.name) }, settleTimeout, "200ms").Should(HaveLen(2))
	sent := traffic.Sent()
	Eventually(traffic.Sent, "30s", "50ms").Should(BeNumerically(">", sent+trafficProof))
	traffic.Stop()
	done()
	AddReportEntry("answers", traffic.Answers())
	Expect(traffic.Failures()).To(BeEmpty(), "of %d requests", traffic.Sent())
	Expect(identities(p.name, harness.AppContainer)).To(Equal(apps))
	for pod, now := range identities(p.name, p.name) {
		Expect(now.ContainerID).NotTo(Equal(sidecars[pod].ContainerID), "the sidecar of pod %s", pod)
		Expect(now.RestartCount).To(BeEquivalentTo(1), "the sidecar of pod %s", pod)
	}
	return traffic
}

// unplug deletes the policy, which takes the sidecars out. The pods without them work.
func (p pattern) unplug() {
	GinkgoHelper()
	done := observe(p.name, 1)
	policy := &v1alpha1.SidecarPolicy{ObjectMeta: metav1.ObjectMeta{Name: p.name}}
	Expect(c.Delete(ctx, policy)).To(Succeed())
	Eventually(func() bool { return apierrors.IsNotFound(c.Get(ctx, client.ObjectKeyFromObject(policy), policy)) }, settleTimeout, "200ms").
		Should(BeTrue(), func() string { return harness.Describe(policy) })
	Expect(carrying(p.name)).To(BeEmpty())
	Expect(harness.WaitPodsReady(ctx, c, p.name, 2, settleTimeout)).To(Succeed())
	done()
}

// nginxApp is an app at port 8080: it answers /, logs the parameter id of the request to a file, and asks what
// listens at its own port 9100 for /out/.
func nginxApp() string {
	GinkgoHelper()
	spec := nginx(`
		log_format id $arg_id;
		server {
			listen 8080;
			location = /readyz { return 200 "ok\n"; }
			location / { access_log /var/log/app/access.log id; return 200 "app via $http_via\n"; }
			location /out/ { proxy_pass http://127.0.0.1:9100/; }
		}`)
	spec.Files["/var/log/app/"] = ""
	_, err := images.Push(ctx, image("app:nginx"), spec)
	Expect(err).NotTo(HaveOccurred())
	return image("app:nginx")
}

func nginx(config string) images.Spec {
	GinkgoHelper()
	spec, err := programs.Nginx(ctx, config)
	Expect(err).NotTo(HaveOccurred())
	return spec
}

// direct asks no proxy for the way: the pod is next door.
var direct = http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// get asks a pod, and returns the status and the body of its answer.
func get(pod *corev1.Pod, port int, path string, user *url.Userinfo) string {
	GinkgoHelper()
	address := url.URL{Scheme: "http", User: user, Host: net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(port)), Path: path}
	response, err := direct.Get(address.String())
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	Expect(err).NotTo(HaveOccurred())
	return response.Status + ": " + string(body)
}

// collected is which versions of the log agent wrote which line into the sinks of a namespace's pods.
func collected(namespace string) map[int][]string {
	GinkgoHelper()
	lines := map[int][]string{}
	for _, pod := range podsOf(namespace) {
		sink := filepath.Join(node.Dir(), "kubelet", "pods", string(pod.UID), "volumes", "kubernetes.io~empty-dir", "agent", "sink.json")
		content, err := os.ReadFile(sink)
		Expect(err).NotTo(HaveOccurred())
		for _, record := range sinkRecord.FindAllStringSubmatch(string(content), -1) {
			id, err := strconv.Atoi(record[1])
			Expect(err).NotTo(HaveOccurred())
			lines[id] = append(lines[id], record[2])
		}
	}
	return lines
}

// sinkRecord is a line of the app in the sink, and the agent that read it.
var sinkRecord = regexp.MustCompile(`"body":\{"stringValue":"(\d+)"\},"attributes":\[.*?"key":"agent","value":\{"stringValue":"(\w+)"`)

// echo is a server outside of the pods, which answers with the header Via of the request. It returns its URL.
func echo() string {
	GinkgoHelper()
	nodes := &corev1.NodeList{}
	Expect(c.List(ctx, nodes)).To(Succeed())
	listener, err := net.Listen("tcp", net.JoinHostPort(nodes.Items[0].Status.Addresses[0].Address, "0"))
	Expect(err).NotTo(HaveOccurred())
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, "echo via", strings.TrimSpace(r.Header.Get("Via")))
	}), ReadHeaderTimeout: time.Second}}
	server.Start()
	DeferCleanup(server.Close)
	return server.URL
}
