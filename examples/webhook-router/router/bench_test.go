//go:build unix

package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/queue-runtime/queue/examples/internal/hooks"
	"github.com/queue-runtime/queue/examples/internal/service"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// A round is so many webhooks, over so many connections.
const (
	benchRequests = 2000
	benchClients  = 16
)

// round is what one run over a fresh file took.
type round struct {
	rate     float64 // requests a second
	p50, p99 time.Duration
	cpu      time.Duration // a request, of router and clients together
}

// BenchmarkRouter posts the real webhooks over HTTP to a router on SQLite, with and
// without encryption in turn, so that whatever else the machine does meets both; the
// processor time a request is what it disturbs least.
// Each answer is a 202, so each webhook is on the disk (synchronous=full, if it is
// not named normal). The clients share the machine with the router; they have
// signed beforehand.
func BenchmarkRouter(b *testing.B) {
	for _, s := range []struct {
		name        string
		synchronous sqlitequeue.Synchronous
	}{{"full", sqlitequeue.Full}, {"normal", sqlitequeue.Normal}} {
		b.Run("synchronous="+s.name, func(b *testing.B) {
			var sealed, plain []round
			var ratios, cpu []float64
			for i := 0; b.Loop(); i++ {
				order := []bool{true, false}
				if i%2 == 1 {
					slices.Reverse(order)
				}
				for _, encrypt := range order {
					r := post(b, encrypt, s.synchronous)
					if encrypt {
						sealed = append(sealed, r)
					} else {
						plain = append(plain, r)
					}
				}
				ratios = append(ratios, sealed[i].rate/plain[i].rate)
				cpu = append(cpu, float64(sealed[i].cpu)/float64(plain[i].cpu))
			}
			report(b, sealed, "sealed")
			report(b, plain, "plain")
			b.ReportMetric(median(ratios), "req/s-sealed/plain")
			b.ReportMetric(median(cpu), "cpu-sealed/plain")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func report(b *testing.B, all []round, name string) {
	var rates, p50, p99, cpu []float64
	for _, r := range all {
		rates = append(rates, r.rate)
		p50 = append(p50, float64(r.p50.Microseconds())/1000)
		p99 = append(p99, float64(r.p99.Microseconds())/1000)
		cpu = append(cpu, float64(r.cpu.Nanoseconds())/1000)
	}
	b.ReportMetric(median(rates), name+"-req/s")
	b.ReportMetric(median(p50), name+"-p50-ms")
	b.ReportMetric(median(p99), name+"-p99-ms")
	b.ReportMetric(median(cpu), name+"-cpu-us")
}

func median(v []float64) float64 {
	slices.Sort(v)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// post is one round.
func post(b *testing.B, encrypt bool, synchronous sqlitequeue.Synchronous) round {
	all, err := hooks.Load(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	c, _ := newConfig(b)
	c.Broker, c.Encrypt = "sqlite://of-the-benchmark", encrypt
	broker, err := sqlitequeue.Open(b.Context(), filepath.Join(b.TempDir(), "queues.db"), &sqlitequeue.Options{
		Synchronous: synchronous, Default: sqlitequeue.QueueOptions{DedupWindow: time.Hour},
	})
	if err != nil {
		b.Fatal(err)
	}
	telemetry, err := service.NewTelemetryWith(nil)
	if err != nil {
		b.Fatal(err)
	}
	r, err := New(b.Context(), c, broker, telemetry, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: r.Handler(), ReadHeaderTimeout: time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		ctx := context.Background()
		if err := server.Shutdown(ctx); err != nil {
			b.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			b.Error(err)
		}
		if err := r.Close(ctx); err != nil {
			b.Error(err)
		}
		if err := telemetry.Close(ctx); err != nil {
			b.Error(err)
		}
	}()

	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchClients}}
	defer client.CloseIdleConnections()
	url := fmt.Sprintf("http://%s%s", l.Addr(), Path)
	requests := make([]*http.Request, benchRequests)
	bodies := make([][]byte, benchRequests)
	for i := range requests {
		h := all[i%len(all)].Again()
		q, err := hooks.Request(b.Context(), url, secret, &h)
		if err != nil {
			b.Fatal(err)
		}
		requests[i], bodies[i] = q, h.Body
	}
	took := make([]time.Duration, benchRequests)
	var next atomic.Int64
	var clients sync.WaitGroup
	begin, used := time.Now(), cpuTime(b)
	for range benchClients {
		clients.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= benchRequests {
					return
				}
				requests[i].Body = readCloser{bytes.NewReader(bodies[i])}
				start := time.Now()
				a, err := hooks.Do(client, requests[i])
				took[i] = time.Since(start)
				if err != nil || a.Status != http.StatusAccepted {
					b.Errorf("%d %s, %v", a.Status, a.Text, err)
					return
				}
			}
		})
	}
	clients.Wait()
	elapsed := time.Since(begin)
	used = cpuTime(b) - used
	slices.Sort(took)
	return round{
		rate: benchRequests / elapsed.Seconds(),
		p50:  took[benchRequests/2], p99: took[benchRequests*99/100],
		cpu: used / benchRequests,
	}
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }
