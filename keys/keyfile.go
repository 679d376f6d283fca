package keys

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/queue-runtime/queue/internal/jsonscan"
)

// maxFile bounds a key file in bytes: several thousand keys.
const maxFile = 1 << 20

// Set is what a key file holds.
type Set struct {
	// Current is the ID of the key to seal with. Empty means that there is
	// none: the file is for receivers only.
	Current ID
	// Keys are all keys, at least one, each ID once.
	Keys []*Key
}

// validate says what is wrong with the set.
func (s *Set) validate() error {
	if len(s.Keys) == 0 {
		return fmt.Errorf("%w: no keys", ErrInvalidKey)
	}
	seen := make(map[ID]struct{}, len(s.Keys))
	for _, k := range s.Keys {
		if k == nil {
			return fmt.Errorf("%w: nil", ErrInvalidKey)
		}
		if _, ok := seen[k.ID()]; ok {
			return fmt.Errorf("%w: %s is there twice", ErrInvalidKey, k.ID())
		}
		seen[k.ID()] = struct{}{}
	}
	if _, ok := seen[s.Current]; !ok && s.Current != "" {
		return fmt.Errorf("%w: the current key %q is not among the keys", ErrInvalidKey, clip(s.Current))
	}
	return nil
}

// destroy zeroes the keys of a set that was not handed out.
func (s *Set) destroy() {
	for _, k := range s.Keys {
		k.Destroy()
	}
}

// readFile reads a key file.
func readFile(path string, rule accessRule) (*Set, fs.FileInfo, error) {
	data, info, err := readPrivate(path, rule)
	defer clear(data)
	if err != nil {
		return nil, info, err
	}
	set, err := parseFile(data)
	if err != nil {
		return nil, info, fmt.Errorf("keys: file %s: %w", path, err)
	}
	return set, info, nil
}

// readPrivate reads a file of secrets. Access rights are checked on the opened file, so
// that what was checked is what is read. The caller clears the data.
func readPrivate(path string, rule accessRule) ([]byte, fs.FileInfo, error) {
	// Opening a pipe would wait for its other end.
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, nil, unavailable(path, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, unavailable(path, err)
	}
	defer func() { _ = f.Close() }() // only read
	if info, err = f.Stat(); err != nil {
		return nil, nil, unavailable(path, err)
	}
	if err := checkAccess(info, rule); err != nil {
		return nil, info, fmt.Errorf("keys: file %s: %w", path, err)
	}
	size := int(info.Size())
	if size > maxFile {
		return nil, info, fmt.Errorf("keys: file %s: %w: %d bytes: use %d at most", path, ErrInvalidKey, size, maxFile)
	}
	data, err := readWhole(f, size)
	if err != nil {
		return nil, info, unavailable(path, err)
	}
	return data, info, nil
}

// readWhole reads a file of that size. The caller clears the data.
func readWhole(f io.Reader, size int) ([]byte, error) {
	data := make([]byte, size+1)
	n, err := io.ReadFull(f, data)
	ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	if ended && n == size {
		return data[:size], nil
	}
	clear(data)
	if ended || err == nil {
		err = errors.New("it changed while it was read")
	}
	return nil, err
}

// unavailable is the error of a file that cannot be read now.
func unavailable(path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = fmt.Errorf("%s: %w", pe.Op, pe.Err) // the path is said once
	}
	return fmt.Errorf("keys: file %s: %w: %w", path, ErrUnavailable, err)
}

// parseFile reads the JSON of a key file. It is stricter than encoding/json:
// names are case-sensitive, and neither an unknown one nor one given twice
// passes. Errors tell the place and never repeat a value.
func parseFile(data []byte) (*Set, error) {
	set := new(Set)
	p := &scanner{jsonscan.Scanner{Data: data}}
	err := p.object(func(name string) error {
		switch name {
		case "current":
			id, err := p.string()
			set.Current = ID(id)
			return err
		case "keys":
			return p.array(func() error {
				k, err := parseKey(p)
				if err == nil {
					set.Keys = append(set.Keys, k)
				}
				return err
			})
		}
		return p.unknown()
	})
	if err == nil {
		err = p.end()
	}
	if err == nil {
		err = set.validate()
	}
	if err != nil {
		set.destroy()
		return nil, err
	}
	return set, nil
}

