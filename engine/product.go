package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Product is a product of the catalogue, with the stock that can be bought now.
type Product struct {
	ID        int64
	Name      string
	Price     int64 // minor units
	Stock     int64 // units
	Version   int64 // of name and price; grows with each change
	CreatedAt time.Time
}

// RestockRequest changes a product's stock by hand.
type RestockRequest struct {
	ProductID int64
	Delta     int64 // units, not 0
	Reason    string
	Key       string // idempotency key, in the admins' scope
}

// Restock changes stock by Delta and returns the units after it. The second result says that an earlier call with
// the same key did.
func (e *Engine) Restock(ctx context.Context, r RestockRequest) (int64, bool, error) {
	switch {
	case r.ProductID < 1:
		return 0, false, invalid("the product id must be a positive integer")
	case r.Delta == 0 || r.Delta > StockMax || r.Delta < -StockMax:
		return 0, false, invalid("delta must be -%d to %d and not 0", StockMax, StockMax)
	case len(r.Reason) > 4*NameMax || len([]rune(r.Reason)) > NameMax:
		return 0, false, invalid("reason has more than %d characters", NameMax)
	case r.ProductID > IDMax:
		return 0, false, &Refusal{Reason: ErrProductNotFound, ProductID: r.ProductID}
	}
	if err := checkKey(r.Key); err != nil {
		return 0, false, err
	}
	p := e.partitions[e.keys.Home(r.ProductID)]
	op := &restockOp{
		product: r.ProductID, delta: r.Delta, reason: r.Reason, key: r.Key,
		fingerprint: fingerprint("POST /products/{id}/stock", adminScope,
			strconv.FormatInt(r.ProductID, 10), strconv.FormatInt(r.Delta, 10), r.Reason),
	}
	unlock, err := e.lockAdminKey(ctx, p, r.Key)
	if err != nil {
		return 0, false, err
	}
	defer unlock()
	restock := func() error {
		elsewhere, err := e.elsewhereUnits(ctx, p, []int64{r.ProductID})
		if err != nil {
			return err
		}
		op.elsewhere = elsewhere[0]
		return p.queue.do(ctx, restockKind, op, 1)
	}
	err = e.supply(ctx, p, asker{op.key, op.fingerprint}, []Line{{ProductID: r.ProductID, Quantity: -r.Delta}}, restock(), restock)
	if err != nil {
		return 0, false, err
	}
	if r.Delta > 0 && !op.replayed {
		e.spread(r.ProductID, r.Delta)
	}
	return op.stock, op.replayed, nil
}

// lockAdminKey makes sure that an admin's key was not used in another partition than the one it is for now. With
// several partitions a script sees its own only; the lock makes look and change one step within this process.
func (e *Engine) lockAdminKey(ctx context.Context, p *partition, key string) (unlock func(), err error) {
	if len(e.partitions) == 1 {
		return func() {}, nil
	}
	lock := &e.adminKeys[crc16(key)%uint16(len(e.adminKeys))]
	lock.Lock()
	if err := e.usedElsewhere(ctx, p, key); err != nil {
		lock.Unlock()
		return nil, err
	}
	return lock.Unlock, nil
}

// usedElsewhere looks for an admin's key in the partitions other than the one that a request is for: there it can only
// have served another.
func (e *Engine) usedElsewhere(ctx context.Context, home *partition, key string) error {
	for _, p := range e.partitions {
		if p == home {
			continue
		}
		_, found, err := e.read(ctx, p, e.keys.Idempotency(p.number, adminScope, key))
		if err != nil {
			return err
		}
		if found {
			return ErrKeyReused
		}
	}
	return nil
}

