-- +goose Up

-- How many partitions the books have from which epoch on. `stampede restore --partitions` begins another layout, in an epoch
-- greater than all before: in every partition, old and new, that epoch ends at 0, and the checkpoint stands there. What
-- partitions beyond the number hold is history.
CREATE TABLE layouts (
    epoch      bigint PRIMARY KEY, -- 0: as the books were founded
    partitions integer NOT NULL CHECK (partitions BETWEEN 1 AND 240),
    begun_at   timestamptz NOT NULL DEFAULT now()
);
INSERT INTO layouts (epoch, partitions, begun_at) SELECT 0, partitions, created_at FROM deployment;
