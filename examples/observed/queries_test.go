package observed_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// query is an expression with the place where it stands.
type query struct {
	where, expr string
	// wants are the labels that a legend or an annotation shows.
	wants []string
}

// Every query parses, names metrics that a program reports or a rule records, labels
// that these have, and values that these take.
func TestQueriesNameWhatExists(t *testing.T) {
	t.Parallel()
	known := maps.Clone(scraped(t))
	all := ruleQueries(t, known) // adds what the rules record
	board := dashboardQueries(t)
	if len(all) < 20 || len(board) < 50 {
		t.Fatalf("%d queries of rules and %d of the dashboard: the files have another form", len(all), len(board))
	}
	for _, q := range append(all, board...) {
		for _, problem := range check(known, &q) {
			t.Errorf("%s: %s\n%s", q.where, problem, q.expr)
		}
	}
	// The other way round: the dashboard shows every metric there is.
	text := new(strings.Builder)
	for _, q := range board {
		text.WriteString(q.expr + "\n")
	}
	for name := range scraped(t) {
		name = strings.TrimSuffix(strings.TrimSuffix(name, "_sum"), "_count")
		if strings.HasPrefix(name, "queue_") && !strings.Contains(text.String(), strings.TrimSuffix(name, "_bucket")) {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

// What check must find.
func TestCheckFinds(t *testing.T) {
	t.Parallel()
	known := scraped(t)
	for expr, want := range map[string]string{
		`queue_messages_send_total`:                                      "no program reports queue_messages_send_total",
		`queue_messages_sent_total{queue_name="x"}`:                      "queue_messages_sent_total has no label queue_name",
		`queue_crypto_errors_total{reason="auth_failed"}`:                `no reason of queue_crypto_errors_total is "auth_failed"`,
		`queue_crypto_errors_total{reason=~"authentication_failed|x"}`:   `no reason of queue_crypto_errors_total is "x"`,
		`queue_crypto_errors_total{reason!="auth_failed"}`:               `no reason of queue_crypto_errors_total is "auth_failed"`,
		`sum by (key) (queue_crypto_key_created_timestamp)`:              "no label key to group by",
		`max without (key) (queue_crypto_key_created_timestamp)`:         "no label key to group by",
		`queue_depth * on (host) queue_depth`:                            "no label host to match on",
		`histogram_quantile(0.9, rate(queue_send_duration_seconds[5m]))`: "no program reports queue_send_duration_seconds",
		`{__name__=~"queues_.+", otel_metric_overflow="true"}`:           "no program reports",
		`{__name__=~"queue_.+", overflow="true"}`:                        "has no label overflow",
		`rate(queue_messages_sent_total)`:                                "expected type range vector",
	} {
		got := check(known, &query{expr: expr})
		if len(got) == 0 || !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("%s: found %q, want %q", expr, got, want)
		}
	}
	if got := check(known, &query{expr: `sum by (queue) (queue_depth)`, wants: []string{"state"}}); len(got) != 1 {
		t.Errorf("found %q, want a label that is summed away", got)
	}
}

// check returns what is wrong with a query.
func check(known vocabulary, q *query) []string {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(q.expr)
	if err != nil {
		return []string{err.Error()}
	}
	c := &checker{known: known}
	out := c.result(expr)
	for _, l := range q.wants {
		if _, ok := out[l]; !ok {
			c.problem("the result has no label %s", l)
		}
	}
	return c.problems
}

// checker finds out which labels a query's result has.
type checker struct {
	known    vocabulary
	problems []string
}

func (c *checker) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// result returns the labels of what an expression evaluates to; nil for a scalar.
func (c *checker) result(e parser.Expr) labelSet {
	switch e := e.(type) {
	case *parser.VectorSelector:
		return c.selector(e)
	case *parser.MatrixSelector:
		return c.result(e.VectorSelector)
	case *parser.SubqueryExpr:
		return c.result(e.Expr)
	case *parser.ParenExpr:
		return c.result(e.Expr)
	case *parser.UnaryExpr:
		return c.result(e.Expr)
	case *parser.StepInvariantExpr:
		return c.result(e.Expr)
	case *parser.AggregateExpr:
		return c.aggregate(e)
	case *parser.BinaryExpr:
		return c.binary(e)
	case *parser.Call:
		return c.call(e)
	case *parser.NumberLiteral, *parser.StringLiteral:
		return nil
	}
	c.problem("%T is unknown to this test", e)
	return nil
}

func (c *checker) selector(e *parser.VectorSelector) labelSet {
	has, ok := c.known[e.Name]
	if e.Name == "" {
		has, ok = c.named(e.LabelMatchers)
	}
	if !ok {
		c.problem("no program reports %s", e)
		return labelSet{}
	}
	out := maps.Clone(has)
	for _, target := range []string{"job", "instance"} { // added by the scrape
		if !strings.Contains(e.Name, ":") && e.Name != "ALERTS" {
			out[target] = nil
		}
	}
	for _, m := range e.LabelMatchers {
		if m.Name == model.MetricNameLabel {
			continue
		}
		values, ok := out[m.Name]
		if !ok {
			c.problem("%s has no label %s", e.Name, m.Name)
			continue
		}
		if m.Value == anything || len(values) == 0 {
			continue
		}
		alternatives := []string{m.Value}
		if m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp {
			alternatives = strings.Split(m.Value, "|")
		}
		for _, a := range alternatives {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(values)), regexp.MustCompile("^(?:"+a+")$").MatchString) {
				c.problem("no %s of %s is %q", m.Name, e.Name, a)
			}
		}
	}
	return out
}

