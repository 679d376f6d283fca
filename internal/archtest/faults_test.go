package archtest

import (
	"io/fs"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
)

// clean is a small tree that keeps every rule.
var clean = map[string]string{
	"go.work": "go 1.26\n\nuse .\n\nuse (\n\t./cmd/qrt // the command\n\t./otel\n\t./connect\n\t./sqlite\n\t./testbed\n\t\"./examples\"\n)\n",
	"go.mod":  "module example.com/queue\n\ngo 1.26\n",
	"doc.go":  "// Package queue sends.\npackage queue\n",
	"client.go": `package queue

import (
	"context"

	"example.com/queue/driver"
	"example.com/queue/internal/backoff"
)

// Options are options.
type Options struct {
	// Wait is a time; Max bounds it.
	Wait int
	Max  int // bytes
	none bool
}

// Client is a client.
type Client struct{ q driver.Queue }

// New returns a Client.
func New(ctx context.Context, o *Options) *Client { _ = backoff.Full; return &Client{} }

func (c *Client) String() string { return "client" }

type hidden struct{}

func (hidden) Exported() {}
`,
	"client_test.go": `package queue_test

import (
	"testing"
	"testing/synctest"
	"time"

	"example.com/queue/memqueue"
)

func TestClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { time.Sleep(1) })
	synctest.Test(t, named)
	bubble(t, func() { time.Sleep(1) })
	_ = memqueue.New
}

func bubble(t *testing.T, f func()) { synctest.Test(t, func(*testing.T) { f() }) }
`,
	"sender_test.go":    "package queue_test\n\nimport \"time\"\n\nvar x = bubble(nil, func() { time.Sleep(1) })\n",
	"keys/keys_test.go": "package keys_test\n\nimport \"time\"\n\nvar o = Options{Bubble: true, Replace: func() { time.Sleep(1) }}\n",
	"driver/driver_test.go": `package driver_test

import (
	"testing"
	"time"
)

func TestKill(t *testing.T) {
	time.Sleep(1) // real time: the other process has no bubble
	// Real time: as above.
	time.Sleep(1)
}
`,
	"driver/driver.go":              "// Package driver is a driver.\npackage driver\n\n// Queue is a queue.\ntype Queue interface{ Send() error }\n",
	"envelope/envelope.go":          "// Package envelope seals.\npackage envelope\n",
	"memqueue/memqueue.go":          "// Package memqueue keeps.\npackage memqueue\n\nimport \"example.com/queue/driver\"\n\n// New is new.\nvar New driver.Queue\n",
	"drivertest/t.go":               "// Package drivertest tests.\npackage drivertest\n\nimport _ \"example.com/queue/driver\"\n",
	"attacktest/attack.go":          "// Package attacktest attacks.\npackage attacktest\n\nimport (\n\t_ \"example.com/queue\"\n\t_ \"example.com/queue/drivertest\"\n)\n",
	"keys/keys.go":                  "// Package keys keeps.\npackage keys\n",
	"keys/keytest/keytest.go":       "// Package keytest tests.\npackage keytest\n\nimport (\n\t_ \"testing\"\n\n\t_ \"example.com/queue/keys\"\n)\n",
	"internal/backoff/backoff.go":   "// Package backoff backs off.\npackage backoff\n\nconst Full = 1\n\ntype Undocumented struct{}\n",
	"spec/spec.go":                  "// Package spec embeds.\npackage spec\n\nimport \"embed\"\n\n// Vectors are vectors.\n//\n//go:embed vectors/*.txt\nvar Vectors embed.FS\n",
	"spec/vectors/valid.txt":        "body 00\n",
	"sqlite/go.mod":                 "module example.com/queue/sqlite\n\ngo 1.26\n\nrequire (\n\texample.com/queue v0.0.0\n\texample.com/queue/testbed v0.0.0\n\tmodernc.org/sqlite v1.0.0\n\tmodernc.org/libc v1.0.0 // indirect\n)\n\nreplace (\n\texample.com/queue => ../\n\texample.com/queue/testbed => ../testbed\n)\n",
	"sqlite/sqlitequeue/queue.go":   "// Package sqlitequeue stores.\npackage sqlitequeue\n\nimport (\n\t_ \"modernc.org/sqlite\"\n\n\t_ \"example.com/queue/driver\"\n\t_ \"example.com/queue/sqlite/internal/file\"\n)\n",
	"sqlite/internal/peer/peer.go":  "// Package peer starts.\npackage peer\n\nimport _ \"testing\"\n",
	"sqlite/sqlitequeue/q_test.go":  "package sqlitequeue\n\nimport (\n\t_ \"example.com/queue/sqlite/internal/peer\"\n\t_ \"example.com/queue\"\n\t_ \"example.com/queue/drivertest\"\n\t_ \"example.com/queue/testbed/sbemulator\"\n)\n",
	"testbed/go.mod":                "module example.com/queue/testbed\n\ngo 1.26\n\nrequire (\n\texample.com/queue v0.0.0\n\texample.org/amqp v1.0.0\n)\n\nreplace example.com/queue => ../\n",
	"testbed/sbemulator/server.go":  "// Package sbemulator serves.\npackage sbemulator\n\nimport _ \"example.com/queue/driver\"\n",
	"testbed/sbemulator/s_test.go":  "package sbemulator\n\nimport _ \"example.org/amqp/client\"\n",
	"sqlite/internal/file/file.go":  "// Package file opens.\npackage file\n\ntype Exported int\n",
	"otel/go.mod":                   "module example.com/queue/otel\n\ngo 1.26\n\nrequire example.com/queue v0.0.0\n\nreplace example.com/queue v0.0.0 => ..\n",
	"otel/otelqueue/otel.go":        "// Package otelqueue observes.\npackage otelqueue\n\nimport _ \"example.com/queue\"\n",
	"connect/go.mod":                "module example.com/queue/connect\n\nrequire (\n\texample.com/queue v0.0.0\n\texample.com/queue/sqlite v0.0.0\n)\n\nreplace (\n\texample.com/queue => ../\n\texample.com/queue/sqlite => ../sqlite\n)\n",
	"connect/open.go":               "// Package connect opens.\npackage connect\n\nimport (\n\t_ \"example.com/queue/memqueue\"\n\t_ \"example.com/queue/sqlite/sqlitequeue\"\n)\n",
	"cmd/qrt/go.mod":                "module example.com/queue/cmd/qrt\n\nrequire example.com/queue v0.0.0\n\nreplace example.com/queue => ../..\n",
	"cmd/qrt/main.go":               "// Command qrt runs.\npackage main\n\nimport (\n\t_ \"example.com/queue/cmd/qrt/internal/demo\"\n\t_ \"example.com/queue/drivertest\"\n)\n\nfunc Exported() {}\n",
	"cmd/qrt/internal/demo/demo.go": "// Package demo shows.\npackage demo\n",
	"examples/go.mod":               "module example.com/queue/examples\n",
	"examples/router/main.go":       "// Command router routes.\npackage main\n",
	"README.md":                     "# Queue\n\n```\nfree text {\n```\n\n```go\nsynctest.Test(t, named)\n\n    bubble(t, func() { time.Sleep(1) })\n```\n\n```text\n[gone](gone.md)\n```\n\n## Two, [words](docs)!\n\nSee [use](docs/use.md#to-use), [below](#two-words), [folder](spec/), [site](https://example.com/x#y).\n",
	"docs/use.md":                   "# To use\n\nBack to [the start](../README.md), see [code](../client.go#L3).\n",
	"aws/testdata/x/ignored.go":     "package broken ???",
	"node_modules/x/helpers.go":     "package util",
	".tools/types.go":               "package types",
}

