package keys_test

import "reflect"

// copyKey copies a value that go vet would not let be copied.
func copyKey[T any](to, from *T) { reflect.ValueOf(to).Elem().Set(reflect.ValueOf(from).Elem()) }

// deref returns what p points to, as a value that cannot be addressed.
func deref[T any](p *T) any { return reflect.ValueOf(p).Elem().Interface() }
