package observed_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// anything is what stands for a variable of the dashboard with all its values.
const anything = ".*"

// panel is a panel of the dashboard, as far as these tests look at it.
type panel struct {
	ID          int
	Type, Title string
	Description string
	GridPos     struct{ X, Y, W, H int }
	Datasource  source
	Targets     []struct {
		RefID        string
		Datasource   source
		Expr         string
		LegendFormat string
	}
	FieldConfig struct {
		Defaults struct{ Unit string }
	}
}

type source struct{ Type, UID string }

type board struct {
	Panels     []panel
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
	Annotations struct {
		List []struct{ Name, Expr string }
	}
}

func readDashboard(t *testing.T) ([]byte, *board) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	b := new(board)
	if err := json.Unmarshal(text, b); err != nil {
		t.Fatal(err)
	}
	return text, b
}

// in replaces the dashboard's variables as Grafana does.
var in = strings.NewReplacer("$__rate_interval", "1m", "$__range", "3h", "$queue", anything, "$job", anything)

// legend finds the labels that a legend shows; values finds what a variable asks for.
var (
	legend = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
	values = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
)

func dashboardQueries(t *testing.T) []query {
	t.Helper()
	_, b := readDashboard(t)
	var all []query
	for _, p := range b.Panels {
		for _, target := range p.Targets {
			q := query{where: "dashboard.json, " + p.Title, expr: in.Replace(target.Expr)}
			for _, m := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				q.wants = append(q.wants, m[1])
			}
			if p.Type == "heatmap" {
				q.wants = []string{"le"}
			}
			all = append(all, q)
		}
	}
	for _, a := range b.Annotations.List {
		all = append(all, query{where: "dashboard.json, annotation " + a.Name, expr: in.Replace(a.Expr), wants: []string{"alertname", "queue"}})
	}
	for _, v := range b.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := values.FindStringSubmatch(v.Definition)
		if m == nil {
			t.Errorf("variable %s asks for %q", v.Name, v.Definition)
			continue
		}
		all = append(all, query{where: "dashboard.json, variable " + v.Name, expr: in.Replace(m[1]), wants: []string{m[2]}})
	}
	for _, q := range all {
		if strings.Contains(q.expr, "$") {
			t.Errorf("%s: a variable that the dashboard does not have:\n%s", q.where, q.expr)
		}
	}
	return all
}

// decode reads a dashboard by the schema. The schema's package returns empty errors
// where there are none.
//
// It is the classic schema, which every version of Grafana imports.
func decode(text []byte) (version uint16, panels int, err error) {
	d := dashboard.NewDashboard()
	for _, err := range []error{d.UnmarshalJSONStrict(text), d.Validate()} {
		var problems cog.BuildErrors
		if err != nil && (!errors.As(err, &problems) || len(problems) > 0) {
			return 0, 0, err
		}
	}
	return d.SchemaVersion, len(d.Panels), nil
}

// The dashboard is one by Grafana's own schema: nothing unknown, nothing missing.
func TestDashboardSchema(t *testing.T) {
	t.Parallel()
	plugins.RegisterDefaultPlugins()
	text, b := readDashboard(t)
	version, panels, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if panels != len(b.Panels) {
		t.Errorf("%d panels by the schema, want %d", panels, len(b.Panels))
	}
	// What the schema finds, so that its silence says something.
	for _, c := range [][2]string{
		{`"graphMode":`, `"graphmode":`}, {`"drawStyle":`, `"drawstyle":`}, {`"fiscalYearStartMonth": 0`, `"fiscalYearStartMonth": 13`}, {`"id": 7,`, `"id": "7",`},
	} {
		wrong := strings.Replace(string(text), c[0], c[1], 1)
		if _, _, err := decode([]byte(wrong)); err == nil || wrong == string(text) {
			t.Errorf("%s in place of %s passes", c[1], c[0])
		}
	}
	if want := dashboard.NewDashboard().SchemaVersion; version != want {
		t.Errorf("schema version %d, want %d", version, want)
	}
	if strings.Contains(string(text), `"iteration"`) || strings.Contains(string(text), "__inputs") || strings.Contains(string(text), "DS_PROMETHEUS") {
		t.Error("the dashboard has what an export of one server's leaves behind")
	}
}

// Every panel has a title, a description, a unit, queries to the chosen source, and a
// place of its own.
func TestDashboardPanels(t *testing.T) {
	t.Parallel()
	_, b := readDashboard(t)
	taken, ids := map[[2]int]string{}, map[int]bool{}
	var rows []string
	for _, p := range b.Panels {
		if ids[p.ID] || p.Title == "" {
			t.Errorf("panel %d %q: the ID is taken, or there is no title", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.GridPos.X < 0 || p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W < 1 || p.GridPos.H < 1 {
			t.Errorf("panel %q lies outside: %+v", p.Title, p.GridPos)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Fatalf("panel %q lies over %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		chosen := source{"prometheus", "${datasource}"}
		if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || p.Datasource != chosen || len(p.Targets) == 0 {
			t.Errorf("panel %q lacks a description, a unit, the chosen source or a query", p.Title)
		}
		for _, q := range p.Targets {
			if q.RefID == "" || q.Datasource != chosen {
				t.Errorf("panel %q: query %q has no ID, or another source", p.Title, q.Expr)
			}
		}
	}
	want := []string{"Is everything encrypted?", "Are messages tampered with?", "Keys: which, how old, until when", "What is stuck", "Worker pool", "Throughput and latency"}
	if !slices.Equal(rows, want) {
		t.Errorf("rows %q, want %q", rows, want)
	}
}
