package connect_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/redis/redisreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/redispeer"
)

// TestRedisReplayStore: every parameter of the URL arrives, bounds as well as those of the
// store.
func TestRedisReplayStore(t *testing.T) {
	server := redispeer.New(t, nil)
	base := server.URL() + "?fsync=never"
	if _, err := connect.OpenReplayStore(t.Context(), base+"&must_exist=true"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("must_exist without a store: %v, want fs.ErrNotExist", err)
	}
	const bounds = "&records=1001&streams=1002&intervals=3003&group_records=901&group_streams=902&group_intervals=2903" +
		"&sender_records=801&sender_streams=802&sender_intervals=2803&recent=77&keep_stream=400h&parked_ttl=300h"
	want := replay.Bounds{
		Store:  replay.Quota{Records: 1001, Streams: 1002, Intervals: 3003},
		Group:  replay.Quota{Records: 901, Streams: 902, Intervals: 2903},
		Sender: replay.Quota{Records: 801, Streams: 802, Intervals: 2803},
		Recent: 77, KeepStream: 400 * time.Hour, ParkedTTL: 300 * time.Hour,
	}
	var first replay.Stats
	for i, query := range []string{bounds, bounds + "&must_exist=true", bounds + "&prefix=other&replicas=none&replica_timeout=1s&timeout=3s"} {
		s, err := connect.OpenReplayStore(t.Context(), base+query)
		if err != nil {
			t.Fatal(err)
		}
		stats, err := s.Stats(t.Context())
		if err != nil || stats.Capacity != want || !stats.Shared || stats.Durable {
			t.Errorf("%s: %+v, %v", query, stats, err)
		}
		if i == 0 {
			first = stats
		}
		if same := stats.Stamp.ID == first.Stamp.ID; same != (i < 2) {
			t.Errorf("%s: the same store: %v", query, same)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []struct{ url, want string }{
		{server.URL(), "appendonly yes"},
		{base + "&records=-1", "records is below zero"},
		{base + "&keep_stream=15d", "keep_stream is not a duration"},
		{base + "&record=5", "unknown parameter"},
		{strings.Replace(base, "redis://", "redis://me:hunter2@", 1), "password_env"},
		{base + "&hunter2%3D=x", "other characters"},
		{"redis://far.example/", "in clear"},
	} {
		s, err := connect.OpenReplayStore(t.Context(), c.url)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", c.url, err, c.want)
		}
		if err == nil {
			_ = s.Close(t.Context())
		}
	}
	if _, err := connect.OpenReplayStore(t.Context(), server.URL()); !errors.Is(err, redisreplay.ErrNotDurable) {
		t.Errorf("a server that syncs nothing: %v, want ErrNotDurable", err)
	}
	if got, want := connect.Redact("rediss://me:hunter2@far.example:6379/0?password_env=REDIS_PASSWORD&replicas=2&ca=/etc/ca.pem"),
		"rediss://xxxxx@far.example:6379/0?ca=xxxxx&password_env=REDIS_PASSWORD&replicas=2"; got != want {
		t.Errorf("Redact: %s, want %s", got, want)
	}
}
