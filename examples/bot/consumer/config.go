package consumer

import (
	"errors"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/examples/internal/service"
)

// none is what KEYS_URL and NONCES_URL say if there are none on purpose.
const none = "none"

// Config is the configuration of a bot, from its environment.
type Config struct {
	service.Config

	// Queue is the one that the bot receives from.
	Queue string `env:"QUEUE,required,notEmpty"`

	// Keys is the URL of the keys of that queue, and of no other. "none": the bot
	// opens nothing, as in the first phases of a migration.
	Keys string `env:"KEYS_URL,required,notEmpty"`

	// Senders are the IDs of the sender keys whose messages are accepted, separated
	// by commas. Empty: all, and what a holder of the master key seals.
	Senders []string `env:"SENDERS"`

	// ReplayStore is the URL of the replay store, outside of the broker's reach and
	// shared by all processes of this bot. With "none" an attacker who controls the
	// broker can have messages handled twice.
	ReplayStore string `env:"NONCES_URL,required,notEmpty"`

	// Plaintext is what becomes of messages that were not sealed: reject,
	// allow_with_alert, or allow.
	Plaintext service.Plaintext `env:"PLAINTEXT" envDefault:"reject"`

	// MaxAge is how old a message may be. 0: as old as the broker keeps it,
	// if it tells that.
	MaxAge time.Duration `env:"MAX_MESSAGE_AGE" envDefault:"0s"`

	// Concurrency is how many sessions are worked on at once.
	Concurrency int `env:"CONCURRENCY" envDefault:"16"`

	// SessionIdle is how long a session that is empty is kept for what comes
	// next in it. It costs one of Concurrency meanwhile.
	SessionIdle time.Duration `env:"SESSION_IDLE" envDefault:"200ms"`

	// MaxProcessing is how long one webhook may take.
	MaxProcessing time.Duration `env:"MAX_PROCESSING" envDefault:"1m"`
}

// Validate says what is wrong with c, each with the name of its variable.
func (c *Config) Validate() error {
	errs := []error{
		c.Config.Validate(),
		service.Positive("SESSION_IDLE", c.SessionIdle),
		service.Positive("MAX_PROCESSING", c.MaxProcessing),
	}
	if c.Concurrency < 1 {
		errs = append(errs, errors.New("CONCURRENCY must be at least 1"))
	}
	if c.MaxAge < 0 {
		errs = append(errs, errors.New("MAX_MESSAGE_AGE is negative"))
	}
	if c.Keys == none && c.reject() {
		errs = append(errs, errors.New("KEYS_URL is none, and PLAINTEXT is reject: the bot could receive nothing"))
	}
	return errors.Join(errs...)
}

func (c *Config) reject() bool { return queue.PlaintextPolicy(c.Plaintext) == queue.Reject }

// crypto is the configuration of the receiver.
func (c *Config) crypto() queue.CryptoConfig {
	age := c.MaxAge
	if age == 0 {
		age = queue.QueueRetention
	}
	return queue.CryptoConfig{
		Enabled:         c.Keys != none,
		PlaintextPolicy: queue.PlaintextPolicy(c.Plaintext),
		MaxMessageAge:   age,
		TrackReplays:    c.ReplayStore != none,
	}
}

// senders are those that may send, nil for all: an empty list would accept no sender.
func (c *Config) senders() []string {
	if len(c.Senders) == 0 {
		return nil
	}
	return c.Senders
}

// url is a URL, or "" for none.
func url(text string) string {
	if text == none {
		return ""
	}
	return text
}
