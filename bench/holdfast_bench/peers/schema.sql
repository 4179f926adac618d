-- Tables of the peer postgres. Every fact of a hold changes under the lock of its items' rows.
-- state: 1 held (expired, once expires_ms has passed), 2 committed, 3 released

CREATE FUNCTION now_ms() RETURNS bigint LANGUAGE sql VOLATILE
    AS $$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

CREATE TABLE items (
    sku text PRIMARY KEY, on_hand bigint NOT NULL,
    held bigint NOT NULL DEFAULT 0, sold bigint NOT NULL DEFAULT 0,
    CHECK (held >= 0 AND sold >= 0 AND held + sold <= on_hand));

CREATE TABLE reservations (
    id text PRIMARY KEY, state smallint NOT NULL, created_ms bigint NOT NULL,
    expires_ms bigint NOT NULL, ended_ms bigint NOT NULL DEFAULT 0);

CREATE TABLE lines (
    reservation_id text REFERENCES reservations, sku text REFERENCES items,
    quantity bigint NOT NULL, expires_ms bigint NOT NULL, is_held boolean NOT NULL DEFAULT true,
    PRIMARY KEY (reservation_id, sku));

CREATE INDEX due ON lines (sku, expires_ms) WHERE is_held;
