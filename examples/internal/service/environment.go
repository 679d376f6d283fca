package service

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/queue-runtime/queue"
)

// Config is the configuration that all programs share. Programs embed it.
type Config struct {
	// Broker is a URL of package connect.
	Broker string `env:"BROKER_URL,required,notEmpty"`

	// Environment names where this runs, as a label of metrics.
	Environment string `env:"ENVIRONMENT" envDefault:"development"`

	// AdminListen is the address of /healthz, /readyz and /metrics.
	AdminListen string `env:"ADMIN_LISTEN" envDefault:"127.0.0.1:9090"`

	// LogLevel is DEBUG, INFO, WARN or ERROR. INFO has a line for each message.
	LogLevel slog.Level `env:"LOG_LEVEL" envDefault:"INFO"`

	// DrainTimeout is how long what is under way may take when the program is
	// told to end. It must be shorter than the time after which it is killed.
	DrainTimeout time.Duration `env:"DRAIN_TIMEOUT" envDefault:"20s"`
}

// Validate says what is wrong with c, each with the name of its variable.
func (c *Config) Validate() error {
	return Positive("DRAIN_TIMEOUT", c.DrainTimeout)
}

// Positive returns an error if a duration is not positive.
func Positive(variable string, d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("%s must be a positive duration, such as 20s", variable)
	}
	return nil
}

// Load fills in the fields of the struct that into points to, by their env tags
// (package env), and validates it if it has a method Validate. A nil environ
// stands for the process's environment. Its error names each variable at fault,
// one a line, and never a value.
func Load(into any, environ map[string]string) error {
	err := env.ParseWithOptions(into, env.Options{Environment: environ})
	var all env.AggregateError
	switch {
	case errors.As(err, &all):
		var lines []error
		for _, e := range all.Errors {
			lines = append(lines, explain(e, reflect.TypeOf(into).Elem()))
		}
		return errors.Join(lines...)
	case err != nil:
		return err
	}
	if v, ok := into.(interface{ Validate() error }); ok {
		return v.Validate()
	}
	return nil
}

// explain turns an error of package env into what to do. The package's own text
// for a value that does not parse would show the value, and the name of the
// field in place of the variable's.
func explain(err error, t reflect.Type) error {
	var missing env.VarIsNotSetError
	var empty env.EmptyVarError
	var parse env.ParseError
	switch {
	case errors.As(err, &missing):
		return fmt.Errorf("%s is not set", missing.Key)
	case errors.As(err, &empty):
		return fmt.Errorf("%s is empty", empty.Key)
	case errors.As(err, &parse):
		return fmt.Errorf("%s is not %s", variableOf(t, parse.Name), expected(parse.Type))
	}
	return err
}

// variableOf returns the variable of the field of that name, or the name.
func variableOf(t reflect.Type, field string) string {
	f, ok := t.FieldByNameFunc(func(name string) bool { return name == field })
	if !ok {
		return field
	}
	name, _, _ := strings.Cut(f.Tag.Get("env"), ",")
	return name
}

func expected(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "a duration, such as 20s"
	case reflect.TypeFor[slog.Level]():
		return "one of DEBUG, INFO, WARN, ERROR"
	case reflect.TypeFor[Secret]():
		return fmt.Sprintf("a secret of at least %d bytes", MinSecret)
	case reflect.TypeFor[Plaintext]():
		return "one of " + strings.Join(policyNames(), ", ")
	}
	switch {
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return "a whole number"
	}
	return "valid"
}

// Plaintext is a queue.PlaintextPolicy that is read by its name.
type Plaintext queue.PlaintextPolicy

var policies = []queue.PlaintextPolicy{queue.Reject, queue.AllowWithAlert, queue.Allow}

func policyNames() []string {
	names := make([]string, len(policies))
	for i, p := range policies {
		names[i] = p.String()
	}
	return names
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Plaintext) UnmarshalText(text []byte) error {
	i := slices.Index(policyNames(), string(text))
	if i < 0 {
		return errors.New("unknown policy")
	}
	*p = Plaintext(policies[i])
	return nil
}
