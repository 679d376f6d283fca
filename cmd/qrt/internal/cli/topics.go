package cli

import "github.com/spf13/cobra"

// topics are pages of help that are no commands.
func topics() []*cobra.Command {
	return []*cobra.Command{
		{
			Use:   "configuration",
			Short: "How flags, environment and configuration file work together",
			Long: `The first of these that is set gives a setting its value: the flag; the environment
variable QRT_ and the flag's name in capitals (--max-age is QRT_MAX_AGE); the
configuration file; the default. qrt doctor shows where each value comes from. The
former name of --broker, --provider, works in all three places.

The configuration file is TOML: --config, QRT_CONFIG, or qrt/config.toml in the
user's configuration folder. An unknown name in it is an error.

  broker      = "sqlite:///var/lib/router/queue.db"
  keys        = "file:///etc/router/keys.json"
  nonces      = "sqlite:///var/lib/router/nonces.db"
  policy      = "reject"        # allow, allow_with_alert, reject
  max_age     = "14d"           # or "retention"
  environment = "production"
  log         = "warn"          # off, error, warn, info, debug

  [queues.task-tactician]       # a queue with keys of its own
  keys = "file:///etc/router/task-tactician.json"

Without arguments, doctor, stats and keys audit work on the queues that are named
there.

With keys, messages are sealed. Without, they are sent in plaintext, with a warning.`,
		},
		{
			Use:   "urls",
			Short: "The URLs of brokers, keys and replay stores",
			Long:  urlForms,
		},
		{
			Use:   "exit-codes",
			Short: "What the exit codes mean, and the form of --json",
			Long: `  0  done
  1  failed: the broker, a key or a message was not as it should be
  2  wrong usage: arguments, flags, or configuration
  3  nothing found: no message, no dead letter, no such key
  141  the reader of standard output has ended, as head does; nothing is printed

With --json a result is one object on standard output. Commands that return any
number of messages write one object a line (JSON Lines), each with "body" if the
body is text, and with "body_base64" if it is not.

An error is one object on standard error:

  {"error":"...","code":"key_not_found","exit":3,"transient":false,"advice":"..."}

An interrupt or SIGTERM ends a command in good order: receive --follow and
emulator then exit with 0, others with 1. A message that could not be printed, because
the disk is full or the reader has gone, goes back to its queue.`,
		},
	}
}

// urlForms shows each form once.
const urlForms = `Brokers (--broker):

  mem://                             in this process; gone when it ends
  sqlite:///var/lib/qrt/queue.db     a file of this machine, for all its processes
  sqlite:queue.db                    the same, relative to the working folder
  postgres://user@host/database      PostgreSQL; the password from PGPASSWORD or a passfile
  sqs://eu-west-1/                   AWS SQS
  sb://NAMESPACE/                    Azure Service Bus
  sb:///?connection=VARIABLE         the same, by a connection string in a variable
  emulator://servicebus              for demo, bench and conformance: started for them
  emulator://sqs                     the same, by fauxqs, in Node

  Parameters of mem and sqlite, for queues that are made on demand:
  ?lock=30s  ?max_deliveries=10  ?retention=336h  ?dedup_window=10m
  Of sqlite: ?synchronous=normal is faster, and a power cut can take back the last
  moments; ?must_exist=true makes neither file nor queue.
  Of postgres: the same, and ?schema=queue_runtime  ?pooled=true behind a pooler in
  transaction mode  ?poll=2s  ?timeout=10s  ?max_conns=8  ?must_exist=true
  ?dead_letter_retention=720h  ?sslmode=verify-full and others of libpq
  Of sqs: ?endpoint=URL  ?account=ID  ?dead_letter_suffix=-dead  ?poll=20s
  ?max_batch_bytes=1048576  ?session_batch=1
  Of sb, how its queues were made, if you may not ask: ?sessions=true  ?lock=1m
  ?max_deliveries=10  ?retention=336h  ?dedup=true  ?partitioned=true
  ?max_bytes=1048576

Keys (--keys):

  file:///etc/qrt/keys.json          a key file, mode 0600; read again when it changes
  folder:///etc/qrt/keys             a folder with a file for each key, such as a mounted
                                     Secret of Kubernetes; the file "current" names the key
                                     to seal with, or else it is the last by name
  env://BOT_KEYS                     BOT_KEYS=id=base64[,id=base64], BOT_KEYS_CURRENT=id
  awssm://eu-west-1/qrt/pulls        AWS Secrets Manager; ?layout=secrets or versions
  azkv://VAULT/pulls                 Azure Key Vault; the same
  file and folder accept mode 0440 if root owns the file and the process is in its group,
  and mode 0444 only with ?world_readable=true.

Replay stores (--nonces):

  sqlite:///var/lib/qrt/nonces.db    a file of its own, out of the queue owner's reach
  rediss://user@host:6379/0          Redis, for receivers on several machines
  postgres://user@host/database      PostgreSQL, for a fleet; not the broker's database
  dynamodb://eu-west-1/replay        a DynamoDB table, for a fleet; qrt nonces init makes it
  aztable://ACCOUNT/replay           an Azure table, for a fleet; qrt nonces init makes it
  mem://                             this process only, forgotten when it ends

  Parameters: the bounds ?records=N ?streams=N ?intervals=N of the store, the same
  with group_ or sender_ in front, ?recent=N, ?keep_stream=360h, ?parked_ttl=360h.
  Of sqlite: ?synchronous=normal  ?must_exist=true
  Of redis: ?password_env=VARIABLE  ?sentinel=NAME or ?cluster=true with several hosts
  ?ca=FILE  ?cert=FILE  ?key=FILE  ?server_name=NAME  ?prefix=NAME  ?must_exist=true
  ?replicas=all  ?replica_timeout=1s  ?timeout=5s  ?fsync=always, everysec or never
  Of postgres: ?schema=queue_replay  ?pooled=true  ?timeout=10s  ?max_conns=4
  ?must_exist=true  ?trust_database_operators=true allows the broker's database
  Of dynamodb and aztable: ?prefix=NAME for several stores in a table  ?endpoint=URL
  Of aztable: ?key=VARIABLE, an environment variable with a key of the account

No URL holds a secret. Credentials come from where the cloud's own tools find
them, or from an environment variable that the URL names.`
