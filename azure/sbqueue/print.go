package sbqueue

import (
	"fmt"
	"io"
)

// What is printed of these types is their name, whatever the verb. The rest is
// no news to anybody, leads to clients that hold the key, and changes while
// package fmt reads it.

// Format writes the name of the type.
func (b *Broker) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "sbqueue.Broker") }

func (q *queue) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "sbqueue.queue(%q)", q.name) }

func (d *deadLetters) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "sbqueue.deadLetters") }

func (s *session) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "sbqueue.session") }

func (r *receipt) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "sbqueue.receipt") }
