package sbqueue

import (
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/dialing"
)

// Limits and defaults (Service Bus quotas).
const (
	MaxName            = 260 // bytes of a queue's name
	DefaultMaxBytes    = 256 << 10
	MaxBytes           = 100 << 20
	DefaultLock        = time.Minute
	MaxLock            = 5 * time.Minute
	DefaultMaxDelivery = 10

	// metadataBytes is kept free beside a body of the largest size.
	metadataBytes = 16 << 10
	// messageBytes is more than the SDK's batch adds to one message.
	messageBytes = 256
	// probeBytes is up to where the link's own limit is looked for.
	probeBytes = 1 << 20
	maxBatch   = 500

	// connectTime is how long connecting in the background may take.
	connectTime = 10 * time.Second

	// How long closing may take: of a link, of a queue with all that came from
	// it, and of the connections.
	closeLink       = 5 * time.Second
	closeQueue      = 8 * time.Second
	closeConnection = 5 * time.Second
)

// Options configure a [Broker].
type Options struct {
	// Default is for the queues that Queues does not name.
	Default QueueOptions
	// Queues are the settings of queues, by name.
	Queues map[string]QueueOptions
	// Admin asks the management API for the settings of queues and for their
	// counts. Nil means that the settings are those given here, and Stats fails
	// with errors.ErrUnsupported. If the API refuses, because the credential has no
	// right to manage, the settings are those given here, too, and Stats fails with
	// driver.ErrPermission.
	Admin *admin.Client
}

// QueueOptions say how a queue was made, if the management API cannot be
// asked.
type QueueOptions struct {
	Sessions bool // the queue requires sessions
	// Lock is the queue's lock duration, up to MaxLock. The end of each lock is counted
	// by it. 0 means that it is not known: then it is taken for 1 minute, and for what
	// is left by the broker's clock if that is shorter.
	Lock          time.Duration
	MaxDeliveries int           // its maximum delivery count; 0 means 10
	Retention     time.Duration // its default time to live; 0 means unknown or for ever
	Dedup         bool          // it detects duplicates
	Partitioned   bool          // it is partitioned: a transfer then has one session, and with Dedup one message ID
	// MaxBytes is the limit of one transfer. 0 means the link's own, up to
	// 1 MiB.
	MaxBytes int
}

// Broker is a namespace.
type Broker struct {
	main *connection // of all but sessions
	// sessions has a connection of its own: the SDK closes the connection of a receiver that
	// fails, and with it all sessions.
	sessions *connection
	o        Options

	// life ends with Close, and with it what still connects.
	life context.Context
	end  context.CancelFunc

	calls sync.WaitGroup // of the SDK's that may outlast their callers
	limit rolling        // how long their callers wait
	dials dialLimiter    // of accepting sessions
	turns linkTurns      // of making links of main
	// connects counts the attempts to connect to the namespace, with those of all other
	// Brokers of the process.
	connects *dialing.Limiter

	mu     sync.Mutex // guards what follows
	closed bool       // nothing is opened any more
	over   bool       // nothing is added to calls any more
	open   map[closer]struct{}
}

type closer interface{ Close(context.Context) error }

// closing makes a closer of a function.
type closing func(context.Context) error

func (f closing) Close(ctx context.Context) error { return f(ctx) }

// minKey is how many bytes a key has at least if only approved algorithms
// run: 112 bits (NIST SP 800-131A, Section 10). Keys of namespaces have 44.
const minKey = 14

// FromConnectionString returns the Broker of a connection string. It does no I/O.
// Errors never repeat the string. Under GODEBUG=fips140=only a key of less than 14
// bytes is refused here: signing with it would panic later, in the SDK.
func FromConnectionString(connection string, o *Options) (*Broker, error) {
	if fips140.Enforced() {
		for part := range strings.SplitSeq(connection, ";") {
			name, key, _ := strings.Cut(part, "=")
			if strings.EqualFold(name, "SharedAccessKey") && len(key) < minKey {
				return nil, fmt.Errorf("sbqueue: the connection string's key has less than %d bytes, which fips140=only does not sign with: use one that Azure made", minKey)
			}
		}
	}
	b, err := newBroker(endpointOf(connection), o, func(c *azservicebus.ClientOptions) (*azservicebus.Client, error) {
		return azservicebus.NewClientFromConnectionString(connection, c)
	})
	if errors.Is(err, errClient) {
		return nil, errors.New("sbqueue: the connection string is not valid: it has the form Endpoint=sb://NAMESPACE/;SharedAccessKeyName=NAME;SharedAccessKey=KEY")
	}
	return b, err
}

