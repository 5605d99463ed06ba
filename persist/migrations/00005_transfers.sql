-- +goose Up

-- Units on their way from one partition's shelf to another's: sent takes them off the one, received puts them on the
-- other, which is peer. (sent_epoch, sent_seq) is the event that sent them: in a received row it names, with peer as the
-- partition and the same product, the row of that event. Sent rows that no row has received are under way.
ALTER TABLE stock_ledger ADD COLUMN peer smallint, ADD COLUMN sent_epoch bigint, ADD COLUMN sent_seq bigint;
ALTER TABLE stock_ledger DROP CONSTRAINT stock_ledger_kind_check,
    ADD CONSTRAINT stock_ledger_kind_check CHECK (kind IN ('restock', 'order', 'hold', 'payment', 'release', 'refund', 'sent', 'received'));

-- products.stock is the sum of all deltas: what lies on the shelves, without what is under way. No commit leaves it below
-- zero, however many writers there are: each adds the net of its own events in one step, so the sum is that of what each
-- partition's committed events leave on its own shelf, and no shelf was ever below zero.

CREATE OR REPLACE VIEW stock_postings AS
    SELECT l.partition, l.epoch, l.seq, l.at, l.kind, l.order_id, l.product_id, side.account, side.units
    FROM stock_ledger l CROSS JOIN LATERAL (VALUES
        ('shelf', l.delta),
        ('holds', l.held),
        (CASE WHEN l.kind = 'restock' THEN 'supply' WHEN l.kind IN ('sent', 'received') THEN 'transit' ELSE 'sold' END,
            -(l.delta + l.held))) AS side(account, units)
    WHERE side.units <> 0;

-- What is open, and what came last: for the audit of a running shop. Rows of other kinds never stand in it.
CREATE INDEX stock_ledger_transfers ON stock_ledger (product_id, partition, epoch, seq) WHERE kind IN ('sent', 'received');
