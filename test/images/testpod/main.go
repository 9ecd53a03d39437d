// Command testpod is the app and the sidecar of the tests. Its options can be
// baked into an image as arguments, so that only the tag changes what it does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

type options struct {
	name       string
	version    string
	port       int
	readyAfter time.Duration
	crashAfter time.Duration
	exitCode   int
	call       string
	callAfter  time.Duration
	statsd     string
}

func main() {
	opts, err := parse(os.Args[1:], os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	if err := run(ctx, opts); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(opts.exitCode)
	}
}

// parse reads flags. An environment variable TESTPOD_<FLAG> wins over a flag,
// since the flags are in the image and the environment is the pod's.
func parse(args []string, getenv func(string) string) (options, error) {
	opts := options{}
	flags := flag.NewFlagSet("testpod", flag.ContinueOnError)
	flags.StringVar(&opts.name, "name", "testpod", "what / calls itself")
	flags.StringVar(&opts.version, "version", "dev", "the version that / answers")
	flags.IntVar(&opts.port, "port", 8080, "port to listen on, 0 for none")
	flags.DurationVar(&opts.readyAfter, "ready-after", 0, "how long /readyz says no")
	flags.DurationVar(&opts.crashAfter, "crash-after", 0, "exit after this time, 0 for never")
	flags.IntVar(&opts.exitCode, "exit-code", 1, "exit code of a crash")
	flags.StringVar(&opts.call, "call", "", "URL that is asked once, after --call-after; the app's /exit makes it restart")
	flags.DurationVar(&opts.callAfter, "call-after", 0, "when --call is asked")
	flags.StringVar(&opts.statsd, "statsd", "", "host:port that counts the requests of /, by StatsD over UDP")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	variables := map[string]string{
		"name": "TESTPOD_NAME", "version": "TESTPOD_VERSION", "port": "TESTPOD_PORT",
		"ready-after": "TESTPOD_READY_AFTER", "crash-after": "TESTPOD_CRASH_AFTER", "exit-code": "TESTPOD_EXIT_CODE",
		"call": "TESTPOD_CALL", "call-after": "TESTPOD_CALL_AFTER",
		"statsd": "TESTPOD_STATSD",
	}
	for name, variable := range variables {
		if value := getenv(variable); value != "" {
			if err := flags.Set(name, value); err != nil {
				return opts, fmt.Errorf("%s: %w", variable, err)
			}
		}
	}
	return opts, nil
}

var errCrash = errors.New("crashing as told")

// run serves until the signal, which ends it at once, or the crash.
func run(ctx context.Context, opts options) error {
	failed := make(chan error, 1)
	if opts.port != 0 {
		server := &http.Server{
			Addr:              net.JoinHostPort("", strconv.Itoa(opts.port)),
			Handler:           handler(opts, time.Now()),
			ReadHeaderTimeout: time.Second,
		}
		defer func() { _ = server.Close() }()
		go func() { failed <- server.ListenAndServe() }()
	}
	if opts.call != "" {
		time.AfterFunc(opts.callAfter, func() {
			if answer, err := http.Get(opts.call); err == nil {
				_ = answer.Body.Close()
			}
		})
	}
	var crash <-chan time.Time
	if opts.crashAfter > 0 {
		crash = time.After(opts.crashAfter)
	}
	select {
	case <-ctx.Done():
		return nil
	case <-crash:
		return errCrash
	case err := <-failed:
		return err
	}
}

func handler(opts options, started time.Time) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		if opts.statsd != "" {
			count(opts.statsd)
		}
		_, _ = fmt.Fprintf(w, "%s %s\n", opts.name, opts.version)
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(opts.exitCode) })
	mux.HandleFunc("/apiserver", func(w http.ResponseWriter, r *http.Request) {
		answer, err := askAPIServer(r.Context(), serviceAccount)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_, _ = fmt.Fprintln(w, answer)
	})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if time.Since(started) < opts.readyAfter {
			http.Error(w, "not ready yet", http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	return mux
}

// count tells a StatsD server about one request. Nobody waits for it, and what is lost is lost.
func count(address string) {
	server, err := net.Dial("udp", address)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	_, _ = fmt.Fprint(server, "requests:1|c")
}
