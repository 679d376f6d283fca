package cli

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/connect"
)

// settings are the settings of every command. A flag comes before the environment
// (QRT_*), then the configuration file, then the default.
type settings struct {
	broker      setting
	keys        setting
	nonces      setting
	policy      setting
	maxAge      setting
	environment setting
	log         setting
	color       setting
	json        bool

	file   string // the configuration file that was read, empty means none
	queues map[string]queueSettings
}

// setting is a value and where it comes from, in words for a person.
type setting struct{ value, source string }

// given reports whether the user chose the value.
func (s setting) given() bool { return s.source != "" && s.source != sourceDefault }

const sourceDefault = "default"

// configFile is the configuration file, in TOML.
type configFile struct {
	Broker      string                   `toml:"broker"`
	Provider    string                   `toml:"provider"` // the former name of broker
	Keys        string                   `toml:"keys"`
	ReplayStore string                   `toml:"nonces"`
	Policy      string                   `toml:"policy"`
	MaxAge      string                   `toml:"max_age"`
	Environment string                   `toml:"environment"`
	Log         string                   `toml:"log"`
	Color       string                   `toml:"color"`
	Queues      map[string]queueSettings `toml:"queues"`
}

// queueSettings are a queue's own, in the configuration file.
type queueSettings struct {
	Keys string `toml:"keys"`
}

// addFlags declares the flags that every command has.
func addFlags(f *pflag.FlagSet) {
	f.String("config", "", "configuration `file`, TOML (default: qrt/config.toml in the user's configuration folder)")
	f.String("broker", "", "`URL` of the broker (default: a SQLite file of this user)")
	f.String("keys", "", "`URL` of the keys (default: this user's key file, if there is one)")
	f.String("nonces", "", "`URL` of the replay store; turns replay protection on")
	f.String("policy", "", "what to do with plaintext: allow, allow_with_alert, reject (default: allow_with_alert)")
	f.String("max-age", "", "oldest message to accept: a duration, or retention for as long as the broker keeps it (default: retention)")
	f.String("environment", "", "`name` of the environment, such as production")
	f.String("log", "", "library log lines on standard error: off, error, warn, info, debug (default: off)")
	f.String("color", "", "auto, always or never (default: auto)")
	f.Bool("json", false, "results as JSON, for programs")
}

// formerFlags maps the former names of flags to their present names. Former names
// work as flags, as environment variables and in the configuration file, and are
// not shown in help.
var formerFlags = map[string]string{"provider": "broker"}

// presentName is the normalization of flag names.
func presentName(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if present, ok := formerFlags[name]; ok {
		name = present
	}
	return pflag.NormalizedName(name)
}

// environment returns the value of a flag's environment variable, and the name of
// the variable that holds it. The present name comes before a former one.
func environment(flag string) (value, variable string) {
	variable = envName(flag)
	if v := os.Getenv(variable); v != "" {
		return v, variable
	}
	for former, present := range formerFlags {
		if present == flag {
			variable = envName(former)
			return os.Getenv(variable), variable
		}
	}
	return "", variable
}

// resolve fills s in. Its errors name the place of a wrong value.
func (s *settings) resolve(flags *pflag.FlagSet) error {
	if err := s.resolveJSON(flags); err != nil {
		return err
	}
	path, needed := configPath(flags)
	var file configFile
	if path != "" {
		read, err := readConfig(path, &file, needed)
		if err != nil {
			return err
		}
		if read {
			s.file = path
		}
	}
	s.queues = file.Queues
	pick := func(name, inFile, otherwise string) setting {
		if f := flags.Lookup(name); f != nil && f.Changed {
			return setting{f.Value.String(), "--" + name}
		}
		if v, variable := environment(name); v != "" {
			return setting{v, variable}
		}
		if inFile != "" {
			return setting{inFile, path}
		}
		return setting{otherwise, sourceDefault}
	}
	if file.Broker != "" && file.Provider != "" {
		return usagef("configuration file %s: broker and provider are the same setting: remove provider, which is its former name", path)
	}
	s.broker = pick("broker", cmp.Or(file.Broker, file.Provider), "")
	s.keys = pick("keys", file.Keys, "")
	s.nonces = pick("nonces", file.ReplayStore, "")
	s.policy = pick("policy", file.Policy, queue.AllowWithAlert.String())
	s.maxAge = pick("max-age", file.MaxAge, "retention")
	s.environment = pick("environment", file.Environment, "")
	s.log = pick("log", file.Log, "off")
	s.color = pick("color", file.Color, string(display.Auto))
	if err := s.check(); err != nil {
		return err
	}
	s.defaults()
	return nil
}

func (s *settings) resolveJSON(flags *pflag.FlagSet) error {
	f := flags.Lookup("json")
	if f == nil {
		return nil
	}
	v := f.Value.String()
	if e := os.Getenv("QRT_JSON"); e != "" && !f.Changed {
		v = e
	}
	on, err := strconv.ParseBool(v)
	if err != nil {
		return usagef("QRT_JSON is neither true nor false")
	}
	s.json = on
	return nil
}

