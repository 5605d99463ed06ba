-- +goose Up

-- Double entry in stock: units stand on the shelf (delta), in holds (held), or are sold; what one of an order's postings
-- takes from one account it gives to another, so sold changes by -(delta + held). A payment of a held order moves units
-- from holds to sold: the shelf does not change, and its level is not told.
ALTER TABLE stock_ledger ADD COLUMN held bigint NOT NULL DEFAULT 0;
ALTER TABLE stock_ledger ALTER COLUMN stock_after DROP NOT NULL;
ALTER TABLE stock_ledger DROP CONSTRAINT stock_ledger_kind_check,
    ADD CONSTRAINT stock_ledger_kind_check CHECK (kind IN ('restock', 'order', 'hold', 'payment', 'release', 'refund'));
UPDATE stock_ledger SET held = -delta WHERE kind IN ('hold', 'release');
INSERT INTO stock_ledger (partition, epoch, seq, product_id, delta, held, stock_after, kind, order_id, at)
    SELECT b.partition, b.epoch, b.seq, i.product_id, 0, -i.quantity, NULL, 'payment', b.ref_id, b.at
    FROM balance_ledger b JOIN order_items i ON i.order_id = b.ref_id
    WHERE b.kind = 'order' AND b.ref_id IN (SELECT order_id FROM stock_ledger WHERE kind = 'hold');

-- Both sides of every posting. Money moves between the buyer, revenue and cash (charges); units between the shelf, holds,
-- sold and supply (restocks). Of each order, and of each event, the amounts of a view add up to zero.
CREATE VIEW money_postings AS
    SELECT l.partition, l.epoch, l.seq, l.at, l.kind, CASE WHEN l.kind <> 'charge' THEN l.ref_id END AS order_id,
        CASE WHEN l.kind = 'charge' THEN l.ref_id END AS charge_id, side.account, side.user_id, side.amount
    FROM balance_ledger l CROSS JOIN LATERAL (VALUES
        ('buyer', l.user_id, l.amount),
        (CASE WHEN l.kind = 'charge' THEN 'cash' ELSE 'revenue' END, NULL, -l.amount)) AS side(account, user_id, amount);
CREATE VIEW stock_postings AS
    SELECT l.partition, l.epoch, l.seq, l.at, l.kind, l.order_id, l.product_id, side.account, side.units
    FROM stock_ledger l CROSS JOIN LATERAL (VALUES
        ('shelf', l.delta),
        ('holds', l.held),
        (CASE WHEN l.kind = 'restock' THEN 'supply' ELSE 'sold' END, -(l.delta + l.held))) AS side(account, units)
    WHERE side.units <> 0;

-- What was sold and not given back, in the hour (UTC) of the sale: reports add these up instead of going over all orders.
-- A row a partition, so that writers do not wait for each other.
CREATE TABLE sales_hours (
    partition  smallint NOT NULL,
    hour       timestamptz NOT NULL,
    product_id bigint NOT NULL,
    units      bigint NOT NULL,
    revenue    numeric(38) NOT NULL, -- minor units; the totals of an hour may exceed a bigint
    orders     bigint NOT NULL,
    PRIMARY KEY (hour, product_id, partition)
);
INSERT INTO sales_hours (partition, hour, product_id, units, revenue, orders)
    SELECT b.partition, date_trunc('hour', b.at, 'UTC'), i.product_id, sum(i.quantity), sum(i.quantity * i.price), count(*)
    FROM balance_ledger b JOIN orders o ON o.id = b.ref_id JOIN order_items i ON i.order_id = o.id
    WHERE b.kind = 'order' AND o.status = 'SUCCESS' GROUP BY 1, 2, 3;

CREATE VIEW sales_hourly AS
    SELECT hour AS bucket, product_id, sum(units)::bigint AS units, sum(revenue) AS revenue, sum(orders)::bigint AS orders
    FROM sales_hours GROUP BY hour, product_id HAVING sum(orders) > 0;
CREATE VIEW sales_daily AS
    SELECT date_trunc('day', hour, 'UTC') AS bucket, product_id, sum(units)::bigint AS units, sum(revenue) AS revenue,
        sum(orders)::bigint AS orders
    FROM sales_hours GROUP BY 1, product_id HAVING sum(orders) > 0;

-- A user's postings, newest first: for reports, and for the audit of a running shop.
CREATE INDEX balance_ledger_of_user ON balance_ledger (user_id, epoch, seq);

-- The writer changes users' balances all the time: a page with room takes the new row without new index entries.
ALTER TABLE users SET (fillfactor = 80);

-- Few at any time: the audit and a restore look for them. Orders paid at once never stand in it.
CREATE INDEX orders_unpaid ON orders (id) WHERE status = 'PENDING';

-- Events that stand in the journal and of which nothing could be derived; everything else went on. An event leaves when
-- `stampede rebuild-reports` could derive it.
CREATE TABLE quarantine (
    partition smallint NOT NULL,
    epoch     bigint NOT NULL,
    seq       bigint NOT NULL,
    reason    text NOT NULL,
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, epoch, seq)
);
