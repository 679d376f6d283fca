// Package sqldriver is what the drivers over SQL databases do alike outside of the database:
// the receipts of deliveries, the calls that wait for a queue, what is open, and the form in
// which attributes are stored.
package sqldriver
