-- The first version of the schema. {schema} stands for its name. Times are Unix
-- milliseconds by the server's clock. Bodies, heads and states are encodings of
-- package replaystate.
--
-- A call locks the row of its group in receivers and has the group's rows for itself
-- until it commits: no two calls wait for each other's pages, and no deadlock is
-- possible. completion is the exception. Transactions of applications insert there,
-- and wait for no call; its primary key lets one of them win a message.
--
-- Rows that change with each call are never updated. tally gets a new row with a higher
-- version and loses the old one, and the newest is found from the end of the index. So
-- no call steps over dead rows that VACUUM cannot remove because a transaction is open
-- for long elsewhere.
--
-- The indexes of a table have no column in common that a query could use either of for,
-- so that it has the choice of one only. Plans are made once, often while a table is
-- empty, and then nothing tells its indexes apart.

CREATE TABLE {schema}.meta (
	id      integer PRIMARY KEY CHECK (id = 1),
	version integer NOT NULL,
	uid     bytea NOT NULL,
	birth   bigint NOT NULL,
	losses  bytea NOT NULL -- of memory, that operators have accepted
);

-- Each time that a process found that calls which had been confirmed were gone. The
-- store has the ID of the newest, and the latest birth. Rows are only inserted, so that
-- the role of receivers can make it younger and not older.
CREATE TABLE {schema}.loss (
	id    bigint PRIMARY KEY,
	uid   bytea NOT NULL,
	birth bigint NOT NULL
);

-- The groups. Rows are locked, and never change.
CREATE TABLE {schema}.receivers (
	id   bigint GENERATED ALWAYS AS IDENTITY,
	name bytea PRIMARY KEY
);

-- The runs of the server that served a group, in their order: one for each start of a
-- server, and for each dump that was restored. version is the group's when the run began:
-- calls that were answered in earlier ones with a higher version are lost. A row for each
-- start takes little, and stays.
CREATE TABLE {schema}.run (
	grp     bigint NOT NULL,
	id      bigint NOT NULL,
	started bigint NOT NULL, -- Unix microseconds
	file    bigint NOT NULL, -- of tally, another one after a dump was restored
	version bigint NOT NULL,
	PRIMARY KEY (grp, id)
);

-- What a group, and each of its senders, holds: the row of the highest version.
CREATE TABLE {schema}.tally (
	grp       bigint NOT NULL,
	sender    bigint NOT NULL, -- 0: the group
	version   bigint NOT NULL, -- of a group: how many calls have written
	records   bigint NOT NULL,
	recents   bigint NOT NULL,
	streams   bigint NOT NULL,
	intervals bigint NOT NULL,
	last_id   bigint NOT NULL, -- of a group: the last number given to a sender or stream
	state     bytea NOT NULL,  -- of a group
	PRIMARY KEY (grp, sender, version)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE {schema}.sender (
	grp  bigint NOT NULL,
	id   bigint NOT NULL,
	name bytea NOT NULL,
	PRIMARY KEY (grp, id)
);
CREATE UNIQUE INDEX sender_name ON {schema}.sender ((grp + 1), name);

CREATE TABLE {schema}.stream (
	grp    bigint NOT NULL,
	id     bigint NOT NULL,
	sender bigint NOT NULL,
	stream bytea NOT NULL,
	old    bigint NOT NULL, -- newest SealedAt, or later if the stream was looked at and had to stay
	head   bytea NOT NULL,
	PRIMARY KEY (grp, id)
);
CREATE UNIQUE INDEX stream_name ON {schema}.stream ((grp + 1), sender, stream);
CREATE INDEX stream_old ON {schema}.stream ((grp + 2), (sender + 1), old);

CREATE TABLE {schema}.page (
	grp    bigint NOT NULL,
	stream bigint NOT NULL,
	place  bigint NOT NULL,
	due    bigint NOT NULL, -- when the page has to be looked at, and 2^52 more if it has no tags
	body   bytea NOT NULL,
	PRIMARY KEY (grp, stream, place)
) WITH (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0, toast_tuple_target = 8160);
-- Tags and tokens are random: they do not compress, and a page stays in its row.
ALTER TABLE {schema}.page ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX page_due ON {schema}.page ((grp + 1), due);

-- Messages that transactions of applications have consumed, until a call takes them
-- over into their page.
CREATE TABLE {schema}.completion (
	grp      bigint NOT NULL,
	sender   bytea NOT NULL,
	stream   bytea NOT NULL,
	sequence bigint NOT NULL,
	token    bytea NOT NULL,
	entered  bigint NOT NULL,
	PRIMARY KEY (grp, sender, stream, sequence)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);