// check refuses values that no command can use.
func (s *settings) check() error {
	if strings.Contains(s.broker.value, "SharedAccessKey=") && strings.HasPrefix(s.broker.source, "--") {
		return usagef("--broker holds a connection string with a secret, which other users of this machine can read in the process list: put it in QRT_BROKER or the configuration file")
	}
	for _, c := range []struct {
		name string
		s    setting
		list []string
	}{
		{"policy", s.policy, []string{"allow", "allow_with_alert", "reject"}},
		{"log", s.log, []string{"off", "error", "warn", "info", "debug"}},
		{"color", s.color, []string{"auto", "always", "never"}},
	} {
		if !slices.Contains(c.list, c.s.value) {
			return usagef("%s (%s): %q is not one of %s", c.name, c.s.source, display.Safe(c.s.value), strings.Join(c.list, ", "))
		}
	}
	if _, err := parseMaxAge(s.maxAge); err != nil {
		return err
	}
	return nil
}

// defaults sets the broker and the keys of this user if none were chosen. A user
// without a home folder has neither: commands that need them report it.
func (s *settings) defaults() {
	if s.broker.value == "" {
		if dir, err := dataDir(); err == nil {
			s.broker.value = sqliteURL(filepath.Join(dir, "queue.db"))
		}
	}
	if s.keys.value == "" {
		path, err := defaultKeyFile()
		if err == nil {
			if _, err := os.Stat(path); err == nil {
				s.keys.value = fileURL(path)
			}
		}
	}
}

// plaintextPolicy is the policy as the library has it.
func (s *settings) plaintextPolicy() queue.PlaintextPolicy {
	switch s.policy.value {
	case "allow":
		return queue.Allow
	case "reject":
		return queue.Reject
	}
	return queue.AllowWithAlert
}

// parseMaxAge reads the maximum age; queue.QueueRetention stands for the
// broker's.
func parseMaxAge(s setting) (time.Duration, error) {
	if s.value == "retention" {
		return queue.QueueRetention, nil
	}
	d, err := parseDuration(s.value)
	if err != nil || d <= 0 {
		return 0, usagef("max-age (%s): %q is neither a duration such as 24h or 14d nor \"retention\"", s.source, display.Safe(s.value))
	}
	return d, nil
}

// parseDuration is time.ParseDuration with days: 90d, 1d12h.
func parseDuration(text string) (time.Duration, error) {
	days, rest, ok := strings.Cut(text, "d")
	if !ok {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 90d, 12h or 30s", display.Safe(text))
	}
	d := time.Duration(n) * 24 * time.Hour //nolint:gosec // G115: at most 65535
	if rest == "" {
		return d, nil
	}
	more, err := time.ParseDuration(rest)
	return d + more, err
}

// envName is the environment variable of a flag.
func envName(flag string) string {
	return "QRT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// configPath is the configuration file to read, and whether it must be there.
func configPath(flags *pflag.FlagSet) (path string, needed bool) {
	if f := flags.Lookup("config"); f != nil && f.Changed {
		return f.Value.String(), true
	}
	if v := os.Getenv("QRT_CONFIG"); v != "" {
		return v, true
	}
	dir, err := configDir()
	if err != nil {
		return "", false
	}
	return filepath.Join(dir, "config.toml"), false
}

// readConfig reads a configuration file; it reports whether there was one.
func readConfig(path string, into *configFile, needed bool) (bool, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !needed {
		return false, nil
	}
	if err != nil {
		return false, usagef("configuration file: %w", err)
	}
	d := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return false, usagef("configuration file %s: %s", path, configFault(err))
	}
	return true, nil
}

// configFault says where a configuration file is wrong, and shows no value.
func configFault(err error) string {
	var strict *toml.StrictMissingError
	var decode *toml.DecodeError
	switch {
	case errors.As(err, &strict):
		row, _ := strict.Errors[0].Position()
		return fmt.Sprintf("line %d: unknown name %q", row, strings.Join(strict.Errors[0].Key(), "."))
	case errors.As(err, &decode):
		row, column := decode.Position()
		return fmt.Sprintf("line %d, column %d: not as TOML has it, or not the kind of value that belongs there", row, column)
	}
	return "it does not parse"
}

// configDir is the folder of qrt's configuration and key file.
func configDir() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "qrt"), nil
}

// dataDir is the folder of the default queue (XDG Base Directory Specification;
// elsewhere what the system has for it).
func dataDir() (string, error) {
	switch runtime.GOOS {
	case "windows":
		dir, err := os.UserCacheDir() // %LocalAppData%
		return filepath.Join(dir, "qrt"), err
	case "darwin", "ios", "plan9":
		return configDir()
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "qrt"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".local", "share", "qrt"), nil
}

// defaultKeyFile is the key file of this user.
func defaultKeyFile() (string, error) {
	dir, err := configDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "keys.json"), nil
}

// shown is a setting's value as a person may see it.
func (s setting) shown() string {
	if s.value == "" {
		return ""
	}
	return display.Safe(connect.Redact(s.value))
}