// List puts a product of Postgres into every partition: name, price and version, and its share of the initial units where
// none stands yet. Safe to repeat.
func (e *Engine) List(ctx context.Context, product Product, initialStock int64) error {
	errs := make([]error, len(e.partitions))
	var all sync.WaitGroup
	for i, p := range e.partitions {
		op := &listOp{product: product, initial: e.InitialShare(product.ID, p.number, initialStock)}
		all.Go(func() { errs[i] = p.queue.do(ctx, listKind, op, 1) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Product returns a product with its stock, read after the call began.
func (e *Engine) Product(ctx context.Context, id int64) (Product, error) {
	if id < 1 {
		return Product{}, invalid("the product id must be a positive integer")
	}
	if id <= IDMax {
		found, err := e.products(ctx, []int64{id})
		if err != nil {
			return Product{}, err
		}
		if len(found) == 1 {
			return found[0], nil
		}
		if err := e.confirmDoor(ctx, e.partitions[0]); err != nil {
			return Product{}, err
		}
	}
	return Product{}, &Refusal{Reason: ErrProductNotFound, ProductID: id}
}

// scanChunk is how many ids one step of Products looks at; ids come from a sequence, so they are nearly dense.
const scanChunk = 256

// Products returns up to limit products with ids above after, by id, and whether there may be more.
func (e *Engine) Products(ctx context.Context, after int64, limit int) ([]Product, bool, error) {
	p := e.partitions[0]
	text, found, err := e.read(ctx, p, e.keys.Listed(p.number))
	if err != nil {
		return nil, false, err
	}
	if !found {
		return nil, false, e.confirmDoor(ctx, p)
	}
	highest, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, false, fmt.Errorf("%w: highest product id", ErrCorrupt)
	}
	products := make([]Product, 0, limit+1)
	for next := after + 1; next <= highest && len(products) <= limit; {
		n := min(int64(scanChunk), highest-next+1, int64(limit+1-len(products)+8))
		ids := make([]int64, n)
		for i := range ids {
			ids[i] = next + int64(i)
		}
		found, err := e.products(ctx, ids)
		if err != nil {
			return nil, false, err
		}
		products = append(products, found...)
		next += n
	}
	if len(products) > limit {
		return products[:limit], true, nil
	}
	return products, false, nil
}

// products reads catalogue records and stocks, one MGET a partition; ids without a product are left out.
func (e *Engine) products(ctx context.Context, ids []int64) ([]Product, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	shares, err := e.shares(ctx, ids, true)
	if err != nil {
		return nil, err
	}
	products := make([]Product, 0, len(ids))
	for i, id := range ids {
		record, ok := shares[0][len(ids)+i].(string)
		if !ok {
			continue
		}
		product, err := decodeCatalogue(id, record)
		if err != nil {
			return nil, err
		}
		listed := false
		product.Stock, listed, err = sumShares(id, shares, i)
		if err != nil {
			return nil, err
		}
		if listed {
			products = append(products, product)
		}
	}
	return products, nil
}

// allProducts is products for ids that carts or sales name: each must be there.
func (e *Engine) allProducts(ctx context.Context, ids []int64) ([]Product, error) {
	products, err := e.products(ctx, ids)
	if err == nil && len(products) != len(ids) {
		err = fmt.Errorf("%w: of %d products that were in use %d are listed", ErrCorrupt, len(ids), len(products))
	}
	return products, err
}

// shares reads the stock shares of products in every partition, in the order of ids; in partition 0 the catalogue
// records follow where they are wanted.
func (e *Engine) shares(ctx context.Context, ids []int64, catalogue bool) ([][]any, error) {
	reads := make([]*operation, len(e.partitions))
	for i, p := range e.partitions {
		keys := make([]string, 0, 2*len(ids))
		for _, id := range ids {
			keys = append(keys, e.keys.Stock(p.number, id))
		}
		if i == 0 && catalogue {
			for _, id := range ids {
				keys = append(keys, e.keys.Catalogue(p.number, id))
			}
		}
		reads[i] = p.reads.start(nil, &readOp{keys: keys}, len(keys))
	}
	shares := make([][]any, len(reads))
	for i, op := range reads {
		if op == nil {
			return nil, ErrOverloaded
		}
		if err := op.wait(ctx); err != nil {
			return nil, nothingDone(err)
		}
		shares[i] = op.body.(*readOp).values
	}
	return shares, nil
}

// sumShares adds up a product's shares; a share that is missing means that List has not come to that partition yet.
func sumShares(product int64, shares [][]any, at int) (sum int64, listed bool, err error) {
	for _, share := range shares {
		if share[at] == nil {
			return 0, false, nil
		}
		units, err := units(product, share[at])
		if err != nil {
			return 0, false, err
		}
		sum += units
	}
	return sum, true, nil
}

// encodeCatalogue writes the record that scripts read prices from: version:price:created at in ms:name.
func encodeCatalogue(p Product) string {
	return strconv.FormatInt(p.Version, 10) + ":" + strconv.FormatInt(p.Price, 10) + ":" +
		strconv.FormatInt(p.CreatedAt.UnixMilli(), 10) + ":" + p.Name
}

func decodeCatalogue(id int64, record string) (Product, error) {
	fields := strings.SplitN(record, ":", 4)
	if len(fields) == 4 {
		version, err1 := strconv.ParseInt(fields[0], 10, 64)
		price, err2 := strconv.ParseInt(fields[1], 10, 64)
		created, err3 := strconv.ParseInt(fields[2], 10, 64)
		if err1 == nil && err2 == nil && err3 == nil {
			return Product{
				ID: id, Name: fields[3], Price: price, Version: version, CreatedAt: time.UnixMilli(created).UTC(),
			}, nil
		}
	}
	return Product{}, fmt.Errorf("%w: catalogue record of product %d", ErrCorrupt, id)
}
