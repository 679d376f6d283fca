package postgresreplay

// serverClock is the server's time in Unix milliseconds.
const serverClock = `floor(extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint`

// serverRun says which run of the server this is: when the server started, in microseconds, and
// the number of a file. A standby that is promoted, or a backup of the server, is another run
// than the one before by its start. A dump that is restored is one by its file: the tables
// are made or filled anew.
const serverRun = `(extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint,
			pg_catalog.pg_relation_filenode('{schema}.tally')::bigint`

// storeID and storeBirth are the store's ID and birth, m being its row of meta.
const (
	storeID    = `coalesce((SELECT x.uid FROM {schema}.loss x ORDER BY x.id DESC LIMIT 1), m.uid)`
	storeBirth = `greatest(m.birth, (SELECT max(x.birth) FROM {schema}.loss x))`
)

// Lists are joined by LATERAL with a LIMIT or OFFSET, so that each row is found by the whole
// key. The planner takes a part of it for enough while a table is small, and keeps the plan.
// What a statement finds of a group nothing else changes meanwhile: its row is locked.
const (
	beginWriting = `BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE`
	beginReading = `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`

	// settings are the settings of one transaction, whatever the role or a pooler has set. A
	// commit waits for the disk, and for standbys if the server has synchronous ones.
	// A process that stops in the middle loses the lock of its group. Plans use the
	// indexes, however few rows there are: statistics may be from when the table was empty.
	settings = `SELECT
		set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') = 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true),
		set_config('idle_in_transaction_session_timeout', '15s', true), set_config('plan_cache_mode', 'force_generic_plan', true),
		set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('enable_hashjoin', 'off', true),
		set_config('enable_mergejoin', 'off', true), set_config('enable_sort', 'off', true), set_config('jit', 'off', true)`

	// insertGroup and lockGroup begin a call that writes.
	insertGroup = `INSERT INTO {schema}.receivers (name) VALUES ($1) ON CONFLICT DO NOTHING`
	lockGroup   = `SELECT id FROM {schema}.receivers WHERE name = $1 FOR NO KEY UPDATE`

	selectStore = `SELECT m.version, ` + storeID + `, ` + storeBirth + `, ` + serverClock + `, coalesce(g.id, 0), coalesce(t.version, 0), coalesce(t.records, 0),
			coalesce(t.recents, 0), coalesce(t.streams, 0), coalesce(t.intervals, 0), coalesce(t.last_id, 0), t.state,
			coalesce(r.id, 0), coalesce(r.started, 0), coalesce(r.file, 0), ` + serverRun + `, o.version, o.records, o.recents, o.streams, o.intervals
		FROM {schema}.meta m
		LEFT JOIN {schema}.receivers g ON g.name = $1
		LEFT JOIN LATERAL (SELECT * FROM {schema}.tally x WHERE x.grp = g.id AND x.sender = 0 ORDER BY x.version DESC LIMIT 1) t ON true
		LEFT JOIN LATERAL (SELECT * FROM {schema}.run x WHERE x.grp = g.id ORDER BY x.id DESC LIMIT 1) r ON true
		CROSS JOIN LATERAL (SELECT coalesce(sum(x.version), 0)::bigint AS version, coalesce(sum(x.records), 0)::bigint AS records,
				coalesce(sum(x.recents), 0)::bigint AS recents, coalesce(sum(x.streams), 0)::bigint AS streams, coalesce(sum(x.intervals), 0)::bigint AS intervals
			FROM {schema}.receivers h CROSS JOIN LATERAL (
				SELECT * FROM {schema}.tally y WHERE y.grp = h.id AND y.sender = 0 ORDER BY y.version DESC LIMIT 1) x
			WHERE h.name <> $1) o`

	// leastSince is the least version at which a run behind that of $2 and $3 began, NULL if there
	// is none. No row: the run itself is gone.
	leastSince = `SELECT (SELECT min(x.version) FROM {schema}.run x WHERE x.grp = r.grp AND x.id > r.id)
		FROM {schema}.run r WHERE r.grp = $1 AND r.started = $2 AND r.file = $3 LIMIT 1`
	insertRun  = `INSERT INTO {schema}.run VALUES ($1, $2, $3, $4, $5)`
	insertLoss = `INSERT INTO {schema}.loss SELECT coalesce((SELECT max(id) FROM {schema}.loss), 0) + 1, $2, $3
		FROM {schema}.meta m WHERE ` + storeID + ` = $1 ON CONFLICT DO NOTHING`
	selectID = `SELECT ` + storeID + `, ` + storeBirth + ` FROM {schema}.meta m`

	// The rows of senders, by their names.
	selectSenders = `SELECT s.name, s.id, coalesce(t.version, 0), coalesce(t.records, 0), coalesce(t.recents, 0), coalesce(t.streams, 0), coalesce(t.intervals, 0)
		FROM {schema}.receivers g CROSS JOIN unnest($2::bytea[]) AS k(name)
		CROSS JOIN LATERAL (SELECT * FROM {schema}.sender x WHERE x.grp + 1 = g.id + 1 AND x.name = k.name LIMIT 1) s
		LEFT JOIN LATERAL (SELECT * FROM {schema}.tally x WHERE x.grp = g.id AND x.sender = s.id ORDER BY x.version DESC LIMIT 1) t ON true
		WHERE g.name = $1`
	nextSender = `SELECT id, name FROM {schema}.sender WHERE grp = $1 AND id > $2 ORDER BY id LIMIT 1`

	// The pages of $2 to $4, with the head of the stream if there is no page or if $5.
	selectPages = `SELECT k.n, coalesce(st.id, 0), p.body, CASE WHEN p.body IS NULL OR $5::boolean THEN st.head END
		FROM {schema}.receivers g CROSS JOIN unnest($2::bytea[], $3::bytea[], $4::bigint[]) WITH ORDINALITY AS k(sender, stream, place, n)
		LEFT JOIN LATERAL (SELECT * FROM {schema}.sender x WHERE x.grp + 1 = g.id + 1 AND x.name = k.sender LIMIT 1) s ON true
		LEFT JOIN LATERAL (SELECT * FROM {schema}.stream x WHERE x.grp + 1 = g.id + 1 AND x.sender = s.id AND x.stream = k.stream LIMIT 1) st ON true
		LEFT JOIN LATERAL (SELECT * FROM {schema}.page x WHERE x.grp = g.id AND x.stream = st.id AND x.place = k.place LIMIT 1) p ON true
		WHERE g.name = $1`
	selectCompletions = `SELECT c.sender, c.stream, c.sequence, c.token, c.entered
		FROM {schema}.receivers g CROSS JOIN unnest($2::bytea[], $3::bytea[], $4::bigint[]) AS k(sender, stream, place)
		CROSS JOIN LATERAL (SELECT * FROM {schema}.completion x WHERE x.grp = g.id AND x.sender = k.sender AND x.stream = k.stream
			AND x.sequence BETWEEN k.place * 128 + 1 AND (k.place + 1) * 128 OFFSET 0) c
		WHERE g.name = $1`
	anyCompletions = `SELECT sender, stream, sequence, token, entered FROM {schema}.completion WHERE grp = $1 LIMIT $2`
	selectHead     = `SELECT head FROM {schema}.stream WHERE grp = $1 AND id = $2`

	// Of the pages with tags and of those without, each with its own range of due.
	duePages = `SELECT p.place, s.name, st.stream FROM (
			(SELECT * FROM {schema}.page x WHERE x.grp + 1 = $1::bigint + 1 AND x.due <= $2 ORDER BY x.due LIMIT $3) UNION ALL
			(SELECT * FROM {schema}.page x WHERE x.grp + 1 = $1::bigint + 1 AND x.due BETWEEN $4 AND $5 ORDER BY x.due LIMIT $3)) p
		CROSS JOIN LATERAL (SELECT * FROM {schema}.stream x WHERE x.grp = p.grp AND x.id = p.stream LIMIT 1) st
		CROSS JOIN LATERAL (SELECT * FROM {schema}.sender x WHERE x.grp = p.grp AND x.id = st.sender LIMIT 1) s`
	oldStreams = `SELECT st.id, st.stream, EXISTS (SELECT 1 FROM {schema}.page p WHERE p.grp = st.grp AND p.stream = st.id)
		FROM {schema}.stream st WHERE st.grp + 2 = $1::bigint + 2 AND st.sender + 1 = $2::bigint + 1 AND st.old < $3 ORDER BY st.old LIMIT $4`

	listStreams = `SELECT st.id, s.name, st.stream, st.head FROM {schema}.stream st
		CROSS JOIN LATERAL (SELECT * FROM {schema}.sender x WHERE x.grp = st.grp AND x.id = st.sender LIMIT 1) s
		WHERE st.grp = $1 AND st.id > $2 ORDER BY st.id LIMIT $3`
	pagesOf = `SELECT p.stream, p.place, p.body FROM unnest($2::bigint[]) k(stream)
		CROSS JOIN LATERAL (SELECT * FROM {schema}.page x WHERE x.grp = $1 AND x.stream = k.stream OFFSET 0) p`
	completionsOf = `SELECT c.sender, c.stream, c.sequence, c.token, c.entered FROM unnest($2::bytea[], $3::bytea[]) k(sender, stream)
		CROSS JOIN LATERAL (SELECT * FROM {schema}.completion x WHERE x.grp = $1 AND x.sender = k.sender AND x.stream = k.stream OFFSET 0) c`

	// What a call has changed.
	insertSender = `INSERT INTO {schema}.sender VALUES ($1, $2, $3)`
	insertStream = `INSERT INTO {schema}.stream VALUES ($1, $2, $3, $4, $5, $6)`
	updateHead   = `UPDATE {schema}.stream SET old = greatest(old, $3), head = $4 WHERE grp = $1 AND id = $2`
	keepStream   = `UPDATE {schema}.stream SET old = $3 WHERE grp = $1 AND id = $2`
	deleteStream = `DELETE FROM {schema}.stream WHERE grp = $1 AND id = $2`
	upsertPages  = `INSERT INTO {schema}.page SELECT $1, k.stream, k.place, k.due, k.body
		FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[]) k(stream, place, due, body)
		ON CONFLICT (grp, stream, place) DO UPDATE SET due = EXCLUDED.due, body = EXCLUDED.body`
	deletePages = `DELETE FROM {schema}.page WHERE ctid = ANY (ARRAY(SELECT p.ctid FROM unnest($2::bigint[], $3::bigint[]) k(stream, place)
		CROSS JOIN LATERAL (SELECT x.ctid FROM {schema}.page x WHERE x.grp = $1 AND x.stream = k.stream AND x.place = k.place LIMIT 1) p))`
	deleteCompletions = `DELETE FROM {schema}.completion WHERE ctid = ANY (ARRAY(SELECT c.ctid
		FROM unnest($2::bytea[], $3::bytea[], $4::bigint[]) k(sender, stream, sequence) CROSS JOIN LATERAL (SELECT x.ctid FROM {schema}.completion x
			WHERE x.grp = $1 AND x.sender = k.sender AND x.stream = k.stream AND x.sequence = k.sequence LIMIT 1) c))`
	deleteTallies = `DELETE FROM {schema}.tally WHERE ctid = ANY (ARRAY(SELECT t.ctid FROM unnest($2::bigint[], $3::bigint[]) k(sender, version)
		CROSS JOIN LATERAL (SELECT x.ctid FROM {schema}.tally x WHERE x.grp = $1 AND x.sender = k.sender AND x.version = k.version LIMIT 1) t))`
	insertTallies = `INSERT INTO {schema}.tally SELECT $1, k.*
		FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bytea[]) k`

	selectStats = `SELECT ` + storeID + `, ` + storeBirth + `, coalesce(sum(t.version), 0)::bigint, coalesce(sum(t.records), 0)::bigint, coalesce(sum(t.recents), 0)::bigint,
			coalesce(sum(t.streams), 0)::bigint, coalesce(sum(t.intervals), 0)::bigint,
			(SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_catalog.pg_class c WHERE c.relkind = 'r' AND c.relnamespace = '{schema}'::regnamespace),
			current_setting('fsync') = 'on'
		FROM {schema}.meta m
		LEFT JOIN {schema}.receivers g ON true
		LEFT JOIN LATERAL (SELECT * FROM {schema}.tally x WHERE x.grp = g.id AND x.sender = 0 ORDER BY x.version DESC LIMIT 1) t ON true
		GROUP BY m.uid, m.birth`

	// lockStore waits for the calls that write, and lets none begin: an operator accepts a
	// loss of what they have confirmed, and of nothing later.
	lockStore     = `LOCK TABLE {schema}.receivers IN EXCLUSIVE MODE`
	selectHistory = `SELECT ` + storeID + `, ` + storeBirth + `, m.losses, ` + serverClock + `, (SELECT coalesce(sum(t.version), 0)::bigint FROM {schema}.receivers g
			CROSS JOIN LATERAL (SELECT * FROM {schema}.tally x WHERE x.grp = g.id AND x.sender = 0 ORDER BY x.version DESC LIMIT 1) t)
		FROM {schema}.meta m`
	updateLosses = `UPDATE {schema}.meta SET losses = $1`

	// insertCompletion enters a message into a transaction of the application.
	insertCompletion = `INSERT INTO {schema}.completion SELECT g.id, $2::bytea, $3::bytea, $4::bigint, $5::bytea, ` + serverClock + `
		FROM {schema}.meta m JOIN {schema}.receivers g ON g.name = $1::bytea WHERE ` + storeID + ` = $6::bytea`
	// fail makes the transaction one that cannot commit.
	fail = `DO $$ BEGIN RAISE EXCEPTION 'the claim of the message is lost: roll back' USING ERRCODE = 'QR010'; END $$`
)
