package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	env := map[string]string{"TESTPOD_VERSION": "v2", "TESTPOD_CRASH_AFTER": "5s"}
	got, err := parse([]string{"--version=v1", "--port=9090"}, func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	want := options{name: "testpod", version: "v2", port: 9090, crashAfter: 5 * time.Second, exitCode: 1}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := parse(nil, func(string) string { return "x" }); err == nil {
		t.Error("a bad variable must be refused")
	}
}

func TestReadyz(t *testing.T) {
	opts := options{readyAfter: time.Minute}
	for _, test := range []struct {
		name string
		age  time.Duration
		want int
	}{
		{"just started", 0, http.StatusServiceUnavailable},
		{"old enough", 2 * time.Minute, http.StatusOK},
	} {
		t.Run(test.name, func(t *testing.T) {
			recorder := httptest.NewRecorder()
			handler(opts, time.Now().Add(-test.age)).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/readyz", nil))
			if recorder.Code != test.want {
				t.Errorf("got %d, want %d", recorder.Code, test.want)
			}
		})
	}
}

func TestRequestsAreCountedByStatsD(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	opts := options{statsd: server.LocalAddr().String()}
	handler(opts, time.Now()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	if err := server.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	packet := make([]byte, 100)
	n, _, err := server.ReadFrom(packet)
	if got, want := string(packet[:n]), "requests:1|c"; err != nil || got != want {
		t.Errorf("got %q (%v), want %q", got, err, want)
	}
}

func TestRun(t *testing.T) {
	if err := run(t.Context(), options{crashAfter: time.Millisecond}); !errors.Is(err, errCrash) {
		t.Errorf("got %v, want a crash", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, options{}); err != nil {
		t.Errorf("a signal must end it without an error, got %v", err)
	}
}