// fault changes the clean tree so that it breaks one rule in one place.
type fault struct {
	rule string
	name string
	// set holds files to write; an empty text removes the file.
	set map[string]string
	// path and text are where and how the rule must complain.
	path, text string
}

var faults = []fault{
	// Directions in the root module.
	{"imports go one way", "driver imports queue", add("driver/x.go", "driver", "example.com/queue"), "driver/x.go", "nothing but the standard library"},
	{"imports go one way", "driver imports envelope", add("driver/x.go", "driver", "example.com/queue/envelope"), "driver/x.go", "nothing but the standard library"},
	{"imports go one way", "envelope imports keys", add("envelope/x.go", "envelope", "example.com/queue/keys"), "envelope/x.go", "nothing but the standard library"},
	{"imports go one way", "queue imports memqueue", add("x.go", "queue", "example.com/queue/memqueue"), "x.go", "the root package may import backoff"},
	{"imports go one way", "queue imports a suite", add("x.go", "queue", "example.com/queue/drivertest"), "x.go", "move the code"},
	{"imports go one way", "memqueue imports queue", add("memqueue/x.go", "memqueue", "example.com/queue"), "memqueue/x.go", "memqueue may import driver"},
	{"imports go one way", "drivertest imports memqueue", add("drivertest/x.go", "drivertest", "example.com/queue/memqueue"), "drivertest/x.go", "drivertest may import backoff, driver"},
	{"imports go one way", "drivertest imports queue", add("drivertest/x.go", "drivertest", "example.com/queue"), "drivertest/x.go", "drivertest may import backoff, driver"},
	{"imports go one way", "drivertest imports attacktest", add("drivertest/x.go", "drivertest", "example.com/queue/attacktest"), "drivertest/x.go", "drivertest may import backoff, driver"},
	{"imports go one way", "an internal package imports queue", add("internal/backoff/x.go", "backoff", "example.com/queue"), "internal/backoff/x.go", "may import"},
	{"imports go one way", "the root imports a nested module", add("x.go", "queue", "example.com/queue/sqlite/sqlitequeue"), "x.go", "never imports a nested module"},
	{"imports go one way", "a root test imports a nested module", add("x_test.go", "queue", "example.com/queue/otel/otelqueue"), "x_test.go", "never imports a nested module"},
	{"imports go one way", "a new package of the root", add("codec/codec.go", "codec", "context"), "codec", "add it to rootImports"},
	// Directions between modules.
	{"imports go one way", "a backend imports queue", add("sqlite/sqlitequeue/x.go", "sqlitequeue", "example.com/queue"), "sqlite/sqlitequeue/x.go", "may import backoff, driver, keys, replay"},
	{"imports go one way", "a backend imports a suite", add("sqlite/sqlitequeue/x.go", "sqlitequeue", "example.com/queue/drivertest"), "sqlite/sqlitequeue/x.go", "_test.go files only"},
	{"imports go one way", "a backend imports envelope", add("sqlite/sqlitequeue/x.go", "sqlitequeue", "example.com/queue/envelope"), "sqlite/sqlitequeue/x.go", "may import backoff, driver, keys, replay"},
	{"imports go one way", "a backend imports the root's internal", add("sqlite/sqlitequeue/x.go", "sqlitequeue", "example.com/queue/internal/backoff"), "sqlite/sqlitequeue/x.go", "not for nested modules"},
	{"imports go one way", "a backend's test imports the root's internal", add("sqlite/sqlitequeue/x_test.go", "sqlitequeue", "example.com/queue/internal/backoff"), "sqlite/sqlitequeue/x_test.go", "not for nested modules"},
	{"imports go one way", "a backend imports a sibling", add("sqlite/sqlitequeue/x.go", "sqlitequeue", "example.com/queue/otel/otelqueue"), "sqlite/sqlitequeue/x.go", "do not import each other"},
	{"imports go one way", "otel imports a suite", add("otel/otelqueue/x.go", "otelqueue", "example.com/queue/drivertest"), "otel/otelqueue/x.go", "_test.go files only"},
	{"imports go one way", "connect imports queue", add("connect/x.go", "connect", "example.com/queue"), "connect/x.go", "may import driver, keys, replay, memqueue"},
	{"imports go one way", "connect imports the command", add("connect/x.go", "connect", "example.com/queue/cmd/qrt/internal/demo"), "connect/x.go", "no module imports a program"},
	{"imports go one way", "a program imports another", add("examples/router/x.go", "main", "example.com/queue/cmd/qrt"), "examples/router/x.go", "no module imports a program"},
	{"imports go one way", "a backend imports testbed", add("sqlite/sqlitequeue/x.go", "sqlitequeue", "example.com/queue/testbed/sbemulator"), "sqlite/sqlitequeue/x.go", "_test.go files only"},
	{"imports go one way", "connect imports testbed", add("connect/x.go", "connect", "example.com/queue/testbed/sbemulator"), "connect/x.go", "_test.go files only"},
	{"imports go one way", "testbed imports a backend", add("testbed/sbemulator/x.go", "sbemulator", "example.com/queue/sqlite/sqlitequeue"), "testbed/sbemulator/x.go", "the root and third parties only"},
	{"imports go one way", "a test of testbed imports a backend", add("testbed/sbemulator/x_test.go", "sbemulator", "example.com/queue/sqlite/sqlitequeue"), "testbed/sbemulator/x_test.go", "the root and third parties only"},
	{"imports go one way", "testbed imports queue", add("testbed/sbemulator/x.go", "sbemulator", "example.com/queue"), "testbed/sbemulator/x.go", "may import backoff, driver, drivertest"},
	{"imports go one way", "a new module", map[string]string{"kafka/go.mod": "module example.com/queue/kafka\n"}, "kafka/go.mod", "add it to moduleKinds"},

	{"the root module requires nothing", "require line", map[string]string{"go.mod": clean["go.mod"] + "require golang.org/x/crypto v0.1.0\n"}, "go.mod", "requires golang.org/x/crypto"},
	{"the root module requires nothing", "require block", map[string]string{"go.mod": clean["go.mod"] + "require (\n\tgolang.org/x/crypto v0.1.0 // indirect\n)\n"}, "go.mod", "nested module"},
	{"the root module requires nothing", "replace", map[string]string{"go.mod": clean["go.mod"] + "replace example.com/a => ../a\n"}, "go.mod", "replaces example.com/a"},
	{"the root module requires nothing", "tool", map[string]string{"go.mod": clean["go.mod"] + "tool golang.org/x/tools/cmd/stringer\n"}, "go.mod", "has a tool line"},

	{"names are nouns", "package", add("internal/util/x.go", "util", "context"), "internal/util", `"util"`},
	{"names are nouns", "compound package", add("internal/strutil/x.go", "strutil", "context"), "internal/strutil", `"strutil"`},
	{"names are nouns", "package name only", add("internal/x/x.go", "common", "context"), "internal/x", `"common"`},
	{"names are nouns", "test package", add("internal/x/x_test.go", "misc_test", "context"), "internal/x", `"misc"`},
	{"names are nouns", "file", add("types.go", "queue", "context"), "types.go", `"types"`},
	{"names are nouns", "test file", add("client_helpers_test.go", "queue", "context"), "client_helpers_test.go", `"helpers"`},

	{"functions are short and their calls readable", "long", decl("func f() {" + strings.Repeat("\n", 60) + "}"), "x.go", "f has 61 lines"},
	{"functions are short and their calls readable", "parameters", declare("internal/backoff/x.go", "backoff", "func (hidden) f(a, b int, c, d string, e any, _ error) {}"), "internal/backoff/x.go", "f has 6 parameters"},
	{"functions are short and their calls readable", "a literal", declare("worker/run/x.go", "run", "var _ = f(1, true)"), "worker/run/x.go", "passes true"},
	{"functions are short and their calls readable", "a literal in a room of long functions", declare("keys/x.go", "keys", "func g() {"+strings.Repeat("\n", 90)+"f(false) }"), "keys/x.go", "passes false"},
	{"functions are short and their calls readable", "a literal in a nested module", declare("sqlite/sqlitequeue/x.go", "sqlitequeue", "func g() {"+strings.Repeat("\n", 90)+"f(false) }"), "sqlite/sqlitequeue/x.go", "passes false"},
	{"functions are short and their calls readable", "a literal to a method", declare("deadletter/x.go", "deadletter", "func g() { a.b.Set(false) }"), "deadletter/x.go", "passes false"},

	{"package queue stays small", "names", decl("// Errors.\nvar (\n" + strings.Repeat("\tA, B int\n", 70) + ")"), ".", "exports 144 names"},
	{"package queue stays small", "methods", decl("// T is.\ntype T[A, B any] struct{}\n" + strings.Repeat("\nfunc (*T[A, B]) M() {}", 138)), ".", "exports 143 names"},
	{"package queue stays small", "lines", decl(strings.Repeat("func F() {}\n", 58)), ".", "prints 61 lines"},

	{"test vectors are there", "none", map[string]string{"spec/vectors/valid.txt": ""}, "spec/vectors", "holds no vector"},
	{"test vectors are there", "empty", map[string]string{"spec/vectors/none.txt": empty}, "spec/vectors/none.txt", "is empty"},
	{"test vectors are there", "not embedded", map[string]string{"spec/spec.go": "// Package spec embeds.\npackage spec\n"}, "spec", "embeds no vectors"},

	{"nested modules replace what they reach", "root not replaced", map[string]string{"otel/go.mod": "module example.com/queue/otel\n\nrequire example.com/queue v0.0.0\n"}, "otel/go.mod", "add replace example.com/queue => ../"},
	{"nested modules replace what they reach", "sibling not replaced", map[string]string{"connect/go.mod": strings.Replace(clean["connect/go.mod"], "\texample.com/queue/sqlite =>", "\t// ", 1)}, "connect/go.mod", "add replace example.com/queue/sqlite => ../sqlite"},
	{"nested modules replace what they reach", "version in a module that is not released", map[string]string{"examples/go.mod": "module example.com/queue/examples\n\nrequire example.com/queue v0.1.0\n"}, "examples/go.mod", "add replace example.com/queue => ../"},
	{"nested modules replace what they reach", "wrong folder", map[string]string{"cmd/qrt/go.mod": "module example.com/queue/cmd/qrt\n\nreplace example.com/queue => ../\n"}, "cmd/qrt/go.mod", "write ../../"},
	{"nested modules replace what they reach", "by a version", map[string]string{"otel/go.mod": "module example.com/queue/otel\n\nreplace example.com/queue => example.com/queue v1.0.0\n"}, "otel/go.mod", "write ../"},
	{"nested modules replace what they reach", "a fork", map[string]string{"sqlite/go.mod": clean["sqlite/go.mod"] + "replace modernc.org/sqlite => example.org/fork v1.0.0\n"}, "sqlite/go.mod", "only modules of this repository"},
	{"nested modules replace what they reach", "module path", map[string]string{"otel/go.mod": "module example.com/queue/telemetry\n"}, "otel/go.mod", "it is example.com/queue/otel"},

	{"released modules require what they import", "never imported", map[string]string{"otel/go.mod": clean["otel/go.mod"] + "require example.org/sdk v1.0.0\n"}, "otel/go.mod", "requires example.org/sdk, which no package of otel imports outside of tests"},
	{"released modules require what they import", "imported by a test", map[string]string{"otel/go.mod": clean["otel/go.mod"] + "require example.org/sdk v1.0.0\n", "otel/otelqueue/x_test.go": "package otelqueue\n\nimport _ \"example.org/sdk/metric\"\n"}, "otel/go.mod", "outside of tests"},
	{"released modules require what they import", "a longer path is imported", map[string]string{"otel/go.mod": clean["otel/go.mod"] + "require (\n\texample.org/sdk v1.0.0\n\texample.org/sdk/metric v1.0.0\n)\n", "otel/otelqueue/x.go": "package otelqueue\n\nimport _ \"example.org/sdk/metric\"\n"}, "otel/go.mod", "requires example.org/sdk,"},
	{"released modules require what they import", "a sibling", map[string]string{"sqlite/go.mod": clean["sqlite/go.mod"] + "require example.com/queue/otel v0.0.0\nreplace example.com/queue/otel => ../otel\n"}, "sqlite/go.mod", "requires example.com/queue/otel"},
	{"released modules require what they import", "a program", map[string]string{"cmd/qrt/go.mod": clean["cmd/qrt/go.mod"] + "require example.org/script v1.0.0\n"}, "cmd/qrt/go.mod", "requires example.org/script"},
	{"released modules require what they import", "testbed", map[string]string{"testbed/go.mod": clean["testbed/go.mod"] + "require example.org/script v1.0.0\n"}, "testbed/go.mod", "requires example.org/script"},

	{"go.work lists every module", "not listed", map[string]string{"go.work": strings.Replace(clean["go.work"], "\t./otel\n", "", 1)}, "go.work", "add use ./otel"},
	{"go.work lists every module", "not there", map[string]string{"go.work": clean["go.work"] + "use ./docs\n"}, "go.work", "uses docs"},
	{"go.work lists every module", "older Go", map[string]string{"otel/go.mod": strings.Replace(clean["otel/go.mod"], "go 1.26", "go 1.26.1", 1)}, "go.work", "write go 1.26.1"},
	{"go.work lists every module", "replace", map[string]string{"go.work": clean["go.work"] + "replace example.com/a => ./a\n"}, "go.work", "each go.mod carries its own"},

	{"tests do not sleep", "test", sleeping("func TestX(t *testing.T) { time.Sleep(1) }"), "x_test.go", "testing/synctest"},
	{"tests do not sleep", "method value", sleeping("var wait = time.Sleep"), "x_test.go", "testing/synctest"},
	{"tests do not sleep", "bubbles of another folder", declare("keys/x_test.go", "keys", "import \"time\"\n\nvar x = bubble(nil, func() { time.Sleep(1) })"), "keys/x_test.go", "testing/synctest"},
	{"tests do not sleep", "excuse without reason", sleeping("func TestX(t *testing.T) {\n\ttime.Sleep(1) // real time:\n}"), "x_test.go", "testing/synctest"},
	{"tests do not sleep", "suite without bubble", map[string]string{"keys/keys_test.go": "package keys_test\n\nimport \"time\"\n\nvar o = Options{Bubble: false, Replace: func() { time.Sleep(1) }}\n"}, "keys/keys_test.go", "testing/synctest"},

	{"links in documents lead somewhere", "no such file", map[string]string{"docs/x.md": "See [that](gone.md).\n"}, "docs/x.md", "there is no such file"},
	{"links in documents lead somewhere", "from the wrong folder", map[string]string{"docs/x.md": "See [that](docs/use.md).\n"}, "docs/x.md", "there is no such file"},
	{"links in documents lead somewhere", "outside", map[string]string{"docs/x.md": "See [that](../../x.md).\n"}, "docs/x.md", "outside of the repository"},
	{"links in documents lead somewhere", "no such heading", map[string]string{"docs/x.md": "See [that](use.md#gone).\n"}, "docs/x.md", "no heading"},
	{"links in documents lead somewhere", "no such heading here", map[string]string{"docs/x.md": "# A\n\nSee [that](#b).\n"}, "docs/x.md", "no heading"},

	{"Go in documents compiles", "in two files", document("synctest.Test(t, named)\nvar Table = []int{1} // a table"), "docs/x.md", "stand in no Go file"},
	{"Go in documents compiles", "nowhere", document("queue.Gone()"), "docs/x.md", "stand in no Go file"},
	{"Go in documents compiles", "part of a line", document("bubble(t, func()"), "docs/x.md", "stand in no Go file"},
	{"Go in documents compiles", "in another order", document("bubble(t, func() { time.Sleep(1) })\nsynctest.Test(t, named)"), "docs/x.md", "stand in no Go file"},
	{"documents that Go code names exist", "in a comment", prosaic("x.go", "package queue\n\n// See\n// docs/gone.md.\nvar x = 1"), "x.go", "no such document"},
	{"documents that Go code names exist", "in a comment of a test", prosaic("x_test.go", "package queue_test\n\n// See DESIGN.md.\nvar x = 1"), "x_test.go", "no such document"},
	{"documents that Go code names exist", "in a string", prosaic("x.go", "package queue\n\nvar x = \"see docs/gone/use.md\""), "x.go", "no such document"},
	{"documents that Go code names exist", "heading", prosaic("x.go", "package queue\n\n// See docs/use.md, \"To\n// lose\".\nvar x = 1"), "x.go", "no heading \"To lose\""},

	{"tests that documents name exist", "gone", prosaic("docs/x.md", "`TestGone` shows it."), "docs/x.md", "TestGone"},
	{"tests that documents name exist", "in a table", prosaic("docs/x.md", "| a | b |\n| --- | --- |\n| 1 | `TestClient`, `BenchmarkGone` |"), "docs/x.md", "BenchmarkGone"},
	{"tests that documents name exist", "no such beginning", prosaic("docs/x.md", "`TestClient*` and\n`TestGo*` show it."), "docs/x.md", "TestGo"},

	{"prose is plain English", "a document", prosaic("docs/x.md", "Whoever controls it reads it."), "docs/x.md", `"Whoever": name who does it`},
	{"prose is plain English", "a clause without a noun", prosaic("docs/x.md", "It is for who\nmay read."), "docs/x.md", `"for who": name who does it`},
	{"prose is plain English", "over two lines", prosaic("docs/deploy/x.md", "for those\nwho read"), "docs/deploy/x.md", `"those who": name who does it`},
	{"prose is plain English", "exception", prosaic("README.md", "Send, but where it is full."), "README.md", "write unless"},
	{"prose is plain English", "fragment of a sentence", prosaic("docs/x.md", "The logger. Nil: none."), "docs/x.md", "Nil means"},
	{"prose is plain English", "condition", prosaic("docs/x.md", "It stops.\nWhere it is full,\nit waits."), "docs/x.md", "begins with If"},
	{"prose is plain English", "condition after a value", prosaic("docs/x.go", "package docs\n\n// N is a count, 0 where\n// there is none.\nvar N = 1"), "docs/x.go", "write if"},
	{"prose is plain English", "in a table", prosaic("docs/x.md", "| a | b |\n| --- | --- |\n| 1 | nobody |"), "docs/x.md", "nobody"},
	{"prose is plain English", "a comment", prosaic("docs/x.go", "package docs\n\n// Send sends.\n// It fails if\n// somebody else sends.\nfunc Send() {}"), "docs/x.go", "somebody"},
	{"prose is plain English", "a comment of a test", prosaic("docs/x_test.go", "package docs\n\n// Somebody tests.\nvar x = 1"), "docs/x_test.go", "Somebody"},
	{"prose is plain English", "a comment over two lines", prosaic("docs/x.go", "package docs\n\n// It is for those\n// who read.\nvar x = 1"), "docs/x.go", "those who"},

	{"paragraphs of documents are short", "six lines", prosaic("docs/x.md", "a\nb\nc\nd\ne\nf"), "docs/x.md", "6 lines"},
	{"paragraphs of documents are short", "an item", prosaic("docs/x.md", "1. a\n   b\n   c\n   d\n   e\n   f\n2. g"), "docs/x.md", "6 lines"},

	{"Go in documents compiles", "fence without end", map[string]string{"docs/x.md": "```go\nqueue.Gone()\n"}, "docs/x.md", "stand in no Go file"},
}

