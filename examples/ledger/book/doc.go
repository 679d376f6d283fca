// Package book is a ledger: it posts the payments of a queue to accounts in a PostgreSQL
// database.
//
// A payment changes an account by addition, so it must be posted once. The posting, the
// new balance and the completion of the message are one transaction: the replay store lies
// in the same database, and [postgresreplay.Store.ConsumeTx] takes part. A process that is
// killed before the commit leaves nothing behind, and the payment comes again. One that is
// killed after it has posted the payment, and the message that comes again is completed
// without being handled. So the table of postings needs no unique key, and has none.
//
// The broker lies elsewhere: in the same database its operators could have payments posted
// twice.
package book
