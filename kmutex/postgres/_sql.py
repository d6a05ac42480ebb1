"""The queue on the server: its tables and functions, and what each promises.

A key has one row for each request; the row with the lowest ticket holds (docs/adr/0001-head-of-queue-holds.md), so
there is nothing that could disagree with the queue. Whoever inserts or deletes rows of a key first takes the
transaction's advisory lock on the key's hash, and lets it go when the transaction is committed. So tickets of one
key are drawn in the order in which their rows become visible, and who leaves sees who came. Two keys of equal
hashes share that short turn, and nothing else: rows are found by the whole key.
"""

from __future__ import annotations

SCHEMA = "kmutex_1"
"""Its number changes with what is below: processes of different numbers do not exclude each other."""

TURN = 0x6B6D_7501
"""The first number of the advisory locks under which a key's rows are changed; the second is the key's hash."""
ALIVE = 0x6B6D_7502
"""The first number of the advisory locks that living sessions hold; the second is the session."""

INSTALL = f"""
SELECT pg_advisory_xact_lock({ALIVE}, 0);
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE SEQUENCE IF NOT EXISTS {SCHEMA}.session AS integer MINVALUE 1 CYCLE;
-- Logged, unlike the table: a ticket is a fencing token and must not come twice, not even after a crash.
CREATE SEQUENCE IF NOT EXISTS {SCHEMA}.ticket;
-- Unlogged: a crash of the server ends every session, and so every row; there is nothing to keep.
CREATE UNLOGGED TABLE IF NOT EXISTS {SCHEMA}.queue (
    space text NOT NULL,
    key bytea NOT NULL,
    ticket bigint NOT NULL DEFAULT nextval('{SCHEMA}.ticket'),
    session integer NOT NULL,
    request bigint NOT NULL,
    PRIMARY KEY (space, key, ticket),
    UNIQUE (session, request)
);

-- Whether nobody is behind a session any more. Shared, so that two who ask do not take each other for the session.
CREATE OR REPLACE FUNCTION {SCHEMA}.dead(which integer) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT pg_try_advisory_xact_lock_shared({ALIVE}, which)
$$;

-- The request that holds the key. A session that has died holds nothing: its rows go as they come to the head.
CREATE OR REPLACE FUNCTION {SCHEMA}.head(
    in_space text, in_key bytea, mine integer,
    OUT session integer, OUT request bigint, OUT ticket bigint, OUT is_new boolean
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    is_new := false;
    LOOP
        SELECT q.session, q.request, q.ticket INTO session, request, ticket FROM {SCHEMA}.queue q
            WHERE q.space = in_space AND q.key = in_key ORDER BY q.ticket LIMIT 1;
        EXIT WHEN session IS NULL OR session = mine OR NOT {SCHEMA}.dead(session);
        DELETE FROM {SCHEMA}.queue q WHERE q.space = in_space AND q.key = in_key AND q.session = head.session;
        is_new := true;
    END LOOP;
END
$$;

-- Tells the session of the key's holder, unless it is the caller's, which learns it from the answer.
CREATE OR REPLACE FUNCTION {SCHEMA}.tell(
    in_space text, in_key bytea, mine integer, OUT request bigint, OUT ticket bigint
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    head record;
BEGIN
    SELECT h.session, h.request, h.ticket INTO head FROM {SCHEMA}.head(in_space, in_key, mine) h;
    IF head.session = mine THEN
        request := head.request;
        ticket := head.ticket;
    ELSIF head.session IS NOT NULL THEN
        PERFORM pg_notify('{SCHEMA}_' || head.session, head.request || ' ' || head.ticket);
    END IF;
END
$$;

-- A request: its ticket, and whether it holds. Without in_wait a held key leaves no row, and the ticket is null.
CREATE OR REPLACE FUNCTION {SCHEMA}.enqueue(
    in_space text, in_key bytea, in_turn integer, mine integer, in_request bigint, in_wait boolean,
    OUT ticket bigint, OUT holds boolean
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    head record;
BEGIN
    PERFORM pg_advisory_xact_lock({TURN}, in_turn);
    SELECT * INTO head FROM {SCHEMA}.head(in_space, in_key, mine) h;
    holds := head.session IS NULL;
    IF head.is_new AND NOT holds THEN
        -- The holder had died, and this call is who found out: the next in the queue does not know yet.
        PERFORM pg_notify('{SCHEMA}_' || head.session, head.request || ' ' || head.ticket);
    END IF;
    IF holds OR in_wait THEN
        INSERT INTO {SCHEMA}.queue AS q (space, key, session, request) VALUES (in_space, in_key, mine, in_request)
            RETURNING q.ticket INTO ticket;
    END IF;
END
$$;

-- Ends a request. What it was: 'held', 'waited', or 'gone'. And the request of the caller's session that holds now.
-- With in_wait_only a request that holds stays.
CREATE OR REPLACE FUNCTION {SCHEMA}.leave(
    in_space text, in_key bytea, in_turn integer, mine integer, in_request bigint, in_wait_only boolean,
    OUT was text, OUT request bigint, OUT ticket bigint
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    head record;
BEGIN
    PERFORM pg_advisory_xact_lock({TURN}, in_turn);
    SELECT q.session, q.request, q.ticket INTO head FROM {SCHEMA}.queue q
        WHERE q.space = in_space AND q.key = in_key ORDER BY q.ticket LIMIT 1;
    IF head.session IS DISTINCT FROM mine OR head.request <> in_request THEN
        DELETE FROM {SCHEMA}.queue q WHERE q.session = mine AND q.request = in_request;
        was := CASE WHEN FOUND THEN 'waited' ELSE 'gone' END;
        RETURN;
    END IF;
    was := 'held';
    IF in_wait_only THEN
        request := in_request;
        ticket := head.ticket;
        RETURN;
    END IF;
    DELETE FROM {SCHEMA}.queue q WHERE q.session = mine AND q.request = in_request;
    SELECT t.request, t.ticket INTO request, ticket FROM {SCHEMA}.tell(in_space, in_key, mine) t;
END
$$;

-- The keys in which a dead session has a row, whoever it is.
CREATE OR REPLACE FUNCTION {SCHEMA}.left_behind(mine integer) RETURNS TABLE (space text, key bytea)
LANGUAGE sql VOLATILE AS $$
    WITH found AS MATERIALIZED (SELECT DISTINCT q.session FROM {SCHEMA}.queue q WHERE q.session <> mine),
    gone AS MATERIALIZED (SELECT f.session FROM found f WHERE {SCHEMA}.dead(f.session))
    SELECT DISTINCT q.space, q.key FROM {SCHEMA}.queue q JOIN gone g ON q.session = g.session
$$;

-- Removes the rows of dead sessions from one key; who holds it then is told.
CREATE OR REPLACE FUNCTION {SCHEMA}.sweep(in_space text, in_key bytea, in_turn integer) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock({TURN}, in_turn);
    WITH found AS MATERIALIZED (
        SELECT DISTINCT q.session FROM {SCHEMA}.queue q WHERE q.space = in_space AND q.key = in_key
    ),
    gone AS MATERIALIZED (SELECT f.session FROM found f WHERE {SCHEMA}.dead(f.session))
    DELETE FROM {SCHEMA}.queue q USING gone g
        WHERE q.space = in_space AND q.key = in_key AND q.session = g.session;
    PERFORM {SCHEMA}.tell(in_space, in_key, 0);
END
$$;

-- The requests of a session that hold their keys.
CREATE OR REPLACE FUNCTION {SCHEMA}.holding(mine integer) RETURNS TABLE (request bigint, ticket bigint)
LANGUAGE sql VOLATILE AS $$
    SELECT q.request, q.ticket FROM {SCHEMA}.queue q WHERE q.session = mine AND NOT EXISTS (
        SELECT FROM {SCHEMA}.queue o WHERE o.space = q.space AND o.key = q.key AND o.ticket < q.ticket)
$$;
"""

INSTALLED = f"SELECT to_regprocedure('{SCHEMA}.holding(integer)') IS NOT NULL"
NEW_SESSION = f"SELECT nextval('{SCHEMA}.session')"
ENTER = f"SELECT pg_try_advisory_lock({ALIVE}, %s)"
LEFT_OVER = f"DELETE FROM {SCHEMA}.queue WHERE session = %s"
ENQUEUE = f"SELECT ticket, holds FROM {SCHEMA}.enqueue($1, $2, $3, $4, $5, $6)"
LEAVE = f"SELECT was, request, ticket FROM {SCHEMA}.leave($1, $2, $3, $4, $5, $6)"
LEFT_BEHIND = f"SELECT space, key FROM {SCHEMA}.left_behind($1)"
SWEEP = f"SELECT {SCHEMA}.sweep($1, $2, $3)"
HOLDING = f"SELECT request, ticket FROM {SCHEMA}.holding($1)"
SHOW = f"SELECT key, ticket FROM {SCHEMA}.queue WHERE space = $1 ORDER BY key, ticket"
