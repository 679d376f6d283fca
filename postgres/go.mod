module github.com/queue-runtime/queue/postgres

go 1.26.0

require (
	github.com/jackc/pgx/v5 v5.13.0
	github.com/queue-runtime/queue v0.0.0
	github.com/queue-runtime/queue/testbed v0.0.0
)

replace (
	github.com/queue-runtime/queue => ../
	github.com/queue-runtime/queue/testbed => ../testbed
)
