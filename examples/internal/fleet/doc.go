// Package fleet starts the router and the three bots as processes on one SQLite
// file, and tells where each listens and where the file is.
//
// Start gives back once all of them are ready; Close ends them in order.
package fleet
