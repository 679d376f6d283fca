package observed_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/fleet"
	"github.com/queue-runtime/queue/examples/internal/hooks"
)

// readPage returns a page of folder docs.
func readPage(t *testing.T, name string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("../../docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// runbooks returns the pages of docs/runbooks by their names, without extension.
func runbooks(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../docs/runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages := make(map[string]string)
	for _, f := range files {
		name := filepath.Base(f)
		pages[strings.TrimSuffix(name, ".md")] = readPage(t, filepath.Join("runbooks", name))
	}
	if len(pages) < 20 {
		t.Fatalf("%d runbooks found, want 20 at least", len(pages))
	}
	return pages
}

// named finds a metric in a cell of the list, and the cell of its labels.
var named = regexp.MustCompile("(?m)^\\| (`queue_[^|]*`) \\| ([^|]+) \\|")

// The page of metrics lists every metric with its labels, and no other.
func TestMetricsPage(t *testing.T) {
	t.Parallel()
	reported := make(map[string][]string)
	for name, l := range scraped(t) {
		if base, ok := strings.CutSuffix(name, "_count"); ok {
			name = base
		} else if strings.HasSuffix(name, "_bucket") || strings.HasSuffix(name, "_sum") {
			continue
		}
		if strings.HasPrefix(name, "queue_") {
			reported[name] = slices.DeleteFunc(slices.Sorted(maps.Keys(l)), func(l string) bool { return l == "le" })
		}
	}
	for _, row := range named.FindAllStringSubmatch(readPage(t, "metrics.md"), -1) {
		want := strings.Split(row[2], ", ")
		slices.Sort(want)
		for _, name := range strings.Split(row[1], ", ") {
			name = strings.Trim(name, "`")
			got, ok := reported[name]
			if !ok {
				t.Errorf("%s is listed, and no program reports it", name)
			} else if !slices.Equal(got, want) {
				t.Errorf("%s has the labels %q, listed are %q", name, got, want)
			}
			delete(reported, name)
		}
	}
	for name := range reported {
		t.Errorf("%s is reported, and not listed", name)
	}
}

// blocks returns the fenced blocks of a language, each with its heading.
func blocks(page, language string) (headings, bodies []string) {
	heading, rest := "", page
	for line := range strings.Lines(page) {
		rest = rest[len(line):]
		if strings.HasPrefix(line, "#") && strings.Contains(line, " ") && !strings.HasPrefix(line, "# ") {
			heading = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
		if strings.TrimSpace(line) == "```"+language {
			body, _, _ := strings.Cut(rest, "```")
			headings, bodies = append(headings, heading), append(bodies, body)
		}
	}
	return headings, bodies
}

// The queries of the runbooks name metrics, labels and values that exist.
func TestRunbookQueries(t *testing.T) {
	t.Parallel()
	known := maps.Clone(scraped(t))
	ruleQueries(t, known)
	found := 0
	for name, page := range runbooks(t) {
		headings, bodies := blocks(page, "promql")
		found += len(bodies)
		for i, expr := range bodies {
			for _, problem := range check(known, &query{expr: expr}) {
				t.Errorf("runbooks/%s.md, %s: %s\n%s", name, headings[i], problem, expr)
			}
		}
	}
	if found < 10 {
		t.Fatalf("%d queries found, want 10 at least: the pages have another form", found)
	}
}

// settings are the variables of a phase. Those that name a place are left out: here
// the fleet has its own.
func settings(t *testing.T, block string) (router, bots []string) {
	t.Helper()
	into := &router
	for line := range strings.Lines(block) {
		switch line = strings.TrimSpace(line); {
		case line == "# router":
			into = &router
		case line == "# bots":
			into = &bots
		case strings.Contains(line, "://"), line == "":
		default:
			*into = append(*into, line)
		}
	}
	if len(router) == 0 || len(bots) == 0 {
		t.Fatalf("no settings for router and bots in\n%s", block)
	}
	return router, bots
}

// The programs run with the settings of each phase, word by word, and report what the
// runbook says to look at.
func TestRolloutPhases(t *testing.T) {
	t.Parallel()
	headings, bodies := blocks(runbooks(t)["encryption-rollout"], "env")
	all, err := hooks.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	push := slices.IndexFunc(all, func(h hooks.Hook) bool { return h.Event == "push" })
	want := []struct {
		heading, environment string
		sealed, enabled      bool
		nonces               bool
	}{
		{"Phase 1: adopt", "development", false, false, false},
		{"Phase 2: announce", "production", false, false, false},
		{"Phase 3: roll out", "production", true, true, false},
		{"Phase 4: enforce", "production", true, true, true},
	}
	if len(bodies) != len(want) {
		t.Fatalf("settings under %q, want %d phases", headings, len(want))
	}
	for i, w := range want {
		t.Run(w.heading, func(t *testing.T) {
			if headings[i] != w.heading {
				t.Fatalf("settings under %q, want %q", headings[i], w.heading)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			router, bots := settings(t, bodies[i])
			if got := !slices.Contains(bots, "NONCES_URL=none"); got != w.nonces {
				t.Errorf("replays are tracked: %v, want %v", got, w.nonces)
			}
			f, err := fleet.Start(ctx, &fleet.Options{Dir: t.TempDir(), RouterEnv: router, BotEnv: bots})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			hook := all[push].Again()
			if a, err := f.Post(ctx, &hook); err != nil || a.Status != http.StatusAccepted {
				t.Fatalf("%d %s, %v", a.Status, a.Text, err)
			}
			if err := f.Wait(ctx, func(t []consumer.Task) bool { return len(t) == 1 }); err != nil {
				t.Fatal(err)
			}
			if got := f.Tasks()[0].Encrypted; got != w.sealed {
				t.Errorf("the bot got it encrypted: %v, want %v", got, w.sealed)
			}
			q := fleet.Queues[2]
			for of, process := range map[string]*fleet.Process{"sent": f.Router, "received": f.Bots[2]} {
				text, err := f.Scrape(ctx, process)
				if err != nil {
					t.Fatal(err)
				}
				enabled := 0
				if w.enabled {
					enabled = 1
				}
				for _, line := range []string{
					fmt.Sprintf("queue_crypto_enabled{environment=%q,queue=%q} %d\n", w.environment, q, enabled),
					fmt.Sprintf("queue_messages_%s_total{encrypted=\"%t\",queue=%q} 1\n", of, w.sealed, q),
				} {
					if !strings.Contains(text, line) {
						t.Errorf("%s lacks %s", process.Name, line)
					}
				}
				if line := fmt.Sprintf("queue_messages_%s_total{encrypted=\"%t\",queue=%q}", of, !w.sealed, q); strings.Contains(text, line) {
					t.Errorf("%s has %s", process.Name, line)
				}
			}
		})
	}
}

// panelName finds what a runbook calls a panel of the dashboard.
var panelName = regexp.MustCompile(`[^*]\*([A-Z][^*]+)\*[^*]`)

// The panels that the runbooks send an operator to are on the dashboard.
func TestRunbooksNamePanels(t *testing.T) {
	t.Parallel()
	_, b := readDashboard(t)
	titles := make(map[string]bool)
	for _, p := range b.Panels {
		titles[p.Title] = true
	}
	found := 0
	for name, page := range runbooks(t) {
		for _, m := range panelName.FindAllStringSubmatch(page, -1) {
			found++
			if title := strings.Join(strings.Fields(m[1]), " "); !titles[title] {
				t.Errorf("runbooks/%s.md names panel %q, which the dashboard does not have", name, title)
			}
		}
	}
	if found < 20 {
		t.Fatalf("%d panels are named, want 20 at least: the pages have another form", found)
	}
}
