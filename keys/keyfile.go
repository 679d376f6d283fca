package keys

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
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

// destroy zeroes the keys of a set that nobody was given.
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

// readPrivate reads a file of secrets. Who has access is looked at on the opened file,
// so that what was checked is what is read. The caller clears the data.
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
	data := make([]byte, size+1)
	switch n, err := io.ReadFull(f, data); {
	case err == nil || n != size && errors.Is(err, io.ErrUnexpectedEOF):
		clear(data)
		return nil, info, unavailable(path, errors.New("it changed while it was read"))
	case n != size:
		clear(data)
		return nil, info, unavailable(path, err)
	}
	return data[:size], info, nil
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
	p := &scanner{data: data}
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

func parseKey(p *scanner) (*Key, error) {
	var id ID
	var o Options
	var secret []byte
	defer func() { clear(secret) }()
	p.next()
	at := p.place()
	err := p.object(func(name string) (err error) {
		switch name {
		case "id":
			var s string
			s, err = p.string()
			id = ID(s)
		case "secret":
			secret, err = p.base64()
		case "created":
			o.Created, err = p.time()
		case "expires":
			o.Expires, err = p.time()
		default:
			err = p.unknown()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	k, err := New(id, secret, &o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return k, nil
}

// encodeFile writes what parseFile reads. The caller clears it.
func encodeFile(s *Set) ([]byte, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	// Large enough from the start: growing would leave copies behind.
	b := make([]byte, 0, 256+len(s.Keys)*(128+2*MaxID+base64.StdEncoding.EncodedLen(Size)))
	b = append(b, "{\n  \"current\": "...)
	b = appendQuoted(b, string(s.Current))
	b = append(b, ",\n  \"keys\": ["...)
	for i, k := range s.Keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, "\n    {\"id\": "...)
		b = appendQuoted(b, string(k.ID()))
		b = append(b, ", \"secret\": \""...)
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
		b = append(b, '}')
	}
	b = append(b, "\n  ]\n}\n"...)
	if len(b) > maxFile {
		clear(b)
		return nil, fmt.Errorf("%w: %d keys take %d bytes: use %d at most", ErrInvalidKey, len(s.Keys), len(b), maxFile)
	}
	return b, nil
}

// appendQuoted writes an ID, which needs no escapes.
func appendQuoted(b []byte, id string) []byte {
	b = append(b, '"')
	b = append(b, id...)
	return append(b, '"')
}
