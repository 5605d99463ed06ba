-- +goose Up

-- What users mean to buy. An empty cart has no row. (epoch, seq) is the event after which the cart was so: the audit
-- finds by it what the journal says of the row.
CREATE TABLE carts (
    user_id    bigint PRIMARY KEY,
    epoch      bigint NOT NULL,
    seq        bigint NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE TABLE cart_items (
    user_id    bigint NOT NULL,
    product_id bigint NOT NULL,
    quantity   bigint NOT NULL CHECK (quantity > 0),
    line       smallint NOT NULL DEFAULT 0, -- from 1, as the cart lists them
    PRIMARY KEY (user_id, product_id)
);

-- The items of an order in the order in which it was placed, from 1. Rows from before lie as they were written.
ALTER TABLE order_items ADD COLUMN line smallint NOT NULL DEFAULT 0;
UPDATE order_items i SET line = n.line
    FROM (SELECT order_id, product_id, row_number() OVER (PARTITION BY order_id ORDER BY ctid) AS line FROM order_items) n
    WHERE i.order_id = n.order_id AND i.product_id = n.product_id;

ALTER TABLE balance_ledger DROP CONSTRAINT balance_ledger_kind_check,
    ADD CONSTRAINT balance_ledger_kind_check CHECK (kind IN ('charge', 'order', 'refund'));

-- order: sold at once. hold: held for an unpaid order. release: given back, unpaid. refund: given back, paid.
ALTER TABLE stock_ledger DROP CONSTRAINT stock_ledger_kind_check,
    ADD CONSTRAINT stock_ledger_kind_check CHECK (kind IN ('restock', 'order', 'hold', 'release', 'refund'));

-- A user's orders, newest first.
CREATE INDEX orders_of_user ON orders (user_id, id);
