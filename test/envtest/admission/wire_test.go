package admission

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/client-go/kubernetes"
)

// warningLog keeps the warnings of the API server (rest.WarningHandler).
type warningLog struct {
	mu       sync.Mutex
	messages []string
}

// HandleWarningHeader takes one warning.
func (l *warningLog) HandleWarningHeader(_ int, _ string, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages = append(l.messages, message)
}

// take returns the warnings since the last call.
func (l *warningLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	messages := l.messages
	l.messages = nil
	return messages
}

// logLines keeps what is logged, and shows it with the specs that fail.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) write(prefix, args string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, prefix+" "+args)
	_, _ = fmt.Fprintf(GinkgoWriter, "%s %.300s\n", prefix, args) // it never fails
}

// containing are the lines that contain a text.
func (l *logLines) containing(text string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.lines), func(line string) bool { return !strings.Contains(line, text) })
}

// calls is how often the API server has called webhooks so far, in its own count.
func calls() int {
	GinkgoHelper()
	clientset, err := kubernetes.NewForConfig(server.Config)
	Expect(err).NotTo(HaveOccurred())
	body, err := clientset.RESTClient().Get().AbsPath("/metrics").Stream(context.Background())
	Expect(err).NotTo(HaveOccurred())
	defer func() { Expect(body.Close()).To(Succeed()) }()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(body)
	Expect(err).NotTo(HaveOccurred())
	total := 0
	for _, m := range families["apiserver_admission_webhook_request_total"].GetMetric() {
		if strings.HasSuffix(labelOf(m, "name"), ".fleet.sidecar.dev") {
			total += int(m.GetCounter().GetValue())
		}
	}
	return total
}

func labelOf(m *dto.Metric, name string) string {
	for _, pair := range m.GetLabel() {
		if pair.GetName() == name {
			return pair.GetValue()
		}
	}
	return ""
}
