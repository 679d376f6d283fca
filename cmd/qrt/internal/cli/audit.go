package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// auditReport is the output of keys audit --json.
type auditReport struct {
	Queues []auditedQueue `json:"queues"`
	Keys   []auditedKey   `json:"keys"`
	// Complete: every queue could be read, dead letters included.
	Complete bool `json:"complete"`
}

// auditedQueue counts the messages of one queue by key.
type auditedQueue struct {
	Queue   string          `json:"queue"`
	Waiting map[keys.ID]int `json:"waiting"` // sealed messages by key; also those that are held or scheduled
	Dead    map[keys.ID]int `json:"dead"`
	Plain   int             `json:"plain"`   // messages that are not sealed, dead ones included
	Invalid int             `json:"invalid"` // that begin like sealed ones and do not parse
	// OtherKeys counts messages that name still other keys, none of which is known:
	// the broker can make up any number of them.
	OtherKeys int `json:"other_keys"`
	// Unreadable says why a part could not be counted.
	Unreadable string `json:"unreadable,omitempty"`
}

// maxStrangers is how many unknown keys are counted separately in one part of a queue.
const maxStrangers = 1000

// auditedKey is one key over all queues.
type auditedKey struct {
	ID      keys.ID `json:"id"`
	Current bool    `json:"current"`
	Known   bool    `json:"known"` // among --keys, or the keys of a queue
	// Sender is set if what is known under the ID is only the sender key of that
	// sender, which opens no message of another.
	Sender  string `json:"sender,omitempty"`
	Waiting int    `json:"waiting"`
	Dead    int    `json:"dead"`
	// Retirable: it is known, not current, and nothing that could be counted
	// needs it.
	Retirable bool `json:"retirable"`
}

func (a *app) keysAuditCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "audit [QUEUE...]",
		Short: "Count the messages that need each key",
		Long: `Audit counts waiting messages and dead letters by the key that they name, so that no
key is retired that is still in use. It opens none of them: the broker can have
changed the key ID in a message.

States of sessions are not counted: brokers do not list them. A state is sealed
anew when its session is read under a key that is no longer current; keep the old
key until every session was.

The exit code is 1 if messages name a key that is not among --keys.`,
		Example: example(`
			qrt keys audit task-tactician
			qrt keys audit --json | jq '.keys[] | select(.retirable) | .id'`),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.keysAudit(cmd.Context(), args)
		},
	}
}

func (a *app) keysAudit(ctx context.Context, given []string) error {
	r, err := a.audit(ctx, given)
	if err != nil {
		return err
	}
	a.print(r, func(s *display.Screen) { r.show(s) })
	for _, k := range r.Keys {
		if !k.Known { // if there are OtherKeys there are such
			return errReported
		}
	}
	return nil
}

// audit counts over queues and their dead letters.
func (a *app) audit(ctx context.Context, given []string) (*auditReport, error) {
	r := &auditReport{Queues: []auditedQueue{}, Keys: []auditedKey{}, Complete: true}
	queues := given
	if len(queues) == 0 {
		queues = a.settings.queueNames()
	}
	err := a.with(ctx, access{queues: queues, looks: true}, func(c *connection) error {
		names, err := c.names(ctx, given)
		if err != nil {
			return err
		}
		known, err := c.knownKeys(ctx, names)
		if err != nil {
			return err
		}
		for _, name := range names {
			q, err := c.auditQueue(ctx, name, known)
			if err != nil {
				return err
			}
			r.Queues = append(r.Queues, *q)
			if q.Unreadable != "" {
				r.Complete = false
			}
		}
		r.sum(known)
		return nil
	})
	return r, err
}

// knownKey is what is known of a key.
type knownKey struct {
	current bool   // for a queue
	sender  string // of a sender key, unless the master key is known as well
}

// knownKeys are the keys of queues.
func (c *connection) knownKeys(ctx context.Context, names []string) (map[keys.ID]knownKey, error) {
	known := make(map[keys.ID]knownKey)
	add := func(p keys.Provider) error {
		list, err := listKeys(ctx, p)
		if err != nil {
			return err
		}
		for _, k := range list.Keys {
			was, ok := known[k.ID]
			now := knownKey{was.current || k.Current, k.Sender}
			if ok && was.sender == "" {
				now.sender = ""
			}
			known[k.ID] = now
		}
		return nil
	}
	if c.keys != nil {
		if err := add(c.keys); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		if own := c.ofQueues[name]; own != nil {
			if err := add(own); err != nil {
				return nil, err
			}
		}
	}
	return known, nil
}

