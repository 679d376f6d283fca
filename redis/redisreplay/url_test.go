package redisreplay

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
)

func TestURL(t *testing.T) {
	t.Setenv("QRT_TEST_PASSWORD", "hunter2")
	for _, c := range []struct {
		url, want string // part of the error, empty for none
		hosts     string
		check     func(*target, Options) bool
	}{
		{url: "redis://localhost", hosts: "localhost:6379"},
		{url: "redis://127.0.0.1:1/3", hosts: "127.0.0.1:1", check: func(t *target, _ Options) bool { return t.base.DB == 3 && t.base.TLSConfig == nil }},
		{url: "redis://[::1]:7/", hosts: "[::1]:7"},
		{url: "rediss://me@far.example/?password_env=QRT_TEST_PASSWORD", hosts: "far.example:6379", check: func(t *target, _ Options) bool {
			return t.base.Username == "me" && t.base.Password == "hunter2" && t.base.TLSConfig != nil
		}},
		{url: "rediss://a,b,c:7000/?cluster=true", hosts: "a:7000 b:7000 c:7000", check: func(t *target, _ Options) bool { return t.cluster }},
		{url: "rediss://a,b/?sentinel=main&sentinel_user=s&sentinel_password_env=QRT_TEST_PASSWORD", hosts: "a:26379 b:26379", check: func(t *target, _ Options) bool {
			return t.sentinel == "main" && t.sentinelUsername == "s" && t.sentinelPassword == "hunter2"
		}},
		{url: "redis://far.example/?tls=off", hosts: "far.example:6379"},
		{url: "redis://localhost/?prefix=p&replicas=2&replica_timeout=3s&timeout=9s&fsync=everysec", hosts: "localhost:6379", check: func(_ *target, o Options) bool {
			return o.Prefix == "p" && o.Replicas == 2 && o.ReplicaTimeout == 3*time.Second && o.Timeout == 9*time.Second && o.Fsync == FsyncEverySecond
		}},
		{url: "redis://localhost/?replicas=none", hosts: "localhost:6379", check: func(_ *target, o Options) bool { return o.Replicas == NoReplicas }},
		{url: "redis://localhost/?replicas=all", hosts: "localhost:6379", check: func(_ *target, o Options) bool { return o.Replicas == 0 }},

		{url: "redis://far.example", want: "in clear"},
		{url: "redis://10.0.0.1", want: "in clear"},
		{url: "redis://localhost,far.example/?cluster=true", want: "in clear"},
		{url: "http://localhost", want: "does not parse"},
		{url: "redis:///0", want: "does not parse"},
		{url: "redis:localhost", want: "does not parse"},
		{url: "redis://localhost/x", want: "number of a database"},
		{url: "redis://localhost/-1", want: "number of a database"},
		{url: "redis://localhost/#x", want: "%23"},
		{url: "redis://localhost/?a=%zz", want: "does not parse"},
		{url: "redis://localhost/?hunter2", want: "unknown parameter"},
		{url: "redis://localhost/?replicas=0", want: "parameter replicas"},
		{url: "redis://localhost/?replicas=-1", want: "parameter replicas"},
		{url: "redis://localhost/?timeout=9", want: "parameter timeout"},
		{url: "redis://localhost/?timeout=1s&timeout=2s", want: "given once"},
		{url: "redis://localhost/?fsync=sometimes", want: "always, everysec, never"},
		{url: "redis://localhost/?password_env=QRT_TEST_NOT_SET", want: "environment variable"},
		{url: "redis://localhost/?ca=x.pem", want: "rediss://"},
		{url: "rediss://localhost/?tls=off", want: "parameter tls"},
		{url: "rediss://localhost/?ca=/does/not/exist.pem", want: "parameter ca"},
		{url: "rediss://localhost/?cert=/does/not/exist.pem", want: "cert and key"},
		{url: "redis://127.0.0.1,localhost/", want: "several hosts"},
		{url: "redis://localhost/?cluster=true&sentinel=x", want: "use one"},
		{url: "redis://localhost/1?cluster=true", want: "database 0"},
	} {
		var o Options
		got, err := parseURL(c.url, &o)
		switch {
		case c.want != "":
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v, want %q", c.url, err, c.want)
			}
		case err != nil:
			t.Errorf("%s: %v", c.url, err)
		case !slices.Equal(got.addresses, strings.Fields(c.hosts)) || c.check != nil && !c.check(got, o):
			t.Errorf("%s: %+v, %+v", c.url, got, o)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Prefix: "a{b}"}, "Prefix"},
		{Options{Prefix: strings.Repeat("a", 65)}, "Prefix"},
		{Options{Replicas: -2}, "Replicas"},
		{Options{ReplicaTimeout: time.Microsecond}, "ReplicaTimeout"},
		{Options{ReplicaTimeout: 2 * time.Second, Timeout: time.Second}, "Timeout"},
		{Options{Fsync: 3}, "Fsync"},
	} {
		if _, err := c.o.resolve(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
	o, err := Options{ReplicaTimeout: 10 * time.Second}.resolve()
	if err != nil || o.Timeout != 20*time.Second || o.Prefix != DefaultPrefix {
		t.Errorf("options %+v, %v; want a time-out of 20 s and the default prefix", o, err)
	}
}

// TestNames: a name of a stored stream or page is read as it was written, and others are
// refused.
func TestNames(t *testing.T) {
	for _, sender := range []string{"", "a", strings.Repeat("\x00\xff", 32)} {
		k := streamKey(sender)
		got, index, err := parsePage(pageField(k, 1<<47))
		if err != nil || got != k || index != 1<<47 {
			t.Errorf("%q: %+v, %d, %v", sender, got, index, err)
		}
		if got, rest, err := parseStream(streamField(k)); err != nil || got != k || rest != "" {
			t.Errorf("%q: %+v, %q, %v", sender, got, rest, err)
		}
	}
	for _, field := range []string{"", "\x01", "\xff" + strings.Repeat("a", 30), streamField(streamKey("a"))} {
		if _, _, err := parsePage(field); err == nil {
			t.Errorf("page %q is taken", field)
		}
	}
}

func streamKey(sender string) replaystate.Key {
	return replaystate.Key{Sender: sender, Stream: [16]byte{0: 1, 15: 2}}
}
