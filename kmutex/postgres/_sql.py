"""The queue on the server: its tables and functions, and what each promises.

A key has one row for each request; the row with the lowest ticket holds (docs/adr/0001-head-of-queue-holds.md), so no
other state can disagree with the queue. A transaction that inserts or deletes rows of a key first locks the row of
`turn` that the key's hash selects, until it commits. So tickets of one key are drawn in the order in which their rows
become visible, and a request that leaves sees all that came before. Two keys of one turn share that short lock only:
rows are found by the whole key. It is a row and not an advisory lock, since any client that may connect can take those.

A ticket is a fencing token: it must never repeat or decrease, whatever part of the log a crash loses. So tickets are
drawn below `life.upto` only, and `reserve` has stored that number before, in a separate flushed transaction. A crash
empties `life`, like every unlogged table; a new life begins above all reserved numbers. No other data must be durable.
"""

from __future__ import annotations

SCHEMA = "kmutex_2"
"""Its number changes with what is below: processes of different numbers do not exclude each other."""

ALIVE = 0x6B6D_7503
"""The first number of the advisory locks that living sessions hold; the second is the session."""

TURNS = 1024
"""Rows of `turn`."""

RESERVED = 1 << 16
"""Tickets in one reservation."""

CLOCK = 1 << 20
"""Tickets that the clock gives in a second, and no life draws faster. So where what was reserved is not known (a
standby that was behind, an old dump) a new life is still above the tickets of all earlier ones, if the clock of its
server is not behind theirs."""

BATCH = 50
"""Dead sessions, and keys of theirs, that one statement of a sweep buries."""

OLDEST = 130000
"""The oldest server that the tests have met."""

