package deployment_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/service"
	"github.com/queue-runtime/queue/examples/webhook-router/router"
)

const folder = "../../docs/deploy"

// After its drain a program may take this long: a bot has 5 s for handlers that were
// cancelled, up to 15 s to give messages back and 20 s for what it closes; a router
// closes only.
const (
	afterBot    = 40 * time.Second
	afterRouter = 15 * time.Second
)

// content returns a file of docs/deploy.
func content(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documents decodes the YAML documents of a file, each into what into returns for its
// kind. Unknown fields and repeated keys are errors.
func documents(t *testing.T, name string, into func(kind string) any) []any {
	t.Helper()
	var all []any
	for _, text := range strings.Split(content(t, name), "\n---\n") {
		var head struct {
			Kind string `yaml:"kind"`
		}
		if err := yaml.Unmarshal([]byte(text), &head); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		d := yaml.NewDecoder(bytes.NewReader([]byte(text)))
		d.KnownFields(true)
		v := into(head.Kind)
		if v == nil {
			t.Fatalf("%s: kind %q is not known here", name, head.Kind)
		}
		if err := d.Decode(v); err != nil {
			t.Fatalf("%s: %s: %v", name, head.Kind, err)
		}
		if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
			t.Fatalf("%s: %s: more than one document", name, head.Kind)
		}
		all = append(all, v)
	}
	return all
}

// stopTime wants a program to start with an environment, each variable of which it
// reads, and returns how long it may take to stop.
func stopTime(t *testing.T, program string, environ map[string]string) time.Duration {
	t.Helper()
	var config any
	switch program {
	case "router", "webhook-router":
		config = new(router.Config)
	case "bot":
		config = new(consumer.Config)
	default:
		t.Fatalf("no program %q", program)
	}
	read := variables(reflect.TypeOf(config).Elem())
	for _, value := range environ {
		if prefix, ok := strings.CutPrefix(value, "env://"); ok {
			read[prefix], read[prefix+"_CURRENT"] = true, true
		}
	}
	for name := range environ {
		if !read[name] {
			t.Errorf("%s does not read %s", program, name)
		}
	}
	if err := service.Load(config, environ); err != nil {
		t.Fatalf("%s would not start: %v", program, err)
	}
	switch c := config.(type) {
	case *router.Config:
		return c.StopDelay + c.DrainTimeout + afterRouter
	case *consumer.Config:
		return c.DrainTimeout + afterBot
	}
	return 0
}

// variables are the names in the env tags of a struct.
func variables(of reflect.Type) map[string]bool {
	names := make(map[string]bool)
	for _, f := range reflect.VisibleFields(of) {
		if name, _, _ := strings.Cut(f.Tag.Get("env"), ","); name != "" {
			names[name] = true
		}
	}
	return names
}
