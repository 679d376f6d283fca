package cli_test

import (
	"strings"
	"testing"

	"github.com/queue-runtime/queue/testbed/redispeer"
)

// TestRedisStore: nonces stats and doctor on a replay store in Redis.
func TestRedisStore(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "APPDATA", "LOCALAPPDATA"} {
		t.Setenv(name, home)
	}
	settings := map[string]string{"appendonly": "yes", "appendfsync": "always"}
	server := redispeer.New(t, settings)
	url := server.URL()
	if code, _, errs := run(t, url, "nonces", "stats"); code != 3 || !strings.Contains(errs, "there is no replay store") {
		t.Errorf("no store: exit %d, %s", code, errs)
	}
	if code, out, errs := run(t, url, "doctor"); !strings.Contains(out, "the replay store answers, and is not the broker's") {
		t.Errorf("doctor: exit %d, %s%s", code, out, errs)
	}
	if code, out, errs := run(t, url, "nonces", "stats"); code != 0 || !strings.Contains(out, "shared\n") {
		t.Errorf("stats: exit %d, %s%s", code, out, errs)
	}
	if code, out, errs := run(t, url+"?fsync=everysec", "nonces", "stats"); code != 0 || !strings.Contains(out, "may forget when its machine crashes") {
		t.Errorf("stats with fsync=everysec: exit %d, %s%s", code, out, errs)
	}
	lost := "000102030405060708090a0b0c0d0e0f:17"
	if code, out, errs := run(t, url, "nonces", "accept-loss", lost, "--yes"); code != 0 || !strings.Contains(out, "Loss of "+lost+" accepted") {
		t.Errorf("accept-loss: exit %d, %s%s", code, out, errs)
	}
	if code, out, errs := run(t, url, "nonces", "stats"); code != 0 || !strings.Contains(out+errs, "Loss of "+lost+" accepted") {
		t.Errorf("stats: exit %d, %s%s", code, out, errs)
	}
	if _, err := server.Do(t.Context(), "CONFIG", "SET", "maxmemory-policy", "allkeys-lru"); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := run(t, url, "doctor"); code == 0 || !strings.Contains(out+errs, "set maxmemory-policy noeviction") {
		t.Errorf("doctor on a server that evicts: exit %d, %s%s", code, out, errs)
	}
	if _, err := server.Do(t.Context(), "CONFIG", "SET", "maxmemory-policy", "noeviction"); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Do(t.Context(), "CONFIG", "SET", "appendfsync", "everysec"); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := run(t, url, "doctor"); code == 0 || !strings.Contains(out+errs, "set appendfsync always") {
		t.Errorf("doctor on a server that syncs late: exit %d, %s%s", code, out, errs)
	}
}
