-- +goose Up

-- What engines had acknowledged and a Redis that came back without its tail no longer had, nor the journal: the events of
-- an epoch behind ended_seq, up to acknowledged_seq, the greatest that any engine knows of. Up to beyond_seq the
-- durability of that time had promised to keep them; it is ended_seq where nothing was lost beyond the promise.
CREATE TABLE losses (
    partition        smallint NOT NULL,
    epoch            bigint NOT NULL,
    ended_seq        bigint NOT NULL,
    acknowledged_seq bigint NOT NULL,
    beyond_seq       bigint NOT NULL,
    durability       text NOT NULL,
    holder           text NOT NULL, -- who said so
    at               timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, epoch),
    CHECK (ended_seq >= 0 AND acknowledged_seq > ended_seq AND beyond_seq BETWEEN ended_seq AND acknowledged_seq)
);

-- Named by a repair that would open a Redis which is older than the epoch that sells. A process whose own Redis sells in
-- that epoch takes it away, and the repair lets go.
ALTER TABLE checkpoints ADD COLUMN challenge text;
