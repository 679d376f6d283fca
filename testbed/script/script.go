// Package script tests a command by scripts (package testscript of
// github.com/rogpeppe/go-internal) with commands for exit codes, JSON and SQLite
// files:
//
//	exit CODE COMMAND...     the command ends with exactly this code
//	json FILE PATH VALUE     the value at PATH of a JSON object prints as VALUE
//	lines FILE N             the file consists of N JSON objects, one a line
//	sql FILE STATEMENT       changes rows of a SQLite file
package script

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	_ "modernc.org/sqlite" // the database/sql driver "sqlite"
)

// State is a running script.
type State = testscript.TestScript

// Command is a command of scripts. neg says that the script negates it.
type Command = func(s *State, neg bool, args []string)

// Main runs the tests of m. A script that runs the command name runs the test
// binary as a process of its own, which calls main.
func Main(m *testing.M, name string, main func()) {
	testscript.Main(m, map[string]func(){name: main})
}

// Options are the options of [Run].
type Options struct {
	// Env is added to the environment of each script.
	Env map[string]string
	// Commands are added to those of this package.
	Commands map[string]Command
}

// Run runs each script (*.txtar) of a folder as a subtest, with a home folder of
// its own. A nil o means the zero Options.
func Run(t *testing.T, folder string, o *Options) {
	t.Helper()
	if o == nil {
		o = &Options{}
	}
	commands := map[string]Command{"exit": exitCode, "json": jsonValue, "lines": jsonLines, "sql": editFile}
	maps.Copy(commands, o.Commands)
	testscript.Run(t, testscript.Params{
		Dir:                 folder,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               func(e *testscript.Env) error { return setUp(e, o.Env) },
		Cmds:                commands,
	})
}

// setUp makes the home folder and the environment of a script.
func setUp(e *testscript.Env, more map[string]string) error {
	home := filepath.Join(e.WorkDir, "home")
	all := map[string]string{
		"HOME":            home,
		"XDG_CONFIG_HOME": filepath.Join(home, "config"),
		"XDG_DATA_HOME":   filepath.Join(home, "data"),
		"GORACE":          RaceOptions(),
	}
	maps.Copy(all, more)
	for k, v := range all {
		e.Setenv(k, v)
	}
	return os.MkdirAll(home, 0o700)
}

// RaceOptions returns GORACE for processes that end soon. By default the race
// detector sleeps for a second at the end of each process, for other threads to
// report races. Hundreds of processes run here, and none has a busy thread then.
func RaceOptions() string {
	return strings.TrimSpace(os.Getenv("GORACE") + " atexit_sleep_ms=10")
}

// exitCode is "exit CODE COMMAND...": the command ends with exactly that code.
func exitCode(ts *State, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		got = -1
		if x, ok := err.(interface{ ExitCode() int }); ok { //nolint:errorlint // testscript does not wrap it
			got = x.ExitCode()
		}
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// jsonValue is "json FILE PATH VALUE": FILE (stdout, stderr or a file) is one
// JSON object, and what lies at PATH in it prints as VALUE. A VALUE that begins
// with ~ is a kind: ~string, ~number, ~bool, ~array, ~object. With PATH keys, the
// names of the object, sorted, are VALUE.
func jsonValue(ts *State, neg bool, args []string) {
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
func jsonLines(ts *State, neg bool, args []string) {
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

// editFile is "sql FILE STATEMENT": changes a SQLite file.
func editFile(ts *State, neg bool, args []string) {
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
