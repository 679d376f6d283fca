// Package sessionkey derives the session of a message from what is in it, so
// that messages about one thing are handled in order, and others are not held up
// by them.
//
//	// One session for each pull request, and for each issue; else one for the
//	// repository; else none.
//	sessionkey.Fallback{
//		sessionkey.Composite{sessionkey.Field("repository.full_name"), sessionkey.Field("pull_request.number")},
//		sessionkey.Composite{sessionkey.Field("repository.full_name"), sessionkey.Field("issue.number")},
//		sessionkey.Field("repository.full_name"),
//	}
//
// A [Strategy] looks at a message and returns a session ID, or the empty string
// for none. [Field] takes it from a JSON body, [Attribute] from an attribute,
// [Composite] joins several so that no two combinations give one ID, [Fallback]
// takes the first that is there, [Func] is a function, and [None] has none.
//
// Session IDs travel in cleartext. A value that a strategy takes out of a body becomes
// visible to the broker: choose only values that may be.
//
// # Bounds
//
// A session ID is at most [MaxID] bytes of UTF-8 without control characters.
// Anything else in its place is an error, never a shortened or hashed ID: that
// would put strangers into one session. A body is read only as far as the field
// asked for, 1 MiB at most, without decoding the rest; that what is passed over
// is well formed is checked no further than is needed to find its end.
//
// # Errors
//
// ErrStrategy means that the strategy is at fault; [Validate] finds that before
// there is a message. ErrMessage means that the message is at fault. Their text
// names fields, places and lengths, never a value.
//
// Strategies are values that do not change; they are safe for concurrent use.
package sessionkey
