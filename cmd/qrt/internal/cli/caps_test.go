package cli

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/driver"
)

// TestCapsFields sets each field of driver.Capabilities in turn: JSON and table must
// show it under its name, and change with it.
func TestCapsFields(t *testing.T) {
	render := func(c driver.Capabilities) (object map[string]any, table string) {
		r := capsReport{"q", c}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &object); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		r.show(display.New(&out, display.Never))
		return object, out.String()
	}
	zero, zeroTable := render(driver.Capabilities{})
	kind := reflect.TypeFor[driver.Capabilities]()
	if len(zero) != kind.NumField()+1 || zero["queue"] != "q" {
		t.Errorf("%d members for %d fields and the queue: %v", len(zero), kind.NumField(), zero)
	}
	for i := range kind.NumField() {
		field := kind.Field(i)
		var c driver.Capabilities
		name := snakeCase(field.Name)
		switch v := reflect.ValueOf(&c).Elem().Field(i); v.Interface().(type) {
		case driver.Support:
			v.Set(reflect.ValueOf(driver.Native))
		case bool:
			v.SetBool(true)
		case int:
			v.SetInt(77)
		case time.Duration:
			v.SetInt(int64(77 * time.Second))
			name += "_s"
		default:
			t.Fatalf("caps cannot show field %s of type %s: add the type to capsReport", field.Name, field.Type)
		}
		object, table := render(c)
		if was, ok := zero[name]; !ok || was == object[name] {
			t.Errorf("%s: the JSON member %q is %v, and was %v with the zero value", field.Name, name, object[name], was)
		}
		if table == zeroTable || !strings.Contains(table, strings.ReplaceAll(snakeCase(field.Name), "_", " ")) {
			t.Errorf("%s: the table does not show it:\n%s", field.Name, table)
		}
	}
	for name := range capabilityTexts {
		if _, ok := kind.FieldByName(name); !ok {
			t.Errorf("capabilityTexts explains %s, which is no field", name)
		}
	}
}

func TestSnakeCase(t *testing.T) {
	for name, want := range map[string]string{"MaxBatchBytes": "max_batch_bytes", "AcceptByID": "accept_by_id", "TTL": "ttl", "Lock": "lock"} {
		if got := snakeCase(name); got != want {
			t.Errorf("snakeCase(%q) = %q, want %q", name, got, want)
		}
	}
}