INSTALL = f"""
SELECT set_config('synchronous_commit', 'on', true);
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
-- Logged, unlike all else.
CREATE TABLE IF NOT EXISTS {SCHEMA}.reserved (one boolean PRIMARY KEY CHECK (one), upto bigint NOT NULL);
INSERT INTO {SCHEMA}.reserved VALUES (true, 0) ON CONFLICT DO NOTHING;
CREATE SEQUENCE IF NOT EXISTS {SCHEMA}.ticket;
-- Unlogged: a crash of the server ends every session, and so every row; there is nothing to keep.
CREATE UNLOGGED TABLE IF NOT EXISTS {SCHEMA}.life (
    one boolean PRIMARY KEY CHECK (one),
    -- Tickets above the one and up to the other are its own, and nobody else's before or after.
    base bigint NOT NULL,
    upto bigint NOT NULL,
    -- Of this very table, and of this run of the server: a row that came out of a dump is of another life.
    made oid NOT NULL,
    started timestamptz NOT NULL
);
CREATE UNLOGGED TABLE IF NOT EXISTS {SCHEMA}.turn (slot integer PRIMARY KEY);
CREATE UNLOGGED TABLE IF NOT EXISTS {SCHEMA}.session (
    number integer PRIMARY KEY,
    pid integer NOT NULL,
    channel text NOT NULL
);
CREATE UNLOGGED TABLE IF NOT EXISTS {SCHEMA}.queue (
    space bytea NOT NULL,
    key bytea NOT NULL,
    ticket bigint NOT NULL,
    turn integer NOT NULL,
    session integer NOT NULL,
    request bigint NOT NULL,
    PRIMARY KEY (space, key, ticket),
    UNIQUE (session, request)
);

-- The sessions that live: the connection that entered holds the session's lock. Another that holds it, after the
-- session's death, does not count. Takes no lock, so the dead may be many.
CREATE OR REPLACE FUNCTION {SCHEMA}.living() RETURNS SETOF integer LANGUAGE sql VOLATILE AS $$
    SELECT l.objid::bigint::integer FROM pg_locks l
        WHERE l.locktype = 'advisory' AND l.classid = {ALIVE} AND l.objsubid = 2 AND l.granted
        AND l.mode = 'ExclusiveLock'
        AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
        -- Looked up one by one: the locks are few, and the rows of the dead may be many.
        AND EXISTS (SELECT FROM {SCHEMA}.session s WHERE s.number = l.objid::bigint AND s.pid = l.pid OFFSET 0)
$$;

-- A hint: to look whether this request holds its key.
CREATE OR REPLACE FUNCTION {SCHEMA}.tell(in_session integer, in_request bigint) RETURNS void
LANGUAGE sql VOLATILE AS $$
    SELECT pg_notify(s.channel, in_request::text) FROM {SCHEMA}.session s WHERE s.number = in_session
$$;

-- In its turn: removes the rows that dead sessions have in a key. Who holds it then.
CREATE OR REPLACE FUNCTION {SCHEMA}.bury(
    in_space bytea, in_key bytea, OUT session integer, OUT request bigint, OUT ticket bigint
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    LOOP
        WITH living AS MATERIALIZED (SELECT l.number FROM {SCHEMA}.living() AS l(number))
        DELETE FROM {SCHEMA}.queue q WHERE q.space = in_space AND q.key = in_key
            AND NOT EXISTS (SELECT FROM living l WHERE l.number = q.session);
        SELECT q.session, q.request, q.ticket INTO bury.session, bury.request, bury.ticket FROM {SCHEMA}.queue q
            WHERE q.space = in_space AND q.key = in_key ORDER BY q.ticket LIMIT 1;
        EXIT WHEN bury.session IS NULL OR bury.session IN (SELECT {SCHEMA}.living());
    END LOOP;
END
$$;

-- A request: its ticket, and whether it holds. Without in_wait a held key leaves no row, and the ticket is null.
-- Where `holds` is null there was no ticket to be drawn: none is reserved, and nothing has changed.
CREATE OR REPLACE FUNCTION {SCHEMA}.enqueue(
    in_space bytea, in_key bytea, in_turn integer, mine integer, in_request bigint, in_wait boolean,
    OUT ticket bigint, OUT holds boolean
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    head_session integer;
    head_request bigint;
BEGIN
    PERFORM FROM {SCHEMA}.turn t WHERE t.slot = in_turn FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT q.session INTO head_session FROM {SCHEMA}.queue q
        WHERE q.space = in_space AND q.key = in_key ORDER BY q.ticket LIMIT 1;
    IF head_session <> mine AND pg_try_advisory_xact_lock_shared({ALIVE}, head_session) THEN
        -- The holder had died, and this call is who found out: the next in the queue does not know yet.
        SELECT b.session, b.request INTO head_session, head_request FROM {SCHEMA}.bury(in_space, in_key) b;
        PERFORM {SCHEMA}.tell(head_session, head_request);
    END IF;
    IF head_session IS NOT NULL AND NOT in_wait THEN
        holds := false;
        RETURN;
    END IF;
    -- The life is read before the ticket is drawn: its counter was set before it could be seen. A session that died
    -- meanwhile may leave a row here after it was swept; `sweep` looks for those too.
    INSERT INTO {SCHEMA}.queue SELECT in_space, in_key, d.drawn, in_turn, mine, in_request FROM (
        SELECT nextval('{SCHEMA}.ticket') AS drawn, l.base, l.upto FROM {SCHEMA}.session s, {SCHEMA}.life l
            WHERE s.number = mine AND l.made = l.tableoid AND l.started = pg_postmaster_start_time() OFFSET 0
    ) d WHERE d.drawn > d.base AND d.drawn <= d.upto
    RETURNING queue.ticket INTO enqueue.ticket;
    IF FOUND THEN
        holds := head_session IS NULL;
    END IF;
END
$$;

-- Ends a request. What it was: 'held', 'waited', or 'gone'. And the request of the caller's session that holds now.
-- With in_wait_only a request that holds stays. Another session's request that holds then is told.
CREATE OR REPLACE FUNCTION {SCHEMA}.leave(
    in_space bytea, in_key bytea, in_turn integer, mine integer, in_request bigint, in_wait_only boolean,
    OUT was text, OUT request bigint, OUT ticket bigint
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    head_session integer;
    head_request bigint;
    head_ticket bigint;
    my_ticket bigint;
BEGIN
    PERFORM FROM {SCHEMA}.turn t WHERE t.slot = in_turn FOR UPDATE;
    IF in_wait_only THEN
        SELECT q.ticket INTO leave.ticket FROM {SCHEMA}.queue q
            WHERE q.session = mine AND q.request = in_request AND NOT EXISTS (
            SELECT FROM {SCHEMA}.queue o WHERE o.space = in_space AND o.key = in_key AND o.ticket < q.ticket);
        IF FOUND THEN
            was := 'held';
            request := in_request;
            RETURN;
        END IF;
    END IF;
    DELETE FROM {SCHEMA}.queue q WHERE q.session = mine AND q.request = in_request RETURNING q.ticket INTO my_ticket;
    IF NOT FOUND THEN
        was := 'gone';
        RETURN;
    END IF;
    SELECT q.session, q.request, q.ticket INTO head_session, head_request, head_ticket FROM {SCHEMA}.queue q
        WHERE q.space = in_space AND q.key = in_key ORDER BY q.ticket LIMIT 1;
    IF head_ticket < my_ticket THEN
        was := 'waited';
        RETURN;
    END IF;
    was := 'held';
    IF head_session <> mine AND pg_try_advisory_xact_lock_shared({ALIVE}, head_session) THEN
        SELECT b.session, b.request, b.ticket INTO head_session, head_request, head_ticket
            FROM {SCHEMA}.bury(in_space, in_key) b;
    END IF;
    IF head_session = mine THEN
        request := head_request;
        ticket := head_ticket;
    ELSIF head_session IS NOT NULL THEN
        PERFORM {SCHEMA}.tell(head_session, head_request);
    END IF;
END
$$;

-- Removes what dead sessions have left, a batch of it; who holds a key then is told. The dead that it met: 0 is all
-- done. Turns are taken in their order, so two sweeps do not wait for each other in a ring, and a dead session is swept
-- by one of them. A row may also have come after its session's own was swept.
CREATE OR REPLACE FUNCTION {SCHEMA}.sweep() RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    gone integer[];
    one record;
BEGIN
    SELECT array_agg(g.number) INTO gone FROM (
        SELECT s.number FROM {SCHEMA}.session s WHERE s.number NOT IN (SELECT {SCHEMA}.living())
            LIMIT {BATCH} FOR UPDATE OF s SKIP LOCKED
    ) g;
    IF gone IS NULL THEN
        -- From one session of the queue to the next, whatever the number of rows of each.
        WITH RECURSIVE living AS MATERIALIZED (
            SELECT l.number FROM {SCHEMA}.living() AS l(number)
        ), wanting(number) AS (
            SELECT min(q.session) FROM {SCHEMA}.queue q
            UNION ALL
            SELECT (SELECT min(q.session) FROM {SCHEMA}.queue q WHERE q.session > w.number) FROM wanting w
                WHERE w.number IS NOT NULL
        )
        SELECT array_agg(g.number) INTO gone FROM (
            SELECT w.number FROM wanting w WHERE w.number IS NOT NULL
                AND NOT EXISTS (SELECT FROM living l WHERE l.number = w.number)
                AND NOT EXISTS (SELECT FROM {SCHEMA}.session s WHERE s.number = w.number) LIMIT {BATCH}
        ) g;
        IF gone IS NULL THEN
            RETURN 0;
        END IF;
    END IF;
    FOR one IN
        SELECT f.turn, f.space, f.key FROM (
            SELECT q.turn, q.space, q.key FROM {SCHEMA}.queue q WHERE q.session = ANY (gone)
            GROUP BY q.turn, q.space, q.key LIMIT {BATCH}
        ) f ORDER BY f.turn
    LOOP
        PERFORM FROM {SCHEMA}.turn t WHERE t.slot = one.turn FOR UPDATE;
        PERFORM {SCHEMA}.tell(b.session, b.request) FROM {SCHEMA}.bury(one.space, one.key) b;
    END LOOP;
    DELETE FROM {SCHEMA}.session s WHERE s.number = ANY (gone)
        AND NOT EXISTS (SELECT FROM {SCHEMA}.queue q WHERE q.session = s.number);
    RETURN cardinality(gone);
END
$$;

-- The requests of a session that hold their keys: of those named, or of all.
CREATE OR REPLACE FUNCTION {SCHEMA}.holding(mine integer, named bigint[])
RETURNS TABLE (request bigint, ticket bigint) LANGUAGE sql VOLATILE AS $$
    SELECT q.request, q.ticket FROM {SCHEMA}.queue q
        WHERE q.session = mine AND (named IS NULL OR q.request = ANY (named)) AND NOT EXISTS (
        SELECT FROM {SCHEMA}.queue o WHERE o.space = q.space AND o.key = q.key AND o.ticket < q.ticket)
$$;

-- Whether tickets can be drawn: this run of the server has a life, and the counter is within it.
CREATE OR REPLACE FUNCTION {SCHEMA}.alive() RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT EXISTS (
        SELECT FROM {SCHEMA}.life l, {SCHEMA}.ticket t WHERE t.last_value >= l.base AND t.last_value < l.upto
        AND l.made = l.tableoid AND l.started = pg_postmaster_start_time()
    )
$$;

-- Writes down that tickets up to a number may be drawn. To be committed by itself, and before `allow` is called.
CREATE OR REPLACE FUNCTION {SCHEMA}.reserve() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    reached bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    UPDATE {SCHEMA}.reserved r
        SET upto = {RESERVED} + greatest(
            r.upto,
            floor(extract(epoch FROM clock_timestamp()) * {CLOCK})::bigint,
            (SELECT l.upto FROM {SCHEMA}.life l)
        )
        RETURNING r.upto INTO STRICT reached;
    RETURN reached;
END
$$;

-- Begins a life on what was reserved, unless another has done it meanwhile, or did on what was reserved later: tickets
-- of the life before are no higher than the base of this one, so the counter may be set to it, whatever was drawn since
-- and refused.
CREATE OR REPLACE FUNCTION {SCHEMA}.allow(in_upto bigint) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO {SCHEMA}.life VALUES (true, 0, 0, 0, '-infinity') ON CONFLICT DO NOTHING;
    PERFORM FROM {SCHEMA}.life l FOR UPDATE;
    IF NOT {SCHEMA}.alive() AND in_upto - {RESERVED} >= (SELECT l.upto FROM {SCHEMA}.life l) THEN
        -- Rows that came out of a dump.
        DELETE FROM {SCHEMA}.queue q WHERE q.session NOT IN (SELECT {SCHEMA}.living());
        -- Before the life can be seen.
        PERFORM setval('{SCHEMA}.ticket', in_upto - {RESERVED});
        UPDATE {SCHEMA}.life l SET base = in_upto - {RESERVED}, upto = in_upto, made = l.tableoid,
            started = pg_postmaster_start_time();
    END IF;
    INSERT INTO {SCHEMA}.turn SELECT generate_series(0, {TURNS - 1}) ON CONFLICT DO NOTHING;
END
$$;
"""

