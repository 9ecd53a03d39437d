package controllers_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/controllers"
)

var _ = DescribeTable("A cached node keeps what prefetching looks at", func(kubelet string, images int) {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", ResourceVersion: "7", Labels: map[string]string{"zone": "a"}, Annotations: map[string]string{"a": "b"}},
		Spec:       corev1.NodeSpec{PodCIDR: "10.0.0.0/24"},
		Status: corev1.NodeStatus{
			NodeInfo:   corev1.NodeSystemInfo{KubeletVersion: kubelet, MachineID: "x"},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeDiskPressure}, {Type: corev1.NodeReady, Status: corev1.ConditionTrue, Message: "x"}},
			Images:     []corev1.ContainerImage{{Names: []string{"agent:1"}, SizeBytes: 5}},
		},
	}
	stripped, err := controllers.StripNode(node)
	Expect(err).NotTo(HaveOccurred())
	want := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", ResourceVersion: "7", Labels: map[string]string{"zone": "a"}},
		Status: corev1.NodeStatus{
			NodeInfo:   corev1.NodeSystemInfo{KubeletVersion: kubelet},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
	if images > 0 {
		want.Status.Images = []corev1.ContainerImage{{Names: []string{"agent:1"}}}
	}
	Expect(stripped).To(Equal(want))
},
	Entry("without images, where a prefetch pod tells", "v1.37.2", 0),
	Entry("with images, where nothing else does", "v1.34.1", 1),
)
