package router

import (
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/examples/internal/service"
)

// Config is the configuration of the router, from its environment.
type Config struct {
	service.Config

	// Listen is the address for GitHub. TLS ends before it, at a proxy.
	Listen string `env:"LISTEN" envDefault:":8080"`

	// Secret is the webhook's, as GitHub has it. Previous is accepted beside it,
	// so that it can be changed without losing a webhook.
	Secret   service.Secret `env:"WEBHOOK_SECRET,required,notEmpty,unset"`
	Previous service.Secret `env:"WEBHOOK_SECRET_PREVIOUS,unset"`

	// Encrypt is false only in the first two phases of a migration.
	Encrypt bool `env:"ENCRYPT" envDefault:"true"`

	// The three queues, and for each a URL of the keys that seal for it: a bot
	// that had another's key could read and forge what is the other's.
	PullRequestQueue string `env:"TASK_TACTICIAN_QUEUE" envDefault:"task-tactician"`
	PullRequestKeys  string `env:"TASK_TACTICIAN_KEYS_URL"`
	IssueQueue       string `env:"MERGE_WARDEN_QUEUE" envDefault:"merge-warden"`
	IssueKeys        string `env:"MERGE_WARDEN_KEYS_URL"`
	PushQueue        string `env:"SPEC_SENTINEL_QUEUE" envDefault:"spec-sentinel"`
	PushKeys         string `env:"SPEC_SENTINEL_KEYS_URL"`

	// Database is a PostgreSQL database in which webhooks are noted and wait until the
	// broker has them: postgres://USER@HOST/DATABASE. Without it a webhook is taken when the
	// broker has confirmed it. The URL has the parameters of package outbox that are libpq's.
	Database string `env:"DATABASE_URL"`

	// MaxBody bounds a webhook in bytes. GitHub's own limit is 25 MB, that of
	// most brokers lies below 1 MiB.
	MaxBody int64 `env:"MAX_BODY" envDefault:"1000000"`

	// MaxInFlight bounds the requests that are worked on at once, and with
	// MaxBody the memory that they can take. A request counts while it arrives:
	// a proxy that passes it on when it is whole keeps slow ones from here.
	MaxInFlight int `env:"MAX_IN_FLIGHT" envDefault:"64"`

	// ReadTimeout is how long a request may take to arrive, SendTimeout how long
	// the broker may take to confirm it. GitHub gives up after 10 s in all.
	ReadTimeout time.Duration `env:"READ_TIMEOUT" envDefault:"8s"`
	SendTimeout time.Duration `env:"SEND_TIMEOUT" envDefault:"8s"`

	// StopDelay is how long webhooks are still taken when the program is told to
	// end, while /readyz fails: as long as it takes until no new ones are sent
	// here. DrainTimeout begins after it.
	StopDelay time.Duration `env:"STOP_DELAY" envDefault:"0s"`

	// TrustTrace continues the trace of a traceparent that comes with a request. Set
	// it only if your own proxy sets that header: otherwise any caller chooses what
	// is traced.
	TrustTrace bool `env:"TRUST_TRACEPARENT" envDefault:"false"`
}

// target is one queue with the URL of its keys.
type target struct {
	variable, queue, keys string
}

func (c *Config) targets() [3]target {
	return [...]target{
		pullRequests: {"TASK_TACTICIAN", c.PullRequestQueue, c.PullRequestKeys},
		issues:       {"MERGE_WARDEN", c.IssueQueue, c.IssueKeys},
		pushes:       {"SPEC_SENTINEL", c.PushQueue, c.PushKeys},
	}
}

// Validate says what is wrong with c, each with the name of its variable.
func (c *Config) Validate() error {
	errs := []error{
		c.Config.Validate(),
		service.Positive("READ_TIMEOUT", c.ReadTimeout),
		service.Positive("SEND_TIMEOUT", c.SendTimeout),
	}
	if c.MaxBody < 1 {
		errs = append(errs, errors.New("MAX_BODY must be at least 1"))
	}
	if c.Database != "" && !c.Encrypt {
		errs = append(errs, errors.New("DATABASE_URL needs ENCRYPT=true: the database keeps sealed webhooks only"))
	}
	if c.StopDelay < 0 {
		errs = append(errs, errors.New("STOP_DELAY is negative"))
	}
	if c.MaxInFlight < 1 {
		errs = append(errs, errors.New("MAX_IN_FLIGHT must be at least 1"))
	}
	queues, keys := map[string]string{}, map[string]string{}
	for _, t := range c.targets() {
		if other := queues[t.queue]; other != "" {
			errs = append(errs, fmt.Errorf("%s_QUEUE and %s_QUEUE are the same queue", other, t.variable))
		}
		queues[t.queue] = t.variable
		switch {
		case !c.Encrypt:
		case t.keys == "":
			errs = append(errs, fmt.Errorf("%s_KEYS_URL is not set: it is a URL such as file:///etc/router/%s.json, and ENCRYPT=false would do without", t.variable, t.queue))
		case keys[t.keys] != "":
			errs = append(errs, fmt.Errorf("%s_KEYS_URL and %s_KEYS_URL are the same keys: a bot could read what is another's", keys[t.keys], t.variable))
		}
		keys[t.keys] = t.variable
	}
	return errors.Join(errs...)
}