// record is one key of a file.
type record struct {
	id           ID
	sender       string
	secret       []byte // of a master key
	senderSecret []byte
	o            Options
	hasSender    bool
}

func parseKey(p *scanner) (*Key, error) {
	var r record
	defer func() { clear(r.secret); clear(r.senderSecret) }()
	p.Next()
	at := p.place()
	if err := p.object(func(name string) error { return r.member(p, name) }); err != nil {
		return nil, err
	}
	k, err := r.key()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return k, nil
}

// member reads the value of that name.
func (r *record) member(p *scanner, name string) (err error) {
	switch name {
	case "id":
		var s string
		s, err = p.string()
		r.id = ID(s)
	case "secret":
		r.secret, err = p.base64()
	case "sender":
		r.hasSender = true
		r.sender, err = p.string()
	case "sender_secret":
		r.senderSecret, err = p.base64()
	case "created":
		r.o.Created, err = p.time()
	case "expires":
		r.o.Expires, err = p.time()
	case "queues":
		r.o.Queues, err = p.strings()
	default:
		err = p.unknown()
	}
	return err
}

// key makes the key of a record, which is of exactly one of the two kinds.
func (r *record) key() (*Key, error) {
	if !r.hasSender && r.senderSecret == nil {
		return New(r.id, r.secret, &r.o)
	}
	if r.secret != nil || !r.hasSender || r.senderSecret == nil {
		return nil, fmt.Errorf("%w: a master key has secret, a sender key has sender and sender_secret, and no key has both", ErrInvalidKey)
	}
	return NewSender(r.id, r.sender, r.senderSecret, &r.o)
}

// encodeFile writes what parseFile reads. The caller clears it.
func encodeFile(s *Set) ([]byte, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	// Large enough from the start: growing would leave copies behind.
	size := 256
	for _, k := range s.Keys {
		size += 192 + len(k.id) + len(k.sender) + base64.StdEncoding.EncodedLen(Size) + len(k.queuesText())
	}
	b := make([]byte, 0, size)
	b = append(b, "{\n  \"current\": "...)
	b = appendQuoted(b, string(s.Current))
	b = append(b, ",\n  \"keys\": ["...)
	for i, k := range s.Keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, "\n    {\"id\": "...)
		b = appendQuoted(b, string(k.ID()))
		if k.sender == "" {
			b = append(b, ", \"secret\": \""...)
		} else {
			b = append(b, ", \"sender\": "...)
			b = appendQuoted(b, k.sender)
			b = append(b, ", \"sender_secret\": \""...)
		}
		if err := k.with(func(secret *[Size]byte) error {
			b = base64.StdEncoding.AppendEncode(b, secret[:])
			return nil
		}); err != nil {
			clear(b)
			return nil, err
		}
		b = append(b, '"')
		for _, at := range []struct {
			name string
			time time.Time
		}{{"created", k.Created()}, {"expires", k.Expires()}} {
			if at.time.IsZero() {
				continue
			}
			b = append(b, ", \""+at.name+"\": \""...)
			next, err := at.time.UTC().AppendText(b)
			if err != nil {
				clear(b)
				return nil, fmt.Errorf("%w: %s: %s is in no year from 0 to 9999", ErrInvalidKey, k.ID(), at.name)
			}
			b = append(next, '"')
		}
		b = append(b, k.queuesText()...)
		b = append(b, '}')
	}
	b = append(b, "\n  ]\n}\n"...)
	if len(b) > maxFile {
		clear(b)
		return nil, fmt.Errorf("%w: %d keys take %d bytes: use %d at most", ErrInvalidKey, len(s.Keys), len(b), maxFile)
	}
	return b, nil
}

// queuesText is what a file says of the queues of k, with the comma before it.
func (k *Key) queuesText() string {
	if len(k.queues) == 0 {
		return ""
	}
	list, err := json.Marshal(k.queues)
	if err != nil {
		panic(err) // strings that are UTF-8 always encode
	}
	return ", \"queues\": " + string(list)
}

// appendQuoted writes an ID, which needs no escapes.
func appendQuoted(b []byte, id string) []byte {
	b = append(b, '"')
	b = append(b, id...)
	return append(b, '"')
}
