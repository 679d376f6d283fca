package sbqueue

import (
	"fmt"
	"io"
)

// These types print as their name, whatever the verb. Printing their fields would be
// useless, could reach a client that holds a key, and would race with writers.

// Format writes the name of the type.
func (b *Broker) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "sbqueue.Broker") }

func (q *queue) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "sbqueue.queue(%q)", q.name) }

func (d *deadLetters) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "sbqueue.deadLetters") }

func (s *session) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "sbqueue.session") }

func (r *receipt) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "sbqueue.receipt") }
