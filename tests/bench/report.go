package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/queue-runtime/queue/tests/bench/internal/measure"
)

// peers are the modules whose versions the report names.
var peers = []string{
	"github.com/tink-crypto/tink-go/v2", "github.com/go-jose/go-jose/v4", "github.com/ThreeDotsLabs/watermill", "gocloud.dev",
	"maragu.dev/goqite", "github.com/riverqueue/river", "github.com/nats-io/nats-server/v2", "modernc.org/sqlite",
	"github.com/aws/aws-sdk-go-v2/service/sqs", "github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus",
}

// machine is what the figures were measured on.
type machine struct {
	processor, system, commit string
	loadBefore, loadAfter     string
	date                      time.Time
}

func thisMachine(ctx context.Context) machine {
	m := machine{processor: "an unknown processor", system: runtime.GOOS + "/" + runtime.GOARCH, commit: "unknown", loadBefore: load(), date: time.Now().UTC()}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				m.processor = strings.TrimLeft(strings.TrimSpace(name), ": \t")
				break
			}
		}
	}
	if out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--exclude=*").Output(); err == nil {
		m.commit = strings.TrimSpace(string(out))
	}
	return m
}

// load is the load of the last minute; empty if the system does not tell.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

// versions are those of the peers that this program was built with.
func versions() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	var list []string
	for _, path := range peers {
		for _, d := range info.Deps {
			if d.Path == path {
				list = append(list, strings.TrimPrefix(path, "github.com/")+" "+d.Version)
			}
		}
	}
	return strings.Join(list, ", ")
}

// page writes docs/performance.md.
type page struct {
	io.Writer
	*run
}