// FromNamespace returns the Broker of a namespace, such as
// "example.servicebus.windows.net", with a credential of package azidentity. It
// does no I/O.
func FromNamespace(namespace string, token azcore.TokenCredential, o *Options) (*Broker, error) {
	if namespace == "" || token == nil {
		return nil, errors.New("sbqueue: a namespace and a credential are needed")
	}
	marked := &credential{TokenCredential: token}
	b, err := newBroker(namespace, o, func(c *azservicebus.ClientOptions) (*azservicebus.Client, error) {
		return azservicebus.NewClient(namespace, marked, c)
	})
	if errors.Is(err, errClient) {
		return nil, fmt.Errorf("sbqueue: namespace %q: %w", namespace, err)
	}
	return b, err
}

// errClient is about what the SDK refuses to make a client of.
var errClient = errors.New("the client is refused")

// endpointOf is the host of a connection string, and the port if it has one.
func endpointOf(connection string) string {
	for part := range strings.SplitSeq(connection, ";") {
		if name, value, _ := strings.Cut(part, "="); strings.EqualFold(name, "Endpoint") {
			return strings.TrimSuffix(strings.TrimPrefix(value, "sb://"), "/")
		}
	}
	return ""
}

func newBroker(server string, o *Options, connect func(*azservicebus.ClientOptions) (*azservicebus.Client, error)) (*Broker, error) {
	b := &Broker{open: make(map[closer]struct{}), connects: dialing.To("servicebus " + server)}
	b.life, b.end = context.WithCancel(context.Background())
	if o != nil {
		b.o = *o
	}
	create := func() (*azservicebus.Client, error) {
		return connect(&azservicebus.ClientOptions{RetryOptions: azservicebus.RetryOptions{MaxRetries: -1}}) // see pauses
	}
	var err error
	if b.main, err = newConnection(b, create); err != nil {
		return nil, fmt.Errorf("%w: %w", errClient, err)
	}
	if b.sessions, err = newConnection(b, create); err != nil {
		return nil, fmt.Errorf("%w: %w", errClient, err)
	}
	for name, q := range b.o.Queues {
		if err := q.check(); err != nil {
			return nil, fmt.Errorf("sbqueue: queue %q: %w", name, err)
		}
	}
	if err := b.o.Default.check(); err != nil {
		return nil, fmt.Errorf("sbqueue: %w", err)
	}
	return b, nil
}

func (o *QueueOptions) check() error {
	switch {
	case o.Lock < 0 || o.Lock > MaxLock:
		return fmt.Errorf("a lock of %s: it must be at most %s", o.Lock, MaxLock)
	case o.MaxDeliveries < 0 || o.Retention < 0 || o.MaxBytes < 0:
		return errors.New("QueueOptions: no value may be negative")
	case o.MaxBytes > MaxBytes:
		return fmt.Errorf("MaxBytes of %d: Service Bus takes at most %d", o.MaxBytes, MaxBytes)
	case o.MaxBytes > 0 && o.MaxBytes < 2*metadataBytes:
		return fmt.Errorf("MaxBytes of %d: it must be at least %d", o.MaxBytes, 2*metadataBytes)
	}
	return nil
}

// Open opens a queue, and finds out whether it exists and how large its messages
// may be.
func (b *Broker) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	b.mu.Lock()
	closed := b.closed
	b.mu.Unlock()
	if closed {
		return nil, errClosed()
	}
	settings, ok := b.o.Queues[name]
	if !ok {
		settings = b.o.Default
	}
	if b.o.Admin != nil {
		// A sender or receiver needs no right to manage, and should have none: then
		// the settings are as given.
		if err := b.ask(ctx, name, &settings); err != nil && driver.KindOf(err) != driver.Permission {
			return nil, err
		}
	}
	if settings.MaxDeliveries == 0 {
		settings.MaxDeliveries = DefaultMaxDelivery
	}
	if o != nil {
		if lock := newLockTime(settings.Lock); o.Lock != 0 && o.Lock != lock.duration {
			return nil, fmt.Errorf("a lock of %s: this queue's is %s, and it is set when the queue is made: %w", o.Lock, lock.duration, errors.ErrUnsupported)
		}
	}
	q, err := newQueue(ctx, b, name, settings)
	if err != nil {
		return nil, err
	}
	if err := b.keep(q); err != nil {
		_ = q.Close(ctx)
		return nil, err
	}
	return q, nil
}

