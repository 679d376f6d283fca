module github.com/queue-runtime/queue/examples

go 1.26.0

replace (
	github.com/queue-runtime/queue => ../
	github.com/queue-runtime/queue/aws => ../aws
	github.com/queue-runtime/queue/azure => ../azure
	github.com/queue-runtime/queue/otel => ../otel
	github.com/queue-runtime/queue/providers => ../providers
	github.com/queue-runtime/queue/sqlite => ../sqlite
)
