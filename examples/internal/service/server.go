package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// Bounds of every server. A client that is slow, or says nothing, keeps a
// connection no longer than these.
const (
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 16 << 10
)

// Server is one listening address and what it serves.
type Server struct {
	name     string
	listener net.Listener
	http     *http.Server
	done     chan error
}

// Timeouts bound one request: reading all of it, and answering it, the reading
// included.
type Timeouts struct{ Read, Write time.Duration }

// Listen serves h at address until Close, and says where in the log. The Server
// owns the goroutine that accepts connections.
func Listen(name, address string, h http.Handler, t Timeouts, log *slog.Logger) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening for %s: %w", name, err)
	}
	return serve(name, l, h, t, log), nil
}

func serve(name string, l net.Listener, h http.Handler, t Timeouts, log *slog.Logger) *Server {
	s := &Server{name: name, listener: l, done: make(chan error, 1), http: &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       t.Read,
		WriteTimeout:      t.Write,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}
	go func() { s.done <- s.http.Serve(l) }()
	log.Info("Listening", "name", name, "address", s.Address())
	return s
}

// Address is where it listens, with the port that the system chose.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Done yields the error that ended the server before Close was called.
func (s *Server) Done() <-chan error { return s.done }

// Close takes no new request, and waits for those under way until ctx ends.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("ending %s: %w", s.name, err), s.http.Close())
	}
	return err
}

// Readiness says whether the program wants work. The zero value does not.
type Readiness struct {
	// Check is asked while the program is ready; nil means there is nothing to ask.
	Check func(context.Context) error

	ready atomic.Bool
}

// Begin says that the program is ready.
func (r *Readiness) Begin() { r.ready.Store(true) }

// End says that it is not any more.
func (r *Readiness) End() { r.ready.Store(false) }

// checkTimeout bounds one question at /readyz.
const checkTimeout = 3 * time.Second

// Admin returns the handler of /healthz, which is well while the process serves
// at all, /readyz, and /metrics.
func Admin(metrics http.Handler, r *Readiness) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, q *http.Request) {
		if !r.ready.Load() {
			answer(w, http.StatusServiceUnavailable, "starting or stopping")
			return
		}
		if r.Check != nil {
			ctx, cancel := context.WithTimeout(q.Context(), checkTimeout)
			defer cancel()
			if err := r.Check(ctx); err != nil {
				answer(w, http.StatusServiceUnavailable, "the broker does not answer")
				return
			}
		}
		answer(w, http.StatusOK, "ready")
	})
	mux.Handle("GET /metrics", metrics)
	return mux
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}

// AdminTimeouts leave room for a scrape.
var AdminTimeouts = Timeouts{Read: 5 * time.Second, Write: 15 * time.Second}

// Signals returns a context that ends with the first SIGINT or SIGTERM. The
// second one kills the process, as it does by default.
func Signals() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// closeTimeout bounds each step of the end after the drain.
const closeTimeout = 5 * time.Second

// Finish calls a Close, for which it leaves time although ctx has ended, and adds
// its error to err. It is for defer.
func Finish(ctx context.Context, err *error, end func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	*err = errors.Join(*err, end(ctx))
}

// Exit ends the process with 0, or with 1 and what is wrong.
func Exit(program string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
		os.Exit(1)
	}
}