// document is a document with one Go fragment.
func document(fragment string) map[string]string {
	return map[string]string{"docs/x.md": "# Use\n\n```go\n" + fragment + "\n```\n"}
}

// prosaic is a file with this text.
func prosaic(name, text string) map[string]string { return map[string]string{name: text + "\n"} }

// empty stands for a file of no bytes, since "" removes a file.
const empty = "\x00empty"

// add is a new file that imports one package.
func add(name, pkg, imports string) map[string]string {
	return map[string]string{name: "package " + pkg + "\n\nimport _ \"" + imports + "\"\n"}
}

// decl is a new file of the root package with these declarations.
func decl(text string) map[string]string { return declare("x.go", "queue", text) }

// declare is a new file with these declarations.
func declare(name, pkg, text string) map[string]string {
	return map[string]string{name: "package " + pkg + "\n\n" + text + "\n"}
}

// sleeping is a new test file of the root package that imports time.
func sleeping(text string) map[string]string {
	return map[string]string{"x_test.go": "package queue_test\n\nimport (\n\t\"testing\"\n\t\"time\"\n)\n\nvar _ testing.TB\n\n" + text + "\n"}
}

// load builds a tree from clean and the changes to it.
func load(t *testing.T, set map[string]string) (*Tree, error) {
	t.Helper()
	files := maps.Clone(clean)
	maps.Copy(files, set)
	fsys := fstest.MapFS{}
	for name, text := range files {
		if text == "" {
			continue
		}
		fsys[name] = &fstest.MapFile{Data: []byte(strings.TrimPrefix(text, empty)), Mode: fs.ModePerm}
	}
	return Load(fsys)
}

