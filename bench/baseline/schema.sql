-- The books of the baseline: the facts that Stampede keeps of an order, with the indexes that it has. No foreign keys, as
-- there: each would cost a look-up a row.

CREATE TABLE users (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    email      text NOT NULL,
    balance    bigint NOT NULL DEFAULT 0 CHECK (balance >= 0),
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50); -- a page with room takes the new row without new index entries
CREATE UNIQUE INDEX users_email_key ON users (lower(email));

CREATE TABLE products (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    price      bigint NOT NULL CHECK (price >= 0),
    stock      bigint NOT NULL CHECK (stock >= 0),
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- As long as Stampede's ids, so that answers are as long.
CREATE SEQUENCE ids START 100000000000000000 CACHE 100;

CREATE TABLE idempotency (
    user_id     bigint NOT NULL,
    key         text NOT NULL,
    fingerprint bytea NOT NULL,
    ref_id      bigint NOT NULL, -- order or charge
    PRIMARY KEY (user_id, key)
);

CREATE TABLE orders (
    id          bigint PRIMARY KEY,
    user_id     bigint NOT NULL,
    status      text NOT NULL,
    total_price bigint NOT NULL CHECK (total_price >= 0),
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);
CREATE INDEX orders_of_user ON orders (user_id, id);

CREATE TABLE order_items (
    order_id   bigint NOT NULL,
    product_id bigint NOT NULL,
    quantity   bigint NOT NULL CHECK (quantity > 0),
    price      bigint NOT NULL CHECK (price >= 0),
    line       smallint NOT NULL,
    PRIMARY KEY (order_id, product_id)
);

CREATE TABLE order_history (
    order_id bigint NOT NULL,
    step     smallint NOT NULL,
    status   text NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (order_id, step)
);

CREATE TABLE balance_ledger (
    id            bigint GENERATED ALWAYS AS IDENTITY (CACHE 100) PRIMARY KEY,
    user_id       bigint NOT NULL,
    amount        bigint NOT NULL, -- signed
    balance_after bigint NOT NULL CHECK (balance_after >= 0),
    kind          text NOT NULL,
    ref_id        bigint NOT NULL, -- order or charge
    at            timestamptz NOT NULL
);
CREATE INDEX balance_ledger_of_user ON balance_ledger (user_id, id);

CREATE TABLE stock_ledger (
    id          bigint GENERATED ALWAYS AS IDENTITY (CACHE 100) PRIMARY KEY,
    product_id  bigint NOT NULL,
    delta       bigint NOT NULL, -- signed
    stock_after bigint NOT NULL CHECK (stock_after >= 0),
    kind        text NOT NULL,
    order_id    bigint,
    at          timestamptz NOT NULL
);

-- What the top five are added up from.
CREATE TABLE sales_minutes (
    minute     timestamptz NOT NULL,
    product_id bigint NOT NULL,
    units      bigint NOT NULL,
    PRIMARY KEY (minute, product_id)
) WITH (fillfactor = 50);

-- place_order is one transaction and one round trip. Whatever it raises has changed nothing. The lines come, and the prices
-- go, in the order of product ids; line says where each stood in the request.
--
-- The order of its steps is that of a shop which sells one hot product: the product's row, for which everybody waits, is
-- locked last, and only what must follow it stands behind. Users are locked before products and products by id, so that
-- nobody waits in a circle. An equal key waits at its own insert until the first order has ended, before it holds anything.
-- Statements of single values in a loop cost a third less than one over unnest, where most orders have one line.
CREATE FUNCTION place_order(buyer bigint, idempotency_key text, print bytea, product_ids bigint[], quantities bigint[],
    lines smallint[], placed timestamptz,
    OUT order_id bigint, OUT total bigint, OUT prices bigint[], OUT at timestamptz, OUT replayed boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    known bytea;
    unit_price bigint;
    after bigint;
BEGIN
    order_id := nextval('ids');
    at := placed;
    replayed := false;
    INSERT INTO idempotency (user_id, key, fingerprint, ref_id) VALUES (buyer, idempotency_key, print, order_id)
        ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT i.fingerprint, i.ref_id INTO known, order_id FROM idempotency i
            WHERE i.user_id = buyer AND i.key = idempotency_key;
        IF known <> print THEN
            RAISE SQLSTATE 'ST001';
        END IF;
        SELECT o.total_price, o.created_at, true INTO total, at, replayed FROM orders o WHERE o.id = place_order.order_id;
        SELECT array_agg(i.price ORDER BY i.product_id) INTO prices FROM order_items i WHERE i.order_id = place_order.order_id;
        RETURN;
    END IF;

    -- Prices and what is certainly sold out, without a lock: both are judged again under it.
    total := 0;
    FOR i IN 1 .. cardinality(product_ids) LOOP
        SELECT price, stock INTO unit_price, after FROM products WHERE id = product_ids[i];
        IF NOT FOUND THEN
            RAISE SQLSTATE 'ST003' USING DETAIL = product_ids[i];
        END IF;
        IF after < quantities[i] THEN
            RAISE SQLSTATE 'ST004' USING DETAIL = product_ids[i] || ' ' || after;
        END IF;
        prices[i] := unit_price;
        total := total + unit_price * quantities[i];
    END LOOP;

    UPDATE users SET balance = balance - total WHERE id = buyer AND balance >= total RETURNING balance INTO after;
    IF NOT FOUND THEN
        SELECT balance INTO after FROM users WHERE id = buyer;
        IF NOT FOUND THEN
            RAISE SQLSTATE 'ST002';
        END IF;
        RAISE SQLSTATE 'ST005' USING DETAIL = after;
    END IF;
    INSERT INTO orders (id, user_id, status, total_price, created_at, updated_at)
        VALUES (order_id, buyer, 'SUCCESS', total, at, at);
    INSERT INTO order_history (order_id, step, status, at) VALUES (order_id, 1, 'PENDING', at), (order_id, 2, 'SUCCESS', at);
    INSERT INTO balance_ledger (user_id, amount, balance_after, kind, ref_id, at)
        VALUES (buyer, -total, after, 'order', order_id, at);
    FOR i IN 1 .. cardinality(product_ids) LOOP
        INSERT INTO order_items (order_id, product_id, quantity, price, line)
            VALUES (order_id, product_ids[i], quantities[i], prices[i], lines[i]);
    END LOOP;

    FOR i IN 1 .. cardinality(product_ids) LOOP
        UPDATE products SET stock = stock - quantities[i]
            WHERE id = product_ids[i] AND stock >= quantities[i] AND price = prices[i] RETURNING stock INTO after;
        IF NOT FOUND THEN
            SELECT stock INTO after FROM products WHERE id = product_ids[i];
            IF after >= quantities[i] THEN
                RAISE SQLSTATE '40001'; -- the price has changed since it was read
            END IF;
            RAISE SQLSTATE 'ST004' USING DETAIL = product_ids[i] || ' ' || after;
        END IF;
        INSERT INTO stock_ledger (product_id, delta, stock_after, kind, order_id, at)
            VALUES (product_ids[i], -quantities[i], after, 'order', order_id, at);
        INSERT INTO sales_minutes (minute, product_id, units)
            VALUES (date_trunc('minute', at, 'UTC'), product_ids[i], quantities[i])
            ON CONFLICT (minute, product_id) DO UPDATE SET units = sales_minutes.units + excluded.units;
    END LOOP;
END
$$;

-- charge adds to a balance; its key works as that of an order does.
CREATE FUNCTION charge(payer bigint, sum bigint, idempotency_key text, print bytea,
    OUT charge_id bigint, OUT balance bigint, OUT replayed boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    known bytea;
BEGIN
    charge_id := nextval('ids');
    replayed := false;
    INSERT INTO idempotency (user_id, key, fingerprint, ref_id) VALUES (payer, idempotency_key, print, charge_id)
        ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT i.fingerprint, i.ref_id INTO known, charge_id FROM idempotency i
            WHERE i.user_id = payer AND i.key = idempotency_key;
        IF known <> print THEN
            RAISE SQLSTATE 'ST001';
        END IF;
        SELECT l.balance_after, true INTO balance, replayed FROM balance_ledger l
            WHERE l.user_id = payer AND l.ref_id = charge_id;
        RETURN;
    END IF;
    UPDATE users u SET balance = u.balance + charge.sum WHERE u.id = payer RETURNING u.balance INTO balance;
    IF NOT FOUND THEN
        RAISE SQLSTATE 'ST002';
    END IF;
    INSERT INTO balance_ledger (user_id, amount, balance_after, kind, ref_id, at)
        VALUES (payer, sum, balance, 'charge', charge_id, now());
END
$$;