// ask takes a queue's settings from the management API.
func (b *Broker) ask(ctx context.Context, name string, s *QueueOptions) error {
	r, err := administer(ctx, func(ctx context.Context) (*admin.GetQueueResponse, error) {
		return b.o.Admin.GetQueue(ctx, name, nil)
	})
	if err != nil {
		return err
	}
	if r == nil {
		return driver.Errorf(driver.NotFound, "the namespace has no queue %q", name)
	}
	if r.RequiresSession != nil {
		s.Sessions = *r.RequiresSession
	}
	if r.MaxDeliveryCount != nil {
		s.MaxDeliveries = int(*r.MaxDeliveryCount)
	}
	if r.RequiresDuplicateDetection != nil {
		s.Dedup = *r.RequiresDuplicateDetection
	}
	if r.EnablePartitioning != nil {
		s.Partitioned = *r.EnablePartitioning
	}
	if d, ok := isoDuration(r.LockDuration); ok && d > 0 {
		s.Lock = min(max(d, minLock), MaxLock)
	}
	s.Retention, err = retentionOf(r.DefaultMessageTimeToLive)
	return err
}

func (b *Broker) keep(c closer) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errClosed()
	}
	b.open[c] = struct{}{}
	return nil
}

func (b *Broker) forget(c closer) {
	b.mu.Lock()
	delete(b.open, c)
	b.mu.Unlock()
}

// Close closes every queue and session, side by side, and the connections. It
// takes seconds if the broker does not answer.
func (b *Broker) Close(ctx context.Context) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	open := make([]closer, 0, len(b.open))
	for c := range b.open {
		open = append(open, c)
	}
	b.mu.Unlock()
	_ = b.closeAll(ctx, open, closeQueue) // the connection goes down with them in any case
	b.end()
	b.mu.Lock()
	b.over = true
	b.mu.Unlock()
	calls := closing(func(context.Context) error {
		b.calls.Wait()
		return nil
	})
	return classify(ctx, b.closeAll(ctx, []closer{closing(b.main.close), closing(b.sessions.close), calls}, closeConnection))
}

// checkName refuses what Service Bus refuses: its error would come late and say
// less.
func checkName(name string) error {
	if name == "" || len(name) > MaxName || !utf8.ValidString(name) {
		return driver.Errorf(driver.InvalidName, "a queue's name has 1 to %d bytes of UTF-8", MaxName)
	}
	for _, r := range name {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("._-/", r):
		default:
			return driver.Errorf(driver.InvalidName, "a queue's name has letters, digits, and . _ - /")
		}
	}
	if strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") || strings.Contains(name, "//") {
		return driver.Errorf(driver.InvalidName, "a queue's name neither begins nor ends with a slash, nor has two in a row")
	}
	return nil
}

// forever is the limit from which on a duration of the management API means "never": the
// API has no other word for that than the longest duration that .NET knows.
const forever = 100 * 365 * 24 * time.Hour

// retentionOf reads a default time to live; 0 means for ever or unknown. It decides how
// old a message may be under queue.Strict, so it refuses a value that no queue can have.
// The minimum is a second (Service Bus quotas).
func retentionOf(s *string) (time.Duration, error) {
	if s == nil {
		return 0, nil
	}
	d, ok := isoDuration(s)
	switch {
	case !ok || d <= 0:
		return 0, driver.Errorf(driver.Other, "the queue's default time to live is not a duration above zero")
	case d >= forever:
		return 0, nil
	}
	return max(d, time.Second), nil
}

// isoDuration parses the durations of the management API (ISO 8601, Section
// 4.4.3.2, of days and smaller units), up to forever.
func isoDuration(s *string) (d time.Duration, ok bool) {
	if s == nil {
		return 0, false
	}
	sleep, ok := strings.CutPrefix(*s, "P")
	if !ok || sleep == "" {
		return 0, false
	}
	days, clock, _ := strings.Cut(sleep, "T")
	if days != "" {
		n, err := strconv.ParseUint(strings.TrimSuffix(days, "D"), 10, 32)
		if err != nil || !strings.HasSuffix(days, "D") {
			return 0, false
		}
		if n >= uint64(forever/(24*time.Hour)) {
			return forever, true
		}
		d = time.Duration(n) * 24 * time.Hour //nolint:gosec // G115: below forever
	}
	if clock != "" {
		more, err := time.ParseDuration(strings.ToLower(clock))
		if err != nil || more < 0 {
			return 0, false
		}
		d = min(d+more, forever)
	}
	return d, true
}
