// Package storefleet runs receivers in several processes on one replay store, kills them
// at random, and checks what they did with the same messages.
//
// A message that one receiver completed must not be granted to any other afterwards, as
// long as the store's answers have the same ID. A process is the test's own binary: its
// TestMain calls [Main] first.
package storefleet