_RELATIONS = ("reserved", "ticket", "life", "turn", "session", "queue")
_FUNCTIONS = (
    "living()",
    "tell(integer,bigint)",
    "bury(bytea,bytea)",
    "enqueue(bytea,bytea,integer,integer,bigint,boolean)",
    "leave(bytea,bytea,integer,integer,bigint,boolean)",
    "sweep()",
    "holding(integer,bigint[])",
    "alive()",
    "reserve()",
    "allow(bigint)",
)
_THERE = [
    *(f"to_regclass('{SCHEMA}.{name}') IS NOT NULL" for name in _RELATIONS),
    *(f"to_regprocedure('{SCHEMA}.{name}') IS NOT NULL" for name in _FUNCTIONS),
]
LOOK = "SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery()"
"""Who answers: before anything is changed, for it may be a pooler."""
INSTALLED = f"SELECT {' AND '.join(_THERE)}"
ENTER = f"SELECT pg_try_advisory_lock({ALIVE}, $1)"
REGISTER = f"INSERT INTO {SCHEMA}.session VALUES ($1, pg_backend_pid(), $2) ON CONFLICT DO NOTHING RETURNING number"
LEFT_OVER = f"DELETE FROM {SCHEMA}.queue WHERE session = $1"

PREPARED = {
    "enqueue": f"SELECT ticket, holds FROM {SCHEMA}.enqueue($1, $2, $3, $4, $5, $6)",
    "leave": f"SELECT was, request, ticket FROM {SCHEMA}.leave($1, $2, $3, $4, $5, $6)",
    "sweep": f"SELECT {SCHEMA}.sweep()",
    "holding": f"SELECT request, ticket FROM {SCHEMA}.holding($1, $2)",
    "show": f"SELECT key, ticket FROM {SCHEMA}.queue WHERE space = $1 ORDER BY key, ticket",
    "beat": f"SELECT FROM {SCHEMA}.session WHERE number = $1",
    # The session's own row, and each of its requests.
    "mine": f"SELECT q.request FROM {SCHEMA}.session s LEFT JOIN {SCHEMA}.queue q ON q.session = s.number "
    "WHERE s.number = $1",
    "alive": f"SELECT {SCHEMA}.alive()",
    "reserve": f"SELECT {SCHEMA}.reserve()",
    "allow": f"SELECT {SCHEMA}.allow($1)",
}
"""What a session asks again and again."""
PREPARE = "; ".join(f"PREPARE {name} AS {statement}" for name, statement in PREPARED.items())


