// Package postgresreplay is a replay.Store in a PostgreSQL database, version 14 or newer,
// shared by the receivers of a fleet.
package postgresreplay
