package replaystate

import (
	"encoding/binary"
	"slices"
)

// Bounds of the known keys of a group.
const (
	// MaxKnownKeys is how many there are. With more, those that were noted first go: then
	// a restarted receiver learns them anew.
	MaxKnownKeys = 32
	// MaxName bounds the names of a known key in bytes.
	MaxName = 512
)

// KnownKey says that messages of a queue opened under a key, and what tells its secret
// from another one under the same ID.
type KnownKey struct {
	Queue, ID string
	Value     [16]byte
}

// find returns the place of the key of that queue and ID, -1 for none.
func (g *Group) find(k *KnownKey) int {
	return slices.IndexFunc(g.Keys, func(x KnownKey) bool { return x.Queue == k.Queue && x.ID == k.ID })
}

// Note enters a key, and returns it as it is known then. If the ID is known in the queue, with
// whatever value, it stays as it is. The slice of keys is replaced, never changed.
func (g *Group) Note(k KnownKey) KnownKey {
	if i := g.find(&k); i >= 0 {
		return g.Keys[i]
	}
	g.Keys, g.Dirty = append(slices.Clone(g.Keys), k), true
	g.Keys = g.Keys[max(0, len(g.Keys)-MaxKnownKeys):]
	return k
}

// Forget removes the key of that queue and ID, with whatever value. It reports whether there
// was one.
func (g *Group) Forget(k KnownKey) bool {
	i := g.find(&k)
	if i >= 0 {
		g.Keys, g.Dirty = slices.Delete(slices.Clone(g.Keys), i, i+1), true
	}
	return i >= 0
}

func appendKnownKeys(b []byte, all []KnownKey) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for i := range all {
		for _, name := range [...]string{all[i].Queue, all[i].ID} {
			b = append(binary.AppendUvarint(b, uint64(len(name))), name...)
		}
		b = append(b, all[i].Value[:]...)
	}
	return b
}

func (r *reader) knownKeys() []KnownKey {
	n := r.count()
	if n == 0 {
		return nil
	}
	all := make([]KnownKey, n)
	for i := range all {
		all[i].Queue, all[i].ID = r.text(), r.text()
		r.bytes(all[i].Value[:])
	}
	return all
}

func (r *reader) text() string {
	b := make([]byte, r.count())
	r.bytes(b)
	return string(b)
}
