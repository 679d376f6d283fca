package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/driver"
)

// capsReport is the output of caps. It shows every field of driver.Capabilities,
// also fields that are added there later.
type capsReport struct {
	queue        string
	capabilities driver.Capabilities
}

func (a *app) capsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "caps QUEUE",
		Short: "Show what a queue's broker can do",
		Long: `Caps shows the capabilities of a queue's broker: native, emulated by the driver,
done by sending a copy, or none. A call that the broker does not support fails with
errors.ErrUnsupported.

With --json, names are those of driver.Capabilities in lower case; sizes are bytes,
names that end in _s are seconds, and 0 means that no limit is known.`,
		Example: example(`qrt caps task-tactician --json`),
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.caps(cmd.Context(), args[0])
		},
	}
}

func (a *app) caps(ctx context.Context, name string) error {
	return a.with(ctx, access{named: []string{name}, looks: true}, func(c *connection) (err error) {
		q, err := c.broker.Open(ctx, name, nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, q.Close(ctx)) }()
		r := capsReport{name, q.Capabilities()}
		a.print(r, func(s *display.Screen) { r.show(s) })
		return nil
	})
}

// capability is one field of driver.Capabilities.
type capability struct {
	name  string // of the field
	value any    // bool, int, time.Duration or driver.Support
}

// list returns all fields in the order of their declaration.
func (r capsReport) list() []capability {
	v := reflect.ValueOf(r.capabilities)
	list := make([]capability, v.NumField())
	for i := range list {
		list[i] = capability{v.Type().Field(i).Name, v.Field(i).Interface()}
	}
	return list
}

// MarshalJSON writes the queue and every capability, durations in seconds.
func (r capsReport) MarshalJSON() ([]byte, error) {
	out := map[string]any{"queue": r.queue}
	for _, c := range r.list() {
		switch v := c.value.(type) {
		case driver.Support:
			out[snakeCase(c.name)] = v.String()
		case time.Duration:
			out[snakeCase(c.name)+"_s"] = v.Seconds()
		default:
			out[snakeCase(c.name)] = v
		}
	}
	return json.Marshal(out)
}

// snakeCase turns MaxBatchBytes into max_batch_bytes, and AcceptByID into
// accept_by_id.
func snakeCase(name string) string {
	var b strings.Builder
	letters := []rune(name)
	for i, r := range letters {
		if i > 0 && unicode.IsUpper(r) && !unicode.IsUpper(letters[i-1]) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// capabilityTexts explain fields of driver.Capabilities. A field without a text is
// shown by its name alone.
var capabilityTexts = map[string]string{
	"Sessions":      "messages of one session in order, one receiver at a time",
	"SessionState":  "a small state is kept with a session",
	"DeadLetter":    "messages that cannot be handled are set aside",
	"AbandonDelay":  "an abandoned message comes back after a delay",
	"Schedule":      "a message is not delivered before a time",
	"Peek":          "messages can be read without receiving them",
	"TTL":           "the broker stops delivering; receivers enforce it in any case",
	"Dedup":         "repeats of a DedupID are dropped",
	"AcceptByID":    "a session can be accepted by its ID",
	"SessionOnly":   "every message needs a session",
	"SessionGaps":   "a session is exclusive only while one of its messages is held",
	"BinaryBody":    "if not, sealed bodies travel as base64",
	"Fenced":        "the broker refuses to settle after a lock has ended",
	"MaxBody":       "bytes of a body",
	"MaxBatch":      "messages in one send",
	"MaxBatchBytes": "bytes in one send",
	"MaxAttributes": "attributes of a message",
	"MaxDeliveries": "deliveries before the broker dead-letters a message",
	"ReceiveBatch":  "messages in one receive",
	"MaxDelay":      "longest schedule and longest delay of an abandoned message",
	"Lock":          "the lock of a delivery",
	"MinLock":       "shortest lock",
	"MaxLock":       "longest lock",
	"Retention":     "how long the broker keeps a message",
}

func (r capsReport) show(s *display.Screen) {
	var can, limits [][]string
	for _, c := range r.list() {
		label, text := strings.ReplaceAll(snakeCase(c.name), "_", " "), capabilityTexts[c.name]
		switch v := c.value.(type) {
		case driver.Support:
			can = append(can, []string{label, shownSupport(s, v), text})
		case bool:
			can = append(can, []string{label, shownFlag(s, v), text})
		default:
			limits = append(limits, []string{label, shownLimit(s, c.name, v), text})
		}
	}
	s.Table(display.Columns("can", "", "what it is"), can)
	s.Println()
	s.Table(display.Columns("limit", "", "of what"), limits)
}

func shownSupport(s *display.Screen, v driver.Support) string {
	if v == driver.None {
		return s.Warn("no")
	}
	return s.Good(v.String())
}

func shownFlag(s *display.Screen, v bool) string {
	if v {
		return s.Good("yes")
	}
	return "no"
}

func shownLimit(s *display.Screen, name string, v any) string {
	switch v := v.(type) {
	case time.Duration:
		if v == 0 {
			return s.Dim("not known")
		}
		return display.Duration(v)
	case int:
		switch {
		case v == 0:
			return s.Dim("no limit known")
		case name == "MaxBody" || name == "MaxBatchBytes":
			return display.Bytes(v)
		}
		return display.Count(v)
	}
	return fmt.Sprint(v)
}