func TestCleanTree(t *testing.T) {
	tree, err := load(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range Rules {
		for _, v := range r.Check(tree) {
			t.Errorf("%s: %s", r.Name, v)
		}
	}
}

// TestFaults plants each fault and wants exactly one complaint from its rule, at
// the place and with the advice that belong to it.
func TestFaults(t *testing.T) {
	rules := make(map[string]Rule)
	planted := make(map[string]int)
	for _, r := range Rules {
		rules[r.Name] = r
	}
	for _, f := range faults {
		planted[f.rule]++
		t.Run(f.rule+"/"+f.name, func(t *testing.T) {
			r, ok := rules[f.rule]
			if !ok {
				t.Fatal("no such rule")
			}
			tree, err := load(t, f.set)
			if err != nil {
				t.Fatal(err)
			}
			got := r.Check(tree)
			if len(got) != 1 {
				t.Fatalf("%d violations, want 1: %v", len(got), got)
			}
			if got[0].Path != f.path || !strings.Contains(got[0].Text, f.text) {
				t.Errorf("got %q, want path %s and text with %q", got[0], f.path, f.text)
			}
		})
	}
	for _, r := range Rules {
		if planted[r.Name] == 0 {
			t.Errorf("rule %q has no planted fault that it must find", r.Name)
		}
	}
}

// TestLoadErrors gives trees that cannot be judged.
func TestLoadErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		set  map[string]string
		text string
	}{
		{"no workspace", map[string]string{"go.work": ""}, "go.work"},
		{"no root module", map[string]string{"go.mod": ""}, "no go.mod at the root"},
		{"no module line", map[string]string{"otel/go.mod": "go 1.26\n"}, "otel/go.mod: no module line"},
		{"two of one path", map[string]string{"otel/go.mod": "module example.com/queue\n"}, "declare the same module"},
		{"broken Go", map[string]string{"x.go": "package ???\n"}, "x.go:1"},
		{"open block", map[string]string{"go.mod": "module example.com/queue\nrequire (\n"}, "has no end"},
		{"broken string", map[string]string{"go.mod": "module \"example.com\n"}, "broken string"},
		{"half a requirement", map[string]string{"otel/go.mod": "module example.com/queue/otel\nrequire example.com/queue\n"}, "otel/go.mod:2"},
		{"half a replacement", map[string]string{"otel/go.mod": "module example.com/queue/otel\nreplace example.com/queue\n"}, "otel/go.mod:2"},
		{"replacement by nothing", map[string]string{"otel/go.mod": "module example.com/queue/otel\nreplace example.com/queue =>\n"}, "otel/go.mod:2"},
		{"use of two", map[string]string{"go.work": "use . ./otel\n"}, "go.work:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.set)
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v, want one with %q", err, c.text)
			}
		})
	}
}
