package intake

import (
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// TestJudge has each period's last instant and the one after it.
func TestJudge(t *testing.T) {
	const (
		age  = 5 * time.Minute
		skew = 30 * time.Second
	)
	sealed := time.UnixMilli(1_800_000_000_000)
	at := func(d time.Duration) time.Time { return sealed.Add(d) }
	plain := Freshness{MaxAge: age, Skew: skew}
	fresh := func(d time.Duration) Judgement { return Judgement{FreshUntil: at(d)} }
	early := func(wait time.Duration) Judgement {
		return Judgement{Reason: driver.ReasonMessageFromFuture, Wait: wait}
	}
	old := Judgement{Reason: driver.ReasonMessageExpired, MaxAge: age}
	expired := Judgement{Reason: driver.ReasonMessageExpired}
	scheduled := Times{EncryptedAt: sealed, NotBefore: at(time.Hour)}
	limited := Times{EncryptedAt: sealed, ExpiresAt: at(time.Minute)}
	resealed := Times{EncryptedAt: sealed, ResealedAt: at(time.Hour)}
	ahead := Times{EncryptedAt: sealed, NotBefore: at(2 * time.Hour), ResealedAt: at(time.Hour)}
	for _, c := range []struct {
		name string
		f    Freshness
		t    Times
		now  time.Duration
		want Judgement
	}{
		{"new", plain, Times{EncryptedAt: sealed}, 0, fresh(age + skew)},
		{"as old as may be", plain, Times{EncryptedAt: sealed}, age + skew, fresh(age + skew)},
		{"too old", plain, Times{EncryptedAt: sealed}, age + skew + 1, old},
		{"too old, but the store judges", Freshness{MaxAge: age, Skew: skew, Store: true}, Times{EncryptedAt: sealed}, time.Hour, fresh(age + skew)},
		{"too old, unless age is skipped", Freshness{MaxAge: age, Skew: skew, Skip: true}, Times{EncryptedAt: sealed}, time.Hour, Judgement{}},
		{"as far ahead as clocks may differ", plain, Times{EncryptedAt: sealed}, -skew, fresh(age + skew)},
		{"from the future", plain, Times{EncryptedAt: sealed}, -skew - 1, early(1)},
		{"from the future, age is skipped", Freshness{Skew: skew, Skip: true}, Times{EncryptedAt: sealed}, -time.Hour, Judgement{}},
		{"due", plain, scheduled, time.Hour - skew, fresh(time.Hour + age + skew)},
		{"not due", plain, scheduled, time.Hour - skew - 1, early(skew + 1)},
		{"not due, age is skipped", Freshness{Skew: skew, Skip: true}, scheduled, 0, early(time.Hour)},
		{"due long ago", plain, scheduled, time.Hour + age + skew + 1, old},
		{"not due before its sealing", plain, Times{EncryptedAt: sealed, NotBefore: at(-time.Hour)}, age + skew, fresh(age + skew)},
		{"resealed", plain, resealed, time.Hour + age + skew, fresh(time.Hour + age + skew)},
		{"resealed long ago", plain, resealed, time.Hour + age + skew + 1, old},
		{"resealed as far ahead as clocks may differ", plain, resealed, time.Hour - skew, fresh(time.Hour + age + skew)},
		{"resealed in the future", plain, resealed, time.Hour - skew - 1, early(1)},
		{"resealed before it was due", plain, ahead, 2*time.Hour + age + skew, fresh(2*time.Hour + age + skew)},
		{"at its expiry", plain, limited, time.Minute + skew, fresh(age + skew)},
		{"past its expiry", plain, limited, time.Minute + skew + 1, expired},
		{"past its expiry, age is skipped", Freshness{Skew: skew, Skip: true}, limited, time.Hour, expired},
		{"past its expiry, the store judges age alone", Freshness{MaxAge: age, Skew: skew, Store: true}, limited, time.Hour, expired},
	} {
		if got := c.f.Judge(c.t, at(c.now)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
