package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/testbed/fauxqs"
	"github.com/queue-runtime/queue/tests/bench/internal/measure"
)

// TestMain is also the process that sends and the emulator, if the program under test starts
// them.
func TestMain(m *testing.M) {
	if os.Getenv(senderVariable) != "" || os.Getenv(emulatorVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func testCorpus(t *testing.T) *corpus {
	t.Helper()
	c, err := loadCorpus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCorpus(t *testing.T) {
	if c := testCorpus(t); !strings.Contains(c.source, "real GitHub webhooks") || len(c.bodies) < 20 {
		t.Errorf("%d bodies: %s", len(c.bodies), c.source)
	}
	found, made := testCorpus(t).average(), madeCorpus().average()
	if made < found*9/10 || made > found*11/10 {
		t.Errorf("bodies that are made have %d bytes on average, real ones %d", made, found)
	}
}

// Each way opens what it sealed: envelopeWays checks it.
func TestEnvelopeWays(t *testing.T) {
	for _, size := range []int{0, 1, 8 << 10} {
		seal, open, err := envelopeWays(size)
		if err != nil || len(seal) != 5 || len(open) != 5 {
			t.Fatalf("%d bytes: %d and %d ways, %v", size, len(seal), len(open), err)
		}
		for _, w := range append(seal, open...) {
			if _, err := w.Turn(t.Context(), 2); err != nil {
				t.Errorf("%s: %v", w.Name, err)
			}
		}
	}
}

// What is sealed is longer than the plaintext by what is authenticated in it, and more is
// authenticated than that: the context.
func TestAuthenticated(t *testing.T) {
	p, err := newParty()
	if err != nil {
		t.Fatal(err)
	}
	m := webhook(make([]byte, 100))
	if err := p.seal(t.Context(), &m); err != nil {
		t.Fatal(err)
	}
	beside, err := authenticated(&m)
	header := len(m.Body) - 100 - envelope.NonceSize - envelope.TagSize
	// Tag and length of the ID, the content type and the attributes, whose number is counted too.
	context := 5 + len(m.ID) + 5 + len(m.ContentType) + 9
	for name, value := range m.Attributes {
		context += 8 + len(name) + len(value)
	}
	if want := 16 + header + context; err != nil || len(beside) != want {
		t.Errorf("%d bytes, %v, want %d", len(beside), err, want)
	}
}

// Every way moves all messages of a turn, so that the next turn begins with none.
func TestMemoryWays(t *testing.T) {
	ways, end, err := memoryWays(t.Context(), testCorpus(t))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, w := range ways {
			if spent, err := w.Turn(t.Context(), memoryBatch); err != nil || spent.Wall <= 0 {
				t.Errorf("%s: %+v, %v", w.Name, spent, err)
			}
		}
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

func TestDurableWays(t *testing.T) {
	c := testCorpus(t)
	const workers, each = 2, 8
	for _, name := range diskSystems {
		t.Run(name, func(t *testing.T) {
			ways, end, err := diskWays(t.Context(), c, t.TempDir(), name, workers)
			if err != nil {
				t.Fatal(err)
			}
			for i, w := range ways {
				if spent, err := w.Turn(t.Context(), each); err != nil || spent.Wall <= 0 {
					t.Errorf("%s: %+v, %v", jobs[i], spent, err)
				}
			}
			if err := end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A driver and its SDK alone do the same jobs: measureDrivers counts what comes back.
func TestDrivers(t *testing.T) {
	all, err := measureDrivers(t.Context(), testCorpus(t), 1)
	if errors.Is(err, fauxqs.ErrNotInstalled) && os.Getenv("QRT_REQUIRE_PEERS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		for i, list := range f.jobs {
			if len(list) != 3 || !strings.HasSuffix(list[2].Name, "alone") {
				t.Errorf("%s, %s: %+v", f.broker, jobs[i], list)
			}
		}
	}
}

// One worker shares no transaction, so that what a message writes can be counted. A bound is
// raised only for a change that is worth it.
func TestPagesOfAMessage(t *testing.T) {
	for _, want := range []struct {
		name         string
		pages        [2]float64
		transactions [2]float64
	}{
		{diskSealed, [2]float64{10.5, 14}, [2]float64{1, 2}},
		{diskStrict, [2]float64{10.5, 18}, [2]float64{1, 4}},
		{diskGoqite, [2]float64{7.5, 9}, [2]float64{1, 2}}, // for the comparison
	} {
		f, err := countPages(t.Context(), testCorpus(t), t.TempDir(), want.name, 1)
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range f.jobs {
			if w.transactions != want.transactions[i] || w.pages < want.transactions[i] || w.pages > want.pages[i] {
				t.Errorf("%s, %s: %.2f pages in %.2f transactions, want at most %.2f in %.0f",
					want.name, jobs[i], w.pages, w.transactions, want.pages[i], want.transactions[i])
			}
		}
	}
}

// Workers that wait for the disk at the same time share transactions. On one processor all
// that are ready to run come to wait, however quick the disk is.
func TestTransactionsOfManyWorkers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	f, err := countPages(t.Context(), testCorpus(t), t.TempDir(), diskSealed, 8)
	if err != nil {
		t.Fatal(err)
	}
	if insert, handle := f.jobs[0].transactions, f.jobs[1].transactions; insert > 0.5 || handle > 1 {
		t.Errorf("%.2f and %.2f transactions a message, want fewer than half of one worker's 1 and 2", insert, handle)
	}
}

func TestLatencies(t *testing.T) {
	for i, h := range latencyHandlers(testCorpus(t)) {
		t.Run(h.name, func(t *testing.T) {
			list, err := latencies(t.Context(), h, t.TempDir(), pace{"test", time.Millisecond, 10 + i})
			if err != nil || len(list) != 10+i {
				t.Errorf("%d latencies, %v", len(list), err)
			}
		})
	}
}

func TestGrowthOfOpening(t *testing.T) {
	for _, line := range []func(context.Context, int) (growth, error){measureSenders, measureRaw, measureKeys} {
		g, err := line(t.Context(), 1)
		if err != nil || len(g.figures) != len(g.sizes) || g.ratio(0) != 1 {
			t.Errorf("%+v, %v; want a figure for each size, with the ratio 1 to itself", g, err)
		}
	}
}

func TestGrowthOfReplays(t *testing.T) {
	g, err := measureReplay(t.Context(), t.TempDir(), []int{1, 5_000}, 1) // the larger takes two calls to fill
	if err != nil || len(g.figures) != 2 || g.ratio(0) != 1 {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestSenderUnknown(t *testing.T) {
	if err := serveSender(t.Context(), "x", strings.NewReader("1\n"), io.Discard); err == nil {
		t.Error("no error for a sender that there is not")
	}
}

func TestIdle(t *testing.T) {
	// Far longer than a thread of a busy machine waits for a processor, only to go to sleep.
	const span = 500 * time.Millisecond
	for _, s := range idleSystems {
		f, err := s.measure(t.Context(), testCorpus(t), t.TempDir(), 2, time.Millisecond, span)
		if err != nil || f.receivers != 2 || f.wakeUps <= 0 {
			t.Errorf("%s: %+v, %v", s.name, f, err)
		}
	}
}

// A bound that is exceeded once is measured again, and the least ratio counts; one that is
// exceeded each time is exceeded.
func TestLeastRatios(t *testing.T) {
	measured := 0
	series := func(ratios ...float64) func(int) ([]found, error) {
		measured = 0
		return func(attempt int) ([]found, error) {
			measured++
			return []found{{bound{"steady", 2}, 1}, {bound{"x", 2}, ratios[attempt]}}, nil
		}
	}
	for _, c := range []struct {
		ratios   []float64
		least    float64
		measured int
	}{{[]float64{1.5}, 1.5, 1}, {[]float64{3, 2.5, 2}, 2, 3}, {[]float64{3, 2.5, 4, 5}, 2.5, attempts}} {
		best, err := leastRatios("x", series(c.ratios...))
		if err != nil || best[1].ratio != c.least || measured != c.measured {
			t.Errorf("%v: %+v after %d, %v; want %g after %d", c.ratios, best, measured, err, c.least, c.measured)
		}
	}
}

// check fails for a bound that does not hold, and says which.
func TestCheck(t *testing.T) {
	give := func(ratio float64, err error) []group {
		return []group{{"one", func(_ context.Context, c *corpus, dir string) ([]found, error) {
			if _, e := os.Stat(dir); e != nil || len(c.bodies) == 0 {
				t.Errorf("no folder or no bodies: %v", e)
			}
			return []found{{bound{"a cost", 2}, ratio}}, err
		}}}
	}
	var out strings.Builder
	if held, err := check(t.Context(), &out, give(1.9, nil)); !held || err != nil || !strings.HasPrefix(out.String(), "ok ") {
		t.Errorf("%t, %v: %s", held, err, out.String())
	}
	out.Reset()
	if held, err := check(t.Context(), &out, give(2.1, nil)); held || err != nil || !strings.HasPrefix(out.String(), "EXCEEDED  a cost") {
		t.Errorf("%t, %v: %s", held, err, out.String())
	}
	broken := errors.New("broken")
	if _, err := check(t.Context(), &out, give(0, broken)); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

// Every table of the page that has a figure of this library has one of a peer.
func TestReport(t *testing.T) {
	figures := func(names ...string) (all []measure.Figures) {
		for i, name := range names {
			f := []float64{1e3 * float64(i+1), 2e3 * float64(i+1), 3e3 * float64(i+1)}
			all = append(all, measure.Figures{Name: name, Wall: f, CPU: f, Turns: f, Allocs: 3})
		}
		return all
	}
	r := &run{corpus: madeCorpus()}
	for _, size := range envelopeSizes {
		f := figures(wayRaw, wayBound, wayOurs, wayTink, wayJose)
		r.envelope = append(r.envelope, envelopeFigures{size, f, f})
	}
	r.memory = figures(memPlain, memSealed, memWatermill, memGoCloud)
	for _, workers := range workerCounts {
		d := diskFigures{workers: workers}
		for j := range d.jobs {
			d.jobs[j] = figures(diskSystems...)
		}
		r.disk = append(r.disk, d)
	}
	d := driverFigures{broker: "SQS"}
	for j := range d.jobs {
		d.jobs[j] = figures(driversSQS, driversSQSSealed, driversSQSBare)
	}
	r.drivers = append(r.drivers, d)
	for _, name := range pageSystems {
		r.pages = append(r.pages, pageFigures{name, 8, [2]written{{3.25, 0.125}, {4, 0.5}}})
	}
	for _, name := range []string{latencyMemory, latencySQLite, "goqite"} {
		f := latencyFigures{name: name}
		for p := range f.paces {
			f.paces[p] = []float64{1e6, 2e6}
		}
		r.latency = append(r.latency, f)
	}
	for _, name := range []string{idleSQLite, goqiteDefault} {
		r.idle = append(r.idle, idleFigures{name, 1_000, 3 * time.Millisecond, 12})
	}
	r.growth = []growth{{what: "queues", sizes: []int{10, 10_000}, figures: figures("10", "10000")}}
	var b strings.Builder
	writeReport(&b, r, machine{processor: "p", system: "s", commit: "c", date: time.Unix(0, 0)})
	page := b.String()
	for _, want := range []string{"| queue | 3.00 (3.00)", "| goqite | 8.00 / 8.00 |", "2.00 | 2.00 |", "10,000: 2.00 (2.0)", "1970-01-01, c", "| 1,000 | 3.00 | 12 |", "| goqite | 8 | 3.2 / 0.12 | 4.0 / 0.50 |", "| queue, SQS, sealed | 4.00 / 4.00 (0.67)"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for section := range strings.SplitSeq(page, "\n## ") {
		if strings.Contains(section, "\n| queue") && !strings.Contains(section, "goqite") && !strings.Contains(section, "tink") && !strings.Contains(section, "Watermill") && !strings.Contains(section, "alone") && !strings.HasPrefix(section, "Growth") {
			t.Errorf("figures without a peer: %s", section)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
}

func TestUsage(t *testing.T) {
	if err := do(t.Context(), "", "", false); err == nil {
		t.Error("no error without a task")
	}
	if err := do(t.Context(), "x", "(", false); err == nil {
		t.Error("no error for a broken regexp")
	}
	if err := do(t.Context(), "", "nothing", true); err == nil {
		t.Error("no error for bounds that there are not")
	}
}

func TestNewFolder(t *testing.T) {
	path, err := newFolder(t.TempDir(), "a b, c")
	if err != nil || filepath.Base(path) != "a-b--c" {
		t.Errorf("%s, %v", path, err)
	}
	if _, err := newFolder(filepath.Dir(path), "a b, c"); err == nil {
		t.Error("no error for a folder that is there")
	}
	if got := strings.Join([]string{thousands(1), thousands(999), thousands(1000), thousands(1234567)}, " "); got != "1 999 1,000 1,234,567" {
		t.Error(got)
	}
}
