package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// Cart is what a user means to buy, with prices and stocks as they are now: it holds no stock.
type Cart struct {
	UserID int64
	Items  []CartItem
}

// CartItem is a product in a cart.
type CartItem struct {
	ProductID int64
	Name      string
	Price     int64 // minor units
	Quantity  int64
	Stock     int64 // units that can be bought now
}

// Total is what the cart would cost now, in minor units.
func (c *Cart) Total() int64 {
	var total int64
	for _, i := range c.Items {
		total += i.Price * i.Quantity
	}
	return total
}

// cartTries bounds how often an operation on a cart that changed under it is begun anew.
const cartTries = 8

var errCartMoves = fmt.Errorf("%w: the cart changes too fast", ErrOverloaded)

// Cart returns a user's cart.
func (e *Engine) Cart(ctx context.Context, user int64) (Cart, error) {
	if err := checkUser(user); err != nil {
		return Cart{}, err
	}
	lines, err := e.cartLines(ctx, e.partitionOf(user), user)
	if err != nil {
		return Cart{}, err
	}
	return e.liveCart(ctx, user, lines)
}

// cartLines reads what is in a user's cart.
func (e *Engine) cartLines(ctx context.Context, p *partition, user int64) ([]Line, error) {
	values, err := e.get(ctx, p, e.keys.Balance(p.number, user), e.keys.Cart(p.number, user))
	if err != nil {
		return nil, err
	}
	if _, known := values[0].(string); !known {
		if err := e.confirmDoor(ctx, p); err != nil {
			return nil, err
		}
		return nil, ErrUserNotFound
	}
	record, _ := values[1].(string)
	return DecodeCart(record)
}

// liveCart puts names, prices and stocks to the lines of a cart.
func (e *Engine) liveCart(ctx context.Context, user int64, lines []Line) (Cart, error) {
	cart := Cart{UserID: user, Items: make([]CartItem, len(lines))}
	if len(lines) == 0 {
		return cart, nil
	}
	ids := make([]int64, len(lines))
	for i, l := range lines {
		ids[i] = l.ProductID
	}
	products, err := e.allProducts(ctx, ids)
	if err != nil {
		return Cart{}, err
	}
	for i, p := range products {
		cart.Items[i] = CartItem{
			ProductID: p.ID, Name: p.Name, Price: p.Price, Quantity: lines[i].Quantity, Stock: p.Stock,
		}
	}
	return cart, nil
}

// CartAddRequest adds units of a product to a cart.
type CartAddRequest struct {
	UserID    int64
	ProductID int64
	Quantity  int64
	Key       string // idempotency key, may be empty
}

// AddToCart adds to a user's cart; a product that is in it already adds up. The second result says that an earlier call
// with the same key did.
func (e *Engine) AddToCart(ctx context.Context, r CartAddRequest) (Cart, bool, error) {
	switch {
	case r.ProductID < 1:
		return Cart{}, false, invalid("product_id must be a positive integer")
	case r.Quantity < 1 || r.Quantity > QuantityMax:
		return Cart{}, false, invalid("quantity must be 1 to %d", QuantityMax)
	}
	if err := checkUser(r.UserID); err != nil {
		return Cart{}, false, err
	}
	if r.ProductID > IDMax {
		return Cart{}, false, &Refusal{Reason: ErrProductNotFound, ProductID: r.ProductID}
	}
	op := cartOp{user: r.UserID, product: r.ProductID, quantity: r.Quantity}
	if r.Key == "" {
		cart, err := e.changeCart(ctx, &op)
		return cart, false, err
	}
	if err := checkKey(r.Key); err != nil {
		return Cart{}, false, err
	}
	op.key = r.Key
	op.fingerprint = fingerprint("POST /cart/add", r.UserID,
		strconv.FormatInt(r.ProductID, 10), strconv.FormatInt(r.Quantity, 10))
	return e.changeCartOnce(ctx, op)
}

// RemoveFromCart takes a product out of a user's cart, if it is in it.
func (e *Engine) RemoveFromCart(ctx context.Context, user, product int64) (Cart, error) {
	if product < 1 {
		return Cart{}, invalid("product_id must be a positive integer")
	}
	if err := checkUser(user); err != nil {
		return Cart{}, err
	}
	if product > IDMax {
		return e.Cart(ctx, user) // there is none, and scripts could not tell it from others
	}
	return e.changeCart(ctx, &cartOp{user: user, product: product})
}

