package cli_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/queue-runtime/queue/cmd/qrt/internal/cli"
)

// TestMain makes the test binary qrt when it is called by that name: scripts run
// it as a process of its own.
func TestMain(m *testing.M) {
	// Most of what runs here waits: for a disk, a process, a queue to stay empty.
	// More of it at once than there are processors is over sooner; -parallel comes
	// after this and has its way.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"qrt": func() { os.Exit(cli.Main()) }})
}

// TestScript runs the scripts in testdata/script: every command, its exit codes
// and the form of its JSON.
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, scripts("script", nil))
}

// scripts are those of a folder of testdata, with more in their environment. Each
// has a user's home of its own.
func scripts(dir string, env map[string]string) testscript.Params {
	return testscript.Params{
		Dir:                 filepath.Join("testdata", dir),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			all := map[string]string{
				"HOME":            home,
				"XDG_CONFIG_HOME": filepath.Join(home, "config"),
				"XDG_DATA_HOME":   filepath.Join(home, "data"),
				"GORACE":          raceOptions(),
			}
			maps.Copy(all, env)
			for k, v := range all {
				e.Setenv(k, v)
			}
			return os.MkdirAll(home, 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exit":  exitCode,
			"json":  jsonValue,
			"lines": jsonLines,
			"sql":   editFile,
		},
	}
}

// raceOptions is GORACE for processes that end soon. The race detector sleeps for
// a second at the end of each, for other threads to find races still; of the
// hundreds of processes here none has a thread that is busy by then.
func raceOptions() string {
	return strings.TrimSpace(os.Getenv("GORACE") + " atexit_sleep_ms=10")
}

// exitCode is "exit CODE COMMAND...": the command ends with exactly that code.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		got = -1
		var x interface{ ExitCode() int }
		if asExit(err, &x) {
			got = x.ExitCode()
		}
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func asExit(err error, x *interface{ ExitCode() int }) bool {
	e, ok := err.(interface{ ExitCode() int }) //nolint:errorlint // testscript does not wrap it
	if ok {
		*x = e
	}
	return ok
}

// jsonValue is "json FILE PATH VALUE": FILE (stdout, stderr or a file) is one
// JSON object, and what lies at PATH in it prints as VALUE. A VALUE that begins
// with ~ is a kind: ~string, ~number, ~bool, ~array, ~object. With PATH keys, the
// names of the object, sorted, are VALUE.
func jsonValue(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: json FILE PATH VALUE")
	}
	var v any
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		ts.Fatalf("%s is not JSON: %v", args[0], err)
	}
	if d.More() {
		ts.Fatalf("%s is more than one JSON value", args[0])
	}
	got, err := at(v, args[1])
	if err != nil {
		ts.Fatalf("%v", err)
	}
	if (got == args[2] || kindOf(v, args[1]) == args[2]) == neg {
		ts.Fatalf("%s is %s, want %s", args[1], got, args[2])
	}
}

// jsonLines is "lines FILE N": FILE is N JSON objects, one a line.
func jsonLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lines FILE N")
	}
	n := 0
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			ts.Fatalf("line %d is no JSON object: %v", n+1, err)
		}
		n++
	}
	if strconv.Itoa(n) != args[1] {
		ts.Fatalf("%d lines, want %s", n, args[1])
	}
}

// editFile is "sql FILE STATEMENT": somebody edits a queue's file by hand.
func editFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sql FILE STATEMENT")
	}
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	ts.Check(err)
	r, err := db.ExecContext(context.Background(), args[1])
	ts.Check(err)
	if n, err := r.RowsAffected(); err != nil || n == 0 && !strings.HasPrefix(args[1], "CREATE ") {
		ts.Fatalf("%d rows were changed (%v)", n, err)
	}
	ts.Check(db.Close())
}

// walk follows a path of names and indices, separated by slashes.
func walk(v any, path string) (any, error) {
	for part := range strings.SplitSeq(path, "/") {
		switch x := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = x[part]; !ok {
				return nil, fmt.Errorf("no %q in %s", part, path)
			}
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(x) {
				return nil, fmt.Errorf("no element %q in %s, which has %d", part, path, len(x))
			}
			v = x[i]
		default:
			return nil, fmt.Errorf("nothing below %q in %s", part, path)
		}
	}
	return v, nil
}

func at(v any, path string) (string, error) {
	v, err := walk(v, path)
	if err != nil {
		return "", err
	}
	switch x := v.(type) {
	case nil:
		return "null", nil
	case string:
		if strings.ContainsAny(x, "\n\t") {
			return strconv.Quote(x), nil
		}
	case []any, map[string]any:
		b, err := json.Marshal(x)
		return string(b), err
	}
	return fmt.Sprint(v), nil
}

func kindOf(v any, path string) string {
	v, err := walk(v, path)
	if err != nil || v == nil {
		return "~null"
	}
	if _, ok := v.(json.Number); ok {
		return "~number"
	}
	switch reflect.TypeOf(v).Kind() {
	case reflect.String:
		return "~string"
	case reflect.Bool:
		return "~bool"
	case reflect.Slice:
		return "~array"
	default:
		return "~object"
	}
}
