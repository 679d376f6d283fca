package observed_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

const folder = "../../observability"

// rule is an alert or a recording rule, as far as these tests look at it.
type rule struct {
	Alert       string            `yaml:"alert"`
	Record      string            `yaml:"record"`
	Expr        string            `yaml:"expr"`
	For         time.Duration     `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// read decodes a file of folder observability; what it does not know is an error.
func read(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		t.Fatalf("%s holds more than one document", file)
	}
}

func rules(t *testing.T, name string) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	read(t, filepath.Join(folder, name), &file)
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatalf("%s holds no rules", name)
	}
	return all
}

// shown finds the labels that an annotation shows.
var shown = regexp.MustCompile(`\$labels\.(\w+)`)

// ruleQueries returns the queries of the rules, and adds to known what they record,
// and the alerts themselves.
func ruleQueries(t *testing.T, known vocabulary) []query {
	t.Helper()
	var all []query
	for _, r := range rules(t, "recording.yml") {
		q := query{where: "recording.yml, " + r.Record, expr: r.Expr}
		all = append(all, q)
		known[r.Record] = resultOf(known, q.expr)
	}
	alerts := labelSet{"severity": nil}
	alerts.add("alertstate", "firing", "pending")
	for _, r := range rules(t, "alerts.yml") {
		q := query{where: "alerts.yml, " + r.Alert, expr: r.Expr}
		for _, text := range r.Annotations {
			for _, m := range shown.FindAllStringSubmatch(text, -1) {
				q.wants = append(q.wants, m[1])
			}
		}
		all = append(all, q)
		alerts.add("alertname", r.Alert)
		for l := range resultOf(known, r.Expr) {
			alerts.add(l)
		}
	}
	known["ALERTS"] = alerts
	return all
}

// alerting is a file of promtool's unit tests.
type alerting struct {
	RuleFiles          []string `yaml:"rule_files"`
	EvaluationInterval string   `yaml:"evaluation_interval"`
	GroupEvalOrder     []string `yaml:"group_eval_order"` // promtool takes any order where it is missing
	Tests              []struct {
		Name        string `yaml:"name"`
		Interval    string `yaml:"interval"`
		InputSeries []struct {
			Series string `yaml:"series"`
			Values string `yaml:"values"`
		} `yaml:"input_series"`
		AlertRuleTest []struct {
			EvalTime  string `yaml:"eval_time"`
			Alertname string `yaml:"alertname"`
			ExpAlerts []any  `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
	} `yaml:"tests"`
}

func unitTests(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.yml"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files of unit tests in %s: %v", len(files), folder, err)
	}
	return files
}

// Each alert has a unit test in which it fires and one in which it does not, and no
// unit test is of an alert that does not exist.
func TestAlertsAreTested(t *testing.T) {
	t.Parallel()
	fires, rests := map[string]int{}, map[string]int{}
	for _, file := range unitTests(t) {
		var f alerting
		read(t, file, &f)
		if want := []string{"queue-recording", "queue-alerts"}; !slices.Equal(f.GroupEvalOrder, want) {
			t.Errorf("%s: group_eval_order is %q, want %q: alerts look at what was recorded", file, f.GroupEvalOrder, want)
		}
		for _, test := range f.Tests {
			for _, a := range test.AlertRuleTest {
				if len(a.ExpAlerts) > 0 {
					fires[a.Alertname]++
				} else {
					rests[a.Alertname]++
				}
			}
		}
	}
	known := map[string]bool{}
	for _, r := range rules(t, "alerts.yml") {
		known[r.Alert] = true
		if fires[r.Alert] == 0 || rests[r.Alert] == 0 {
			t.Errorf("%s: %d unit tests in which it fires and %d in which it does not, want one of each at least",
				r.Alert, fires[r.Alert], rests[r.Alert])
		}
	}
	for _, tested := range []map[string]int{fires, rests} {
		for name := range tested {
			if !known[name] {
				t.Errorf("%s is tested and is no alert", name)
			}
		}
	}
}

// Each alert says in one sentence what is wrong, how bad it is, and where its
// runbook is, which exists; and no runbook is of an alert that does not exist.
func TestAlertsHaveRunbooks(t *testing.T) {
	t.Parallel()
	const folder = "https://github.com/queue-runtime/queue/blob/main/docs/runbooks/"
	pages := runbooks(t)
	known := map[string]bool{}
	for _, r := range rules(t, "alerts.yml") {
		known[r.Alert] = true
		if got, want := r.Annotations["runbook_url"], folder+r.Alert+".md"; got != want {
			t.Errorf("%s: runbook_url is %q, want %q", r.Alert, got, want)
		}
		if _, ok := pages[r.Alert]; !ok {
			t.Errorf("docs/runbooks has no page %s.md", r.Alert)
		}
		if !strings.Contains(pages["README"], "["+r.Alert+"]("+r.Alert+".md) | "+r.Labels["severity"]+" |") {
			t.Errorf("docs/runbooks/README.md does not list %s with its severity", r.Alert)
		}
		if s := r.Annotations["summary"]; !strings.HasSuffix(s, ".") {
			t.Errorf("%s: summary is %q, want a sentence", r.Alert, s)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity is %q", r.Alert, s)
		}
	}
	for name := range pages {
		if strings.HasPrefix(name, "Queue") && !known[name] {
			t.Errorf("docs/runbooks/%s.md is of no alert", name)
		}
	}
}

// Each runbook begins with what to do, which includes commands or queries to paste,
// and says why after that.
func TestRunbooksBeginWithWhatToDo(t *testing.T) {
	t.Parallel()
	for name, page := range runbooks(t) {
		if name == "README" {
			continue
		}
		title, rest, _ := strings.Cut(page, "\n\n")
		if !strings.HasPrefix(title, "# ") || !strings.HasPrefix(rest, "## Do\n") {
			t.Errorf("runbooks/%s.md does not begin with a title and the section Do", name)
		}
		do, why, ok := strings.Cut(rest, "\n## Why\n")
		if !ok || strings.TrimSpace(why) == "" {
			t.Errorf("runbooks/%s.md has no section Why after Do", name)
		}
		if !strings.Contains(do, "```sh\n") && !strings.Contains(do, "```promql\n") {
			t.Errorf("runbooks/%s.md has no command and no query in Do", name)
		}
	}
}

// peer returns the path of a program that a test needs.
func peer(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("QRT_REQUIRE_PEERS") == "1" {
		t.Fatalf("%s is not installed (Debian's package prometheus): run make peers", program)
	}
	t.Skipf("needs %s (Debian's package prometheus; make peers installs it)", program)
	return ""
}

// The rules are valid, and their unit tests pass.
func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool := peer(t, "promtool")
	var files []string
	for _, f := range unitTests(t) {
		files = append(files, filepath.Base(f))
	}
	for _, args := range [][]string{
		{"check", "rules", "recording.yml", "alerts.yml"},
		append([]string{"test", "rules"}, files...),
	} {
		c := exec.CommandContext(t.Context(), promtool, args...)
		c.Dir = folder
		if out, err := c.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("SUCCESS")) {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