func (p page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func writeReport(w io.Writer, r *run, m machine) {
	p := page{w, r}
	p.line("# Performance")
	p.line("")
	p.line("`make bench-report` writes this page: what this library costs beside what you might take instead. All rows of a table")
	p.line("were measured in one run, in short turns, so that whatever else the machine did met all of them. Figures of work in memory")
	p.line("are those of the quickest turn, figures of work that waits for a disk and of latency are medians. Rows within a fifth of")
	p.line("each other are level: another run may order them otherwise.")
	p.line("")
	p.line("| | |")
	p.line("| --- | --- |")
	p.line("| date, commit | %s, %s |", m.date.Format("2006-01-02"), m.commit)
	p.line("| machine | %s, %d cores, %s, %s |", m.processor, runtime.NumCPU(), m.system, runtime.Version())
	if m.loadBefore != "" {
		p.line("| load of the machine in the minute before the run, and in its last | %s, %s |", m.loadBefore, m.loadAfter)
	}
	p.line("| bodies | %s |", p.corpus.source)
	p.line("| peers | %s |", versions())
	p.line("")
	for _, section := range []struct {
		measured bool
		write    func()
	}{
		{r.envelope != nil, p.envelopeTables}, {r.memory != nil, p.memoryTable}, {r.disk != nil, p.diskTables},
		{r.drivers != nil, p.driverTables}, {r.pages != nil, p.pageTable}, {r.latency != nil, p.latencyTable}, {r.idle != nil, p.idleTable}, {r.growth != nil, p.growthTable},
	} {
		if section.measured {
			section.write()
		}
	}
	p.line("## Measure it yourself")
	p.line("")
	p.line("```sh")
	p.line("make bench-report   # this page, in some minutes; let the machine do nothing else")
	p.line("make bench-check    # some of these ratios against recorded bounds")
	p.line("qrt bench --broker sqlite:///tmp/q.db   # plaintext beside encrypted on your broker, in pairs")
	p.line("```")
}

func sizeName(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// micro prints nanoseconds as microseconds, with three digits or so.
func micro(ns float64) string {
	us := ns / 1e3
	switch {
	case us >= 100:
		return fmt.Sprintf("%.0f", us)
	case us >= 10:
		return fmt.Sprintf("%.1f", us)
	}
	return fmt.Sprintf("%.2f", us)
}

// header writes the head of a table.
func (p page) header(columns ...string) {
	p.line("| %s |", strings.Join(columns, " | "))
	p.line("|%s", strings.Repeat(" --- |", len(columns)))
}

func (p page) envelopeTables() {
	p.line("## Sealing and opening")
	p.line("")
	p.line("One message on one core, in µs, and how many times raw AES-256-GCM that is. Raw sealing appends to a buffer that is there;")
	p.line("everything else makes new memory. The rows of this library are all that a `Sender` and a `Receiver` do between")
	p.line("application and broker: the message's number, its context with two attributes, the envelope, and the attributes that the")
	p.line("application gets. The peers bind one string and commit to no key. The second row is what QRE1 costs at least: raw")
	p.line("AES-256-GCM into new memory, with as many bytes to authenticate as header and context have.")
	p.line("")
	for _, t := range []struct {
		title string
		of    func(f *envelopeFigures) []measure.Figures
	}{{"sealing", func(f *envelopeFigures) []measure.Figures { return f.seal }}, {"opening", func(f *envelopeFigures) []measure.Figures { return f.open }}} {
		columns := []string{t.title}
		for i := range p.envelope {
			columns = append(columns, sizeName(p.envelope[i].size))
		}
		p.header(append(columns, "allocations")...)
		for i := range t.of(&p.envelope[0]) {
			row := []string{t.of(&p.envelope[0])[i].Name}
			for j := range p.envelope {
				f := t.of(&p.envelope[j])
				cell := micro(f[i].Least())
				if i > 0 {
					cell += fmt.Sprintf(" (%.2f)", f[i].Least()/f[0].Least())
				}
				row = append(row, cell)
			}
			row = append(row, fmt.Sprintf("%.0f", t.of(&p.envelope[0])[i].Allocs))
			p.line("| %s |", strings.Join(row, " | "))
		}
		p.line("")
	}
}

func (p page) memoryTable() {
	p.line("## In memory")
	p.line("")
	p.line("A message from one goroutine to another: sent, received and acknowledged. This library copies a plaintext body in and")
	p.line("out, so that neither side can change what the other holds; Watermill and gocloud hand the sender's bytes on.")
	p.line("")
	p.header("", "µs", "µs of processors", "allocations", "bytes allocated")
	for i := range p.memory {
		f := &p.memory[i]
		p.line("| %s | %s | %s | %.0f | %.0f |", f.Name, micro(f.Least()), micro(f.LeastCPU()), f.Allocs, f.Bytes)
	}
	p.line("")
}

func (p page) diskTables() {
	p.line("## On a disk")
	p.line("")
	p.line("Every message is on the disk before it is confirmed: SQLite with a write-ahead log at synchronous FULL, JetStream with")
	p.line("SyncAlways in the same process. Microseconds a message, on the clock, and of processors behind the slash. River runs jobs:")
	p.line("it fetches every millisecond, the least that it takes, and completes several at once.")
	p.line("")
	for i := range p.disk {
		d := &p.disk[i]
		p.header(append([]string{workerNames(d.workers)}, jobs[:]...)...)
		for _, name := range diskSystems {
			row := []string{name}
			for j := range jobs {
				f := find(d.jobs[j], name)
				row = append(row, micro(f.Median())+" / "+micro(f.MedianCPU()))
			}
			p.line("| %s |", strings.Join(row, " | "))
		}
		p.line("")
	}
	for i := range p.disk {
		d := &p.disk[i]
		all := d.jobs[len(jobs)-1]
		p.line("With %s, all three jobs take plaintext %.2f times as long as goqite, and Strict with its store in a file of its", workerNames(d.workers), find(all, diskOurs).PairedRatio(find(all, diskGoqite)))
		p.line("own %.2f times as long as sealed messages without a store: medians of the ratios of each round.", find(all, diskStrict).PairedRatio(find(all, diskSealed)))
		p.line("")
	}
}

func (p page) driverTables() {
	p.line("## Beside the SDKs")
	p.line("")
	p.line("One message after the other by a driver and by the SDK that it is built on, with an emulator in another process: fauxqs for")
	p.line("SQS, the emulator of this project for Service Bus. Microseconds a message, on the clock, and of the client's processors")
	p.line("behind the slash; in parentheses how many times the SDK alone on the clock, as the median of the ratios of each round. Both send")
	p.line("two attributes. A service in the cloud adds its own time and the network's to each row.")
	p.line("")
	for i := range p.drivers {
		d := &p.drivers[i]
		p.header(append([]string{d.broker}, jobs[:]...)...)
		for k := range d.jobs[0] {
			row := []string{d.jobs[0][k].Name}
			for j := range jobs {
				f, bare := &d.jobs[j][k], &d.jobs[j][len(d.jobs[j])-1]
				cell := micro(f.Median()) + " / " + micro(f.MedianCPU())
				if f != bare {
					cell += fmt.Sprintf(" (%.2f)", f.PairedRatio(bare))
				}
				row = append(row, cell)
			}
			p.line("| %s |", strings.Join(row, " | "))
		}
		p.line("")
	}
}

func (p page) pageTable() {
	p.line("## Pages and transactions")
	p.line("")
	p.line("What a message writes to SQLite's write-ahead logs: pages of 4 KiB, and transactions behind the slash, counted in the")
	p.line("logs of %d messages. An insert and a completion are one commit to the disk each; Strict has one more.", pageTurn)
	p.line("")
	p.header("", "workers", "insert", "claim + complete")
	for _, f := range p.pages {
		row := []string{f.name, fmt.Sprint(f.workers)}
		for _, w := range f.jobs {
			row = append(row, fmt.Sprintf("%.1f / %.2f", w.pages, w.transactions))
		}
		p.line("| %s |", strings.Join(row, " | "))
	}
	p.line("")
}

func (p page) latencyTable() {
	p.line("## Latency")
	p.line("")
	p.line("From the return of a send to the start of its handler, in ms: half of the messages, and 99 of 100. Both are in the")
	p.line("same process unless a row says otherwise.")
	p.line("")
	columns := []string{""}
	for _, pace := range paces {
		columns = append(columns, pace.name+": p50", "p99")
	}
	p.header(columns...)
	for i := range p.latency {
		row := []string{p.latency[i].name}
		for _, list := range p.latency[i].paces {
			p50, p99 := quantiles(list)
			row = append(row, fmt.Sprintf("%.2f", p50/1e6), fmt.Sprintf("%.2f", p99/1e6))
		}
		p.line("| %s |", strings.Join(row, " | "))
	}
	p.line("")
}

func (p page) idleTable() {
	p.line("## Idle")
	p.line("")
	p.line("What receivers in one process, each on a queue of its own, cost in a second in which there is nothing to receive: ms of")
	p.line("processors, and how often a thread was woken.")
	p.line("")
	p.header("", "receivers", "ms of processors", "wake-ups")
	for _, f := range p.idle {
		p.line("| %s | %s | %.2f | %.0f |", f.name, thousands(f.receivers), float64(f.cpu)/1e6, f.wakeUps)
	}
	p.line("")
}

func (p page) growthTable() {
	p.line("## Growth")
	p.line("")
	p.line("What a message costs while something grows, in µs, and beside the first column: 1.0 is flat. Queues, sessions and waiting")
	p.line("messages: sent, received and completed by the driver's calls, 1 KiB. Senders: opened, each sender with a salt of its own;")
	p.line("or claimed and consumed in the replay store, from each sender in turn. Keys: opened, each message under another key.")
	p.line("What grows in memory are the misses of the processor's caches, with raw ciphers as with ours; beyond 16,384 senders")
	p.line("each message derives its cipher anew.")
	p.line("")
	p.header("growing", "", "", "", "", "")
	for i := range p.growth {
		g := &p.growth[i]
		row := []string{g.what}
		for j := range g.figures {
			figure := g.figures[j].Least()
			if g.disk {
				figure = g.figures[j].Median()
			}
			row = append(row, fmt.Sprintf("%s: %s (%.1f)", thousands(g.sizes[j]), micro(figure), g.ratio(j)))
		}
		for len(row) < 6 {
			row = append(row, "")
		}
		p.line("| %s |", strings.Join(row, " | "))
	}
	p.line("")
}

func workerNames(n int) string {
	if n == 1 {
		return "1 worker"
	}
	return fmt.Sprintf("%d workers", n)
}

// thousands prints n with commas.
func thousands(n int) string {
	s := []byte(fmt.Sprint(n))
	for i := len(s) - 3; i > 0; i -= 3 {
		s = slices.Insert(s, i, ',')
	}
	return string(s)
}