// auditQueue counts over one queue.
func (c *connection) auditQueue(ctx context.Context, name string, known map[keys.ID]knownKey) (r *auditedQueue, err error) {
	r = &auditedQueue{Queue: name, Waiting: make(map[keys.ID]int), Dead: make(map[keys.ID]int)}
	q, err := c.broker.Open(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, q.Close(ctx)) }()
	var unreadable []string
	if err := r.count(ctx, q, known, r.Waiting); err != nil {
		if !unsupported(err) {
			return nil, err
		}
		unreadable = append(unreadable, "waiting messages")
	}
	dead, err := q.DeadLetters(ctx)
	if err == nil {
		defer func() { err = errors.Join(err, dead.Close(ctx)) }()
		err = r.count(ctx, dead, known, r.Dead)
	}
	switch {
	case errors.Is(err, driver.ErrNotFound):
		err = nil // there are none
	case unsupported(err):
		unreadable = append(unreadable, "dead letters")
		err = nil
	}
	if len(unreadable) > 0 {
		r.Unreadable = strings.Join(unreadable, " and ") + ": this broker cannot show them"
	}
	return r, err
}

func (r *auditedQueue) count(ctx context.Context, q driver.Queue, known map[keys.ID]knownKey, into map[keys.ID]int) error {
	strangers := 0
	for d, err := range peekAll(ctx, q) {
		if err != nil {
			return err
		}
		m, err := envelope.Parse(d.Body)
		switch {
		case err == nil:
			id := keys.ID(m.KeyID)
			_, ours := known[id]
			if _, seen := into[id]; !seen && !ours {
				if strangers == maxStrangers {
					r.OtherKeys++
					continue
				}
				strangers++
			}
			into[id]++
		case envelope.IsSealed(d.Body):
			r.Invalid++
		default:
			r.Plain++
		}
	}
	return nil
}

// sum adds the queues up by key.
func (r *auditReport) sum(known map[keys.ID]knownKey) {
	by := make(map[keys.ID]*auditedKey)
	key := func(id keys.ID) *auditedKey {
		k := by[id]
		if k == nil {
			of, ok := known[id]
			k = &auditedKey{ID: id, Current: of.current, Known: ok, Sender: of.sender}
			by[id] = k
		}
		return k
	}
	for id := range known {
		key(id)
	}
	for _, q := range r.Queues {
		for id, n := range q.Waiting {
			key(id).Waiting += n
		}
		for id, n := range q.Dead {
			key(id).Dead += n
		}
	}
	for _, k := range by {
		k.Retirable = k.Known && !k.Current && k.Waiting+k.Dead == 0 && r.Complete
		r.Keys = append(r.Keys, *k)
	}
	slices.SortFunc(r.Keys, func(a, b auditedKey) int { return compareText(a.ID, b.ID) })
}

func compareText[S ~string](a, b S) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (r *auditReport) show(s *display.Screen) {
	rows := s.List(display.Columns("key", ">waiting", ">dead letters", ""))
	for _, k := range r.Keys {
		state := "in use"
		switch {
		case !k.Known:
			state = s.Bad("not among the keys: these messages cannot be opened")
		case k.Current:
			state = s.Good("current")
		case k.Retirable:
			state = s.Warn("nothing needs it: qrt keys retire " + display.Safe(string(k.ID)))
		}
		if k.Sender != "" {
			state += "; sender key of " + display.Safe(k.Sender)
		}
		rows.Add([]string{s.Name(display.Safe(string(k.ID))), display.Count(k.Waiting), display.Count(k.Dead), state})
	}
	rows.End()
	names := make([]string, 0, len(r.Queues))
	for _, q := range r.Queues {
		names = append(names, display.Safe(q.Queue))
		if q.Unreadable != "" {
			s.Printf("  %s %s: %s\n", s.Warn("!"), display.Safe(q.Queue), q.Unreadable)
		}
		if q.Plain > 0 {
			s.Printf("  %s %s: %s in plaintext\n", s.Warn("!"), display.Safe(q.Queue), number(q.Plain, "", "message"))
		}
		if q.OtherKeys > 0 {
			s.Printf("  %s %s: %s of still other keys, which are not among the keys either\n", s.Bad("!"), display.Safe(q.Queue), number(q.OtherKeys, "", "message"))
		}
		if q.Invalid > 0 {
			s.Printf("  %s %s: %s with a broken envelope\n", s.Warn("!"), display.Safe(q.Queue), number(q.Invalid, "", "message"))
		}
	}
	s.Note("Counted in " + wordList(names) + ". Other queues that use these keys were not looked at.")
}

