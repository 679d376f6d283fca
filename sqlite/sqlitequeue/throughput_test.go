package sqlitequeue_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

const bodySize = 8 << 10

// fullLoad is how many messages each process moves in a run of full length.
const fullLoad = 25_600

// load is a job for processes that share a file.
type load struct {
	Path      string
	Workers   int
	Batch     int
	Messages  int // of each process
	Normal    bool
	Receivers bool // receive while sending
}

// workerRole serves "send" and "receive" orders: {"send": N} style lines, see
// TestProcesses.
func workerRole(in io.Reader, out io.Writer, args []string) error {
	var l load
	if err := json.Unmarshal([]byte(args[0]), &l); err != nil {
		return err
	}
	ctx := context.Background()
	o := &sqlitequeue.Options{}
	if l.Normal {
		o.Synchronous = sqlitequeue.Normal
	}
	b, err := sqlitequeue.Open(ctx, l.Path, o)
	if err != nil {
		return err
	}
	q, err := b.Open(ctx, "load", nil)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "ready")
	orders := bufio.NewScanner(in)
	for orders.Scan() {
		var report any
		switch orders.Text() {
		case "send":
			report, err = sendAll(ctx, q, l)
		case "receive":
			report, err = receiveAll(ctx, q, l)
		case "memory":
			report = memory()
		}
		if err != nil {
			return err
		}
		if err := json.NewEncoder(out).Encode(report); err != nil {
			return err
		}
	}
	return b.Close(ctx)
}

func sendAll(ctx context.Context, q driver.Queue, l load) ([]string, error) {
	body := make([]byte, bodySize)
	_, _ = rand.Read(body)
	var ids []string
	var mu sync.Mutex
	err := each(l.Workers, func(w int) error {
		for i := 0; i < l.Messages/l.Workers; i += l.Batch {
			var batch []*driver.Message
			for j := range l.Batch {
				batch = append(batch, &driver.Message{
					ID:          fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i+j),
					ContentType: "application/json",
					Attributes:  map[string]string{"event": "pull_request", "repository": "owner/name"},
					Body:        body,
				})
			}
			for j, r := range q.Send(ctx, batch) {
				if r.Err != nil {
					return r.Err
				}
				mu.Lock()
				ids = append(ids, batch[j].ID)
				mu.Unlock()
			}
		}
		return nil
	})
	return ids, err
}

// receiveAll receives until the queue is empty.
func receiveAll(ctx context.Context, q driver.Queue, l load) ([]string, error) {
	var ids []string
	var mu sync.Mutex
	err := each(l.Workers, func(int) error {
		for {
			got, err := q.Receive(ctx, l.Batch, 200*time.Millisecond)
			if err != nil || len(got) == 0 {
				return err
			}
			var done []driver.Settlement
			mu.Lock()
			for _, d := range got {
				done = append(done, driver.Settlement{Delivery: d, Kind: driver.Complete})
				ids = append(ids, d.ID+" "+strconv.Itoa(d.Count))
			}
			mu.Unlock()
			for _, err := range q.Settle(ctx, done) {
				if err != nil {
					return err
				}
			}
		}
	})
	return ids, err
}

func each(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	var first atomic.Pointer[error]
	for i := range n {
		wg.Go(func() {
			if err := f(i); err != nil {
				first.CompareAndSwap(nil, &err)
			}
		})
	}
	wg.Wait()
	if p := first.Load(); p != nil {
		return *p
	}
	return nil
}

// memory is the peak resident memory of the process in MiB.
func memory() float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err == nil {
		for line := range strings.Lines(string(status)) {
			if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				kib, _ := strconv.ParseFloat(strings.Fields(v)[0], 64)
				return kib / 1024
			}
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.Sys) / (1 << 20)
}

// figures are what a run of runLoad measured.
type figures struct {
	sent, received float64 // messages a second
	peak, after    int64   // bytes of the file and its log
	memory         float64 // MiB, of the largest process
}