// named returns the labels of all metrics whose names match, and the SDK's own of a
// series that is beyond its limit.
func (c *checker) named(matchers []*labels.Matcher) (labelSet, bool) {
	out, ok := labelSet{"otel_metric_overflow": nil}, false
	for _, m := range matchers {
		if m.Name != model.MetricNameLabel {
			continue
		}
		for name, l := range c.known {
			if m.Matches(name) {
				maps.Copy(out, l)
				ok = true
			}
		}
	}
	return out, ok
}

func (c *checker) aggregate(e *parser.AggregateExpr) labelSet {
	in := c.result(e.Expr)
	for _, l := range e.Grouping {
		if _, ok := in[l]; !ok {
			c.problem("no label %s to group by", l)
		}
	}
	out := maps.Clone(in)
	maps.DeleteFunc(out, func(l string, _ map[string]bool) bool { return slices.Contains(e.Grouping, l) == e.Without })
	return out
}

func (c *checker) binary(e *parser.BinaryExpr) labelSet {
	l, r := c.result(e.LHS), c.result(e.RHS)
	if e.VectorMatching == nil || e.LHS.Type() == parser.ValueTypeScalar || e.RHS.Type() == parser.ValueTypeScalar {
		if e.LHS.Type() == parser.ValueTypeScalar {
			return r
		}
		return l
	}
	m := e.VectorMatching
	for _, name := range m.MatchingLabels {
		_, left := l[name]
		_, right := r[name]
		if !left || !right {
			c.problem("no label %s to match on, on both sides", name)
		}
	}
	switch {
	case e.Op == parser.LOR:
		out := maps.Clone(l)
		maps.Copy(out, r)
		return out
	case e.Op == parser.LAND, e.Op == parser.LUNLESS, m.Card == parser.CardManyToOne:
		return l
	case m.Card == parser.CardOneToMany:
		return r
	}
	out := maps.Clone(l)
	maps.DeleteFunc(out, func(l string, _ map[string]bool) bool { return slices.Contains(m.MatchingLabels, l) != m.On })
	return out
}

func (c *checker) call(e *parser.Call) labelSet {
	var vector labelSet
	for _, a := range e.Args {
		if got := c.result(a); got != nil {
			vector = got
		}
	}
	switch e.Func.Name {
	case "absent", "vector", "time":
		return labelSet{}
	case "histogram_quantile":
		if _, ok := vector["le"]; !ok {
			c.problem("histogram_quantile of what has no label le")
		}
		out := maps.Clone(vector)
		delete(out, "le")
		return out
	case "label_replace":
		out := maps.Clone(vector)
		out[e.Args[1].(*parser.StringLiteral).Val] = nil
		return out
	}
	return vector
}

// resultOf are the labels of a query's result, whatever else is wrong with it.
func resultOf(known vocabulary, expr string) labelSet {
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		return labelSet{} // check says so
	}
	return (&checker{known: known}).result(e)
}