func (a *app) keysRetireCommand() *cobra.Command {
	var queues []string
	var force, yes bool
	c := &cobra.Command{
		Use:   "retire KEY-ID",
		Short: "Remove a key that nothing needs any more",
		Long: `Retire removes a key from the key file, for good. It refuses the current key, and a
key that a waiting message or a dead letter names. It looks into the queues of
--queue, or those of the configuration file, or all queues if the broker lists them.
It asks before it removes the key, unless --yes is given.

Messages under a key that was removed can never be opened again.`,
		Example: example(`
			qrt keys retire 2025-11-24-q3t7
			qrt keys retire task-tactician-2025-08 --queue task-tactician --yes`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.keysRetire(cmd.Context(), keys.ID(args[0]), queues, force, yes)
		},
		ValidArgsFunction: a.completeKeys,
	}
	c.Flags().StringArrayVar(&queues, "queue", nil, "queue to look for messages in; may be repeated")
	c.Flags().BoolVar(&force, "force", false, "remove it even if messages need it, or if that could not be checked")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (a *app) keysRetire(ctx context.Context, id keys.ID, queues []string, force, yes bool) error {
	path, err := a.keyFile()
	if err != nil {
		return err
	}
	// A key that is missing or current is reported before the command asks for
	// confirmation.
	list, err := a.keysIn(ctx)
	if err != nil {
		return err
	}
	switch {
	case !slices.ContainsFunc(list.Keys, func(k keyReport) bool { return k.ID == id }):
		return nothingf("there is no key %q in %s", display.Safe(string(id)), display.Safe(path))
	case list.Current == id:
		return advise(fmt.Errorf("key %q is current: messages are sealed under it", id), "make another one current first: qrt keys rotate")
	}
	if !force {
		if err := a.unneeded(ctx, id, queues); err != nil {
			return err
		}
	}
	if err := a.confirm(yes, fmt.Sprintf("Remove key %s for good?", id)); err != nil {
		return err
	}
	c, err := a.change(path, func(s *keys.Set, c *keyChange) error {
		if s.Current == id {
			return fmt.Errorf("key %q became current in the meantime", id)
		}
		s.Keys = slices.DeleteFunc(s.Keys, func(k *keys.Key) bool { return k.ID() == id })
		c.Removed, c.Previous = id, s.Current
		return nil
	})
	if err != nil {
		return err
	}
	a.print(c, func(s *display.Screen) {
		s.Printf("%s key %s removed from %s\n", s.Good("✓"), s.Name(string(id)), display.Safe(path))
	})
	return nil
}

func (a *app) keysIn(ctx context.Context) (*keysReport, error) {
	p, err := a.openKeys(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = p.Close(ctx) }() // nothing was written
	return listKeys(ctx, p)
}

// unneeded fails if messages need a key, or if that cannot be told.
func (a *app) unneeded(ctx context.Context, id keys.ID, queues []string) error {
	r, err := a.audit(ctx, queues)
	if err != nil {
		return advise(fmt.Errorf("whether messages need key %q could not be found out: %w", id, err), "--force removes it all the same")
	}
	for _, k := range r.Keys {
		if k.ID == id && k.Waiting+k.Dead > 0 {
			return advise(fmt.Errorf("key %q is needed by %s and %s", id, number(k.Waiting, "no waiting message", "waiting message"), number(k.Dead, "no dead letter", "dead letter")),
				"see qrt keys audit; once it is gone these messages can never be opened")
		}
	}
	if !r.Complete {
		return advise(fmt.Errorf("whether messages need key %q could not be found out: the broker cannot show all of them", id), "--force removes it all the same")
	}
	return nil
}