// runLoad sends and receives with several processes, and fails where a message
// is lost, or comes twice without a redelivery.
func runLoad(tb testing.TB, processes int, l load) (f figures) {
	tb.Helper()
	args, err := json.Marshal(l)
	if err != nil {
		tb.Fatal(err)
	}
	all := make([]*process, processes)
	for i := range all {
		all[i] = start(tb, "worker", nil, string(args))
	}
	for _, p := range all {
		p.line()
	}
	order := func(what string) (ids []string, seconds float64) {
		began := time.Now()
		for _, p := range all {
			p.say("%s", what)
		}
		for _, p := range all {
			var part []string
			if err := json.Unmarshal([]byte(p.line()), &part); err != nil {
				tb.Fatal(err)
			}
			ids = append(ids, part...)
		}
		return ids, time.Since(began).Seconds()
	}
	sent, seconds := order("send")
	f.sent = float64(len(sent)) / seconds
	f.peak = fileSize(l.Path)
	got, seconds := order("receive")
	f.received = float64(len(got)) / (seconds - 0.2) // the last wait
	for _, p := range all {
		p.say("memory")
		mib, err := strconv.ParseFloat(p.line(), 64)
		if err != nil {
			tb.Fatal(err)
		}
		f.memory = max(f.memory, mib)
	}
	for _, p := range all {
		p.stop()
	}
	f.after = fileSize(l.Path)

	seen := make(map[string]bool, len(sent))
	for _, s := range got {
		id, count, _ := strings.Cut(s, " ")
		if seen[id] && count == "1" {
			tb.Errorf("message %s came twice", id)
		}
		seen[id] = true
	}
	for _, id := range sent {
		if !seen[id] {
			tb.Errorf("message %s is lost", id)
		}
	}
	if len(sent) != processes*l.Messages {
		tb.Errorf("%d messages were sent, want %d", len(sent), processes*l.Messages)
	}
	return f
}

func fileSize(path string) (n int64) {
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(path + suffix); err == nil {
			n += info.Size()
		}
	}
	return n
}

// TestProcesses: four processes with eight workers each use one file as fast as they can,
// and no call fails, however long the others have the write lock in turn.
func TestProcesses(t *testing.T) {
	t.Parallel()
	for range soak(1, 100) {
		runLoad(t, 4, load{Path: filepath.Join(t.TempDir(), "q.db"), Workers: 8, Batch: 1, Messages: soak(384/scale, fullLoad)})
	}
}

func BenchmarkQuick(b *testing.B) {
	for _, p := range []int{1, 2, 4} {
		for _, batch := range []int{1, 10} {
			b.Run(fmt.Sprintf("p=%d/batch=%d", p, batch), func(b *testing.B) {
				f := runLoad(b, p, load{Path: filepath.Join(b.TempDir(), "q.db"), Workers: 32 / p, Batch: batch, Messages: 12800 / p})
				b.ReportMetric(f.sent, "sent/s")
				b.ReportMetric(f.received, "received/s")
			})
		}
	}
}

func BenchmarkProcesses(b *testing.B) {
	for _, batch := range []int{1, 10} {
		for _, normal := range []bool{false, true} {
			b.Run(fmt.Sprintf("batch=%d/normal=%v", batch, normal), func(b *testing.B) {
				for range b.N {
					f := runLoad(b, 4, load{Path: filepath.Join(b.TempDir(), "q.db"), Workers: 8, Batch: batch, Messages: fullLoad, Normal: normal})
					b.ReportMetric(f.sent, "sent/s")
					b.ReportMetric(f.received, "received/s")
					b.ReportMetric(float64(f.peak)/(1<<20), "file-MiB")
					b.ReportMetric(float64(f.after)/(1<<20), "file-after-MiB")
					b.ReportMetric(f.memory, "process-MiB")
				}
			})
		}
	}
}
