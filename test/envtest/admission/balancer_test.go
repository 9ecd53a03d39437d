package admission

import (
	"io"
	"net"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// balancer hands each connection to the next of several replicas, as a Service does.
type balancer struct {
	listener net.Listener
	backends []string

	mu    sync.Mutex
	next  int
	links map[*link]bool
}

// link is a connection of a client's to a replica.
type link struct {
	client, replica net.Conn
	done            chan struct{}
}

func balance(address string, backends ...string) *balancer {
	GinkgoHelper()
	listener, err := net.Listen("tcp", address)
	Expect(err).NotTo(HaveOccurred())
	b := &balancer{listener: listener, backends: backends, links: map[*link]bool{}}
	DeferCleanup(func() { Expect(listener.Close()).To(Succeed()) })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed
			}
			b.connect(client)
		}
	}()
	return b
}

func (b *balancer) connect(client net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	replica, err := net.Dial("tcp", b.backends[b.next%len(b.backends)])
	b.next++
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{client: client, replica: replica, done: make(chan struct{})}
	b.links[l] = true
	go func() { _, _ = io.Copy(client, replica) }()
	go func() {
		_, _ = io.Copy(replica, client) // until the client has closed its end
		_, _ = replica.Close(), client.Close()
		close(l.done)
	}()
}

// drain has the clients give up their connections, so that their next requests begin with a handshake. It returns
// when they have; no request may be under way.
func (b *balancer) drain() {
	GinkgoHelper()
	b.mu.Lock()
	links := b.links
	b.links = map[*link]bool{}
	b.mu.Unlock()
	for l := range links {
		_ = l.client.(*net.TCPConn).CloseWrite() // the client may have been faster
		Eventually(l.done).Should(BeClosed())
	}
}
