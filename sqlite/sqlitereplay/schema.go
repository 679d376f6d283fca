package sqlitereplay

// migrations lead from each version of the schema to the next. Released ones are
// never changed.
var migrations = []string{schema}

// schema is the first version of the file. Times are Unix milliseconds. The blobs
// are encodings of package replaystate.
//
// What changes with each call lies close together: the counters of the store, its
// groups and their senders share a page of the file as long as they are few, and a
// page of a stream fits into one of the file.
const schema = `
CREATE TABLE store (
	id     INTEGER PRIMARY KEY CHECK (id = 1),
	uid    BLOB NOT NULL,
	birth  INTEGER NOT NULL,
	losses BLOB NOT NULL -- of memory, that operators have accepted
) STRICT;

CREATE TABLE counters (
	id        INTEGER PRIMARY KEY, -- 1: the store; others are those of a group or sender
	change    INTEGER NOT NULL,    -- how often the row was changed
	records   INTEGER NOT NULL,
	recents   INTEGER NOT NULL,
	streams   INTEGER NOT NULL,
	intervals INTEGER NOT NULL
) STRICT;

CREATE TABLE groups (
	id    INTEGER PRIMARY KEY,
	name  TEXT NOT NULL UNIQUE,
	state BLOB NOT NULL
) STRICT;

CREATE TABLE senders (
	id   INTEGER PRIMARY KEY,
	grp  INTEGER NOT NULL,
	name TEXT NOT NULL,
	UNIQUE (grp, name)
) STRICT;

CREATE TABLE streams (
	id     INTEGER PRIMARY KEY,
	sender INTEGER NOT NULL,
	stream BLOB NOT NULL,
	old    INTEGER NOT NULL, -- newest SealedAt, or later if the stream was looked at and had to stay
	head   BLOB NOT NULL,
	UNIQUE (sender, stream)
) STRICT;

CREATE INDEX streams_old ON streams (sender, old);

CREATE TABLE pages (
	id     INTEGER PRIMARY KEY,
	stream INTEGER NOT NULL,
	place  INTEGER NOT NULL,
	grp    INTEGER NOT NULL,
	due    INTEGER NOT NULL, -- when the page has to be looked at, in whole minutes, and 2^52 more if it has no tags
	body   BLOB NOT NULL,
	UNIQUE (stream, place)
) STRICT;

CREATE INDEX pages_due ON pages (grp, due);
`

// Limits are +?n: SQLite compiles a statement with LIMIT ?n anew each time it is run, to
// plan it for the value.
const (
	insertStore   = `INSERT OR IGNORE INTO store VALUES (1, ?1, ?2, x'')`
	insertFirst   = `INSERT OR IGNORE INTO counters VALUES (1, 0, 0, 0, 0, 0)`
	insertCounter = `INSERT INTO counters (change, records, recents, streams, intervals) VALUES (0, 0, 0, 0, 0)`
	selectStore   = `SELECT uid, birth, change, records, recents, streams, intervals FROM store JOIN counters USING (id) WHERE id = 1`
	selectLosses  = `SELECT losses FROM store WHERE id = 1`
	updateMemory  = `UPDATE store SET uid = ?1, birth = ?2 WHERE id = 1`
	selectHandle  = `SELECT change FROM counters WHERE id = ?1`
	saveHandle    = `INSERT INTO counters VALUES (?1, ?2, 0, 0, 0, 0) ON CONFLICT (id) DO UPDATE SET change = ?2`
	deleteHandle  = `DELETE FROM counters WHERE id = ?1`
	pruneHandles  = `DELETE FROM counters WHERE id < 0 AND id NOT IN (SELECT id FROM counters WHERE id < 0 ORDER BY change DESC LIMIT +?1)`
	updateStore   = `UPDATE store SET uid = ?1, birth = ?2, losses = ?3 WHERE id = 1`
	count         = `UPDATE counters SET change = change + 1, records = records + ?2, recents = recents + ?3,
		streams = streams + ?4, intervals = intervals + ?5 WHERE id = ?1`

	selectGroup = `SELECT id, state, records, recents, streams, intervals FROM groups JOIN counters USING (id) WHERE name = ?1`
	insertGroup = `INSERT INTO groups VALUES (?1, ?2, ?3)`
	updateGroup = `UPDATE groups SET state = ?2 WHERE id = ?1`

	selectSender = `SELECT id, records, recents, streams, intervals FROM senders JOIN counters USING (id) WHERE grp = ?1 AND name = ?2`
	insertSender = `INSERT INTO senders VALUES (?1, ?2, ?3)`
	nextSender   = `SELECT name FROM senders WHERE grp = ?1 AND name > ?2 ORDER BY name LIMIT 1`

	selectStream = `SELECT id FROM streams WHERE sender = ?1 AND stream = ?2`
	selectHead   = `SELECT head FROM streams WHERE id = ?1`
	insertStream = `INSERT INTO streams (sender, stream, old, head) VALUES (?1, ?2, ?3, ?4)`
	updateHead   = `UPDATE streams SET old = max(old, ?2), head = ?3 WHERE id = ?1`
	oldStreams   = `SELECT id, stream, EXISTS (SELECT 1 FROM pages WHERE pages.stream = streams.id) FROM streams
		WHERE sender = ?1 AND old < ?2 ORDER BY old LIMIT +?3`
	keepStream   = `UPDATE streams SET old = ?2 WHERE id = ?1`
	deleteStream = `DELETE FROM streams WHERE id = ?1`
	listStreams  = `SELECT streams.id, senders.name, streams.stream, streams.head FROM streams
		JOIN senders ON senders.id = streams.sender JOIN groups ON groups.id = senders.grp
		WHERE groups.name = ?1 AND streams.id > ?2 ORDER BY streams.id LIMIT +?3`

	selectPage = `SELECT id, due, body FROM pages WHERE stream = ?1 AND place = ?2`
	insertPage = `INSERT INTO pages (stream, place, grp, due, body) VALUES (?1, ?2, ?3, ?4, ?5)`
	updateBody = `UPDATE pages SET body = ?2 WHERE id = ?1`
	updatePage = `UPDATE pages SET body = ?2, due = ?3 WHERE id = ?1`
	deletePage = `DELETE FROM pages WHERE id = ?1`
	allPages   = `SELECT place, body FROM pages WHERE stream = ?1`
	duePages   = `SELECT pages.place, senders.name, streams.stream FROM pages JOIN streams ON streams.id = pages.stream
		JOIN senders ON senders.id = streams.sender WHERE pages.grp = ?1 AND pages.due BETWEEN ?2 AND ?3 ORDER BY pages.due LIMIT +?4`

	fileBytes = `SELECT (SELECT page_count FROM pragma_page_count) * (SELECT page_size FROM pragma_page_size)`
)
