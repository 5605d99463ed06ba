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

-- place_order is one transaction and one round trip. Whatever it raises has changed nothing.
--
-- The order of its steps is that of a shop which sells one hot product: the product's row, for which everybody waits, is
-- locked last, and only what must follow it stands behind. Users are locked before products and products by id, so that
-- nobody waits in a circle. An equal key waits at its own insert until the first order has ended, before it holds anything.
CREATE FUNCTION place_order(buyer bigint, idempotency_key text, print bytea, product_ids bigint[], quantities bigint[],
    placed timestamptz, OUT order_id bigint, OUT total bigint, OUT prices bigint[], OUT at timestamptz, OUT replayed boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    known bytea;
    after bigint;
    found_lines bigint;
    wanted record;
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
        SELECT array_agg(i.price ORDER BY i.line) INTO prices FROM order_items i WHERE i.order_id = place_order.order_id;
        RETURN;
    END IF;

    -- Prices and what is certainly sold out, without a lock: both are judged again under it.
    SELECT count(*), sum(p.price * l.quantity), array_agg(p.price ORDER BY l.line) INTO found_lines, total, prices
        FROM unnest(product_ids, quantities) WITH ORDINALITY AS l (product, quantity, line)
        JOIN products p ON p.id = l.product AND p.stock >= l.quantity;
    IF found_lines < cardinality(product_ids) THEN
        SELECT l.product, p.stock INTO wanted FROM unnest(product_ids, quantities) AS l (product, quantity)
            LEFT JOIN products p ON p.id = l.product WHERE p.id IS NULL OR p.stock < l.quantity LIMIT 1;
        IF wanted.stock IS NULL THEN
            RAISE SQLSTATE 'ST003' USING DETAIL = wanted.product;
        END IF;
        RAISE SQLSTATE 'ST004' USING DETAIL = wanted.product || ' ' || wanted.stock;
    END IF;

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
    INSERT INTO order_items (order_id, product_id, quantity, price, line)
        SELECT place_order.order_id, l.product, l.quantity, l.price, l.line
        FROM unnest(product_ids, quantities, prices) WITH ORDINALITY AS l (product, quantity, price, line);
    INSERT INTO order_history (order_id, step, status, at) VALUES (order_id, 1, 'PENDING', at), (order_id, 2, 'SUCCESS', at);
    INSERT INTO balance_ledger (user_id, amount, balance_after, kind, ref_id, at)
        VALUES (buyer, -total, after, 'order', order_id, at);

    FOR wanted IN SELECT l.product, l.quantity, l.price FROM unnest(product_ids, quantities, prices) AS l (product, quantity, price)
        ORDER BY l.product
    LOOP
        UPDATE products SET stock = stock - wanted.quantity
            WHERE id = wanted.product AND stock >= wanted.quantity AND price = wanted.price RETURNING stock INTO after;
        IF NOT FOUND THEN
            SELECT stock INTO after FROM products WHERE id = wanted.product;
            IF after >= wanted.quantity THEN
                RAISE SQLSTATE '40001'; -- the price has changed since it was read
            END IF;
            RAISE SQLSTATE 'ST004' USING DETAIL = wanted.product || ' ' || after;
        END IF;
        INSERT INTO stock_ledger (product_id, delta, stock_after, kind, order_id, at)
            VALUES (wanted.product, -wanted.quantity, after, 'order', order_id, at);
        INSERT INTO sales_minutes (minute, product_id, units)
            VALUES (date_trunc('minute', at, 'UTC'), wanted.product, wanted.quantity)
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