def settings(patience: float, version: int) -> str:
    """What the statements above rest on, whatever the server, the database or the role has as its default.

    patience: seconds, as for a session; the server knows no more than some days. version: the server's; what it does
    not know yet is left out.
    """
    answered = max(1, min(int(patience * 1000), 700_000_000))
    pinned = {
        # Each statement of a function sees what was committed before it, not before the function.
        "default_transaction_isolation": "'read committed'",
        "default_transaction_read_only": "off",
        "default_transaction_deferrable": "off",
        # Operators and functions of PostgreSQL, whatever others there are of these names.
        "search_path": "pg_catalog, pg_temp",
        # Keys come back in hexadecimal, and messages in one encoding.
        "bytea_output": "hex",
        "client_encoding": "'UTF8'",
        "standard_conforming_strings": "on",
        # A statement that is not done by then is nobody's any more; and of a client that does not ask, nothing is
        # known. Both are longer than the client's own patience, so that it knows first.
        "statement_timeout": str(answered),
        "lock_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        **({"idle_session_timeout": str(3 * answered)} if version >= 140000 else {}),
        **({"transaction_timeout": "0"} if version >= 170000 else {}),
        # Only `reserve` has to be durable, and says so.
        "synchronous_commit": "off",
        "row_security": "on",
        "exit_on_error": "off",
        "default_tablespace": "''",
        "default_table_access_method": "heap",
        "tcp_keepalives_idle": "5",
        "tcp_keepalives_interval": "2",
        "tcp_keepalives_count": "3",
        # The queue is small and its dead rows many, whatever the statistics say: it is read by its indexes.
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "enable_indexscan": "on",
        "enable_indexonlyscan": "on",
        # A worker would cost more than the statement, whatever would force one.
        "max_parallel_workers_per_gather": "0",
        "plan_cache_mode": "auto",
        "jit": "off",
    }
    return "; ".join(f"SET {name} = {value}" for name, value in pinned.items())
