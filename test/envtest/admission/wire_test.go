package admission

import (
	"context"
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
