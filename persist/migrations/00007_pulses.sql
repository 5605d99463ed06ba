-- +goose Up

-- The pulse of each partition: a token that processes which sell move by compare-and-swap, here and in `meta` of their Redis, at
-- least every half second. A copy of a Redis falls out of step with it as soon as the original, or another copy, moves it. A
-- token begins with the epoch in which it was made; one of an earlier epoch counts as none.
CREATE TABLE pulses (
    partition smallint PRIMARY KEY,
    pulse     text NOT NULL
);

-- Who does not sell, of those that a repair asks through checkpoints.challenge. A process that sells takes the challenge away
-- instead.
CREATE TABLE challenge_answers (
    partition smallint NOT NULL,
    token     text NOT NULL,
    node      smallint NOT NULL,
    PRIMARY KEY (partition, token, node)
);

-- The holder of a node number that answers challenges for as long as it lives. It differs from nodes.holder where the release
-- before has leased the number.
ALTER TABLE nodes ADD COLUMN answers text;

-- What processes acknowledged on a copy of the Redis that sells, after the copy was made: at most the events after after_seq.
-- The seqs are those of the copy; the books hold other events under them, or none.
CREATE TABLE copy_losses (
    partition        smallint NOT NULL,
    epoch            bigint NOT NULL,
    after_seq        bigint NOT NULL,
    acknowledged_seq bigint NOT NULL CHECK (acknowledged_seq > after_seq),
    durability       text NOT NULL,
    holder           text NOT NULL,
    at               timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, epoch, holder)
);