// changeCart changes a cart without a key and returns it as it is now.
func (e *Engine) changeCart(ctx context.Context, op *cartOp) (Cart, error) {
	if err := e.partitionOf(op.user).queue.do(ctx, cartKind, op, 1); err != nil {
		return Cart{}, err
	}
	lines, err := DecodeCart(op.record)
	if err != nil {
		return Cart{}, err
	}
	return e.liveCart(ctx, op.user, lines)
}

// changeCartOnce changes a cart under a key. The script stores what renders the same answer again, so it is told of
// all products in the cart, which are read first.
func (e *Engine) changeCartOnce(ctx context.Context, op cartOp) (Cart, bool, error) {
	p := e.partitionOf(op.user)
	for range cartTries {
		lines, err := e.cartLines(ctx, p, op.user)
		if err != nil {
			return Cart{}, false, err
		}
		try := op
		try.products = append(make([]int64, 0, len(lines)+1), op.product)
		for _, l := range lines {
			if l.ProductID != op.product {
				try.products = append(try.products, l.ProductID)
			}
		}
		if try.elsewhere, err = e.elsewhereUnits(ctx, p, try.products); err != nil {
			return Cart{}, false, err
		}
		err = p.queue.do(ctx, keyedCartKind, &try, len(try.products))
		if errors.Is(err, errCartChanged) {
			continue
		}
		if err != nil {
			return Cart{}, false, err
		}
		cart, err := decodeCartAnswer(op.user, try.answer)
		return cart, try.replayed, err
	}
	return Cart{}, false, errCartMoves
}

// elsewhereUnits returns the units of products in all partitions but one.
func (e *Engine) elsewhereUnits(ctx context.Context, home *partition, products []int64) ([]int64, error) {
	units := make([]int64, len(products))
	if len(e.partitions) == 1 {
		return units, nil
	}
	shares, err := e.shares(ctx, products, false)
	if err != nil {
		return nil, err
	}
	shares = append(shares[:home.number:home.number], shares[home.number+1:]...)
	for i, id := range products {
		// A product that is not listed everywhere yet, or unknown, is judged by the script.
		if units[i], _, err = sumShares(id, shares, i); err != nil {
			return nil, err
		}
	}
	return units, nil
}

// decodeCartAnswer reads what lua/cart.lua stored under a key: product, quantity, stock, catalogue record, ...
func decodeCartAnswer(user int64, answer string) (Cart, error) {
	const fields = 4
	d := &decoder{b: []byte(answer)}
	n := d.array(fields * LinesMax)
	if d.err == nil && n%fields != 0 {
		d.err = fmt.Errorf("%d values are no items of %d", n, fields)
	}
	cart := Cart{UserID: user, Items: make([]CartItem, n/fields)}
	for i := range cart.Items {
		item := &cart.Items[i]
		item.ProductID, item.Quantity, item.Stock = d.int(), d.int(), d.int()
		record := d.string()
		if d.err != nil {
			break
		}
		product, err := decodeCatalogue(item.ProductID, record)
		if err != nil {
			return Cart{}, err
		}
		item.Name, item.Price = product.Name, product.Price
	}
	d.end()
	if d.err != nil {
		return Cart{}, fmt.Errorf("%w: answer of a cart: %v", ErrCorrupt, d.err) //nolint:errorlint // for the log
	}
	return cart, nil
}

// CartOrderRequest buys what is in a cart.
type CartOrderRequest struct {
	UserID int64
	Later  bool   // hold the stock and wait for Pay, instead of paying at once
	Key    string // idempotency key
}

// OrderCart places an order of what is in a user's cart. In the same step what was bought leaves the cart; what comes into
// it meanwhile stays.
func (e *Engine) OrderCart(ctx context.Context, r CartOrderRequest) (Order, bool, error) {
	if err := checkUser(r.UserID); err != nil {
		return Order{}, false, err
	}
	if err := checkKey(r.Key); err != nil {
		return Order{}, false, err
	}
	payment := "now"
	if r.Later {
		payment = "later"
	}
	op := placeOp{
		user: r.UserID, key: r.Key, cart: true,
		fingerprint: fingerprint("POST /cart/order", r.UserID, payment),
	}
	for range cartTries {
		var err error
		if op.lines, err = e.cartLines(ctx, e.partitionOf(r.UserID), r.UserID); err != nil {
			return Order{}, false, err
		}
		op.order = e.ids.next()
		order, replayed, err := e.place(ctx, op, r.Later)
		if !errors.Is(err, errCartChanged) {
			return order, replayed, err
		}
	}
	return Order{}, false, errCartMoves
}
