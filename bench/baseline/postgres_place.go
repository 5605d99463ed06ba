package baseline

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"time"

	"stampede/engine"
)

const placeQuery = `SELECT order_id, total, prices, at, replayed FROM place_order($1, $2, $3, $4, $5, $6, $7)`

// Place places an order that is paid at once; see place_order in schema.sql. Each connection of the pool prepares the
// statement once.
func (s *postgresShop) Place(ctx context.Context, r engine.PlaceRequest) (engine.Order, bool, error) {
	if r.Later {
		return engine.Order{}, false, fmt.Errorf("%w: this baseline holds no stock for later", engine.ErrInvalid)
	}
	lines, err := merge(r.Lines)
	if err != nil {
		return engine.Order{}, false, err
	}
	sorted := byProduct(lines)
	lane := s.lanes[sorted.products[0]%lanes] // one of them: who waits for it holds nothing
	lane <- struct{}{}
	defer func() { <-lane }()
	o, replayed := engine.Order{UserID: r.UserID, Status: engine.Success}, false
	var prices []int64
	err = s.once(ctx, placeQuery, []any{
		r.UserID, r.Key, fingerprint("order", r.UserID, r.Lines), sorted.products, sorted.quantities, sorted.lines,
		time.Now().Truncate(time.Millisecond),
	}, []any{&o.ID, &o.Total, &prices, &o.CreatedAt, &replayed})
	if err != nil {
		return engine.Order{}, false, err
	}
	if len(prices) != len(lines) {
		return engine.Order{}, false, fmt.Errorf("order %d of %d lines has %d prices", o.ID, len(lines), len(prices))
	}
	// The lines are those of the request, also under a used key: the fingerprint says so.
	o.Items = make([]engine.Item, len(lines))
	for i, line := range sorted.lines {
		at := line - 1
		o.Items[at] = engine.Item{ProductID: lines[at].ProductID, Quantity: lines[at].Quantity, Price: prices[i]}
	}
	o.History = []engine.Step{{Status: engine.Pending, At: o.CreatedAt}, {Status: engine.Success, At: o.CreatedAt}}
	return o, replayed, nil
}

// columns are lines as place_order takes them.
type columns struct {
	products, quantities []int64
	lines                []int16 // from 1, as they stood
}

// byProduct sorts lines by product.
func byProduct(lines []engine.Line) (c columns) {
	for i := range lines {
		c.lines = append(c.lines, int16(i+1))
	}
	slices.SortFunc(c.lines, func(a, b int16) int { return cmp.Compare(lines[a-1].ProductID, lines[b-1].ProductID) })
	for _, line := range c.lines {
		c.products = append(c.products, lines[line-1].ProductID)
		c.quantities = append(c.quantities, lines[line-1].Quantity)
	}
	return c
}

// merge adds up equal products and checks what the tables would take.
func merge(lines []engine.Line) ([]engine.Line, error) {
	if len(lines) == 0 {
		return nil, fmt.Errorf("%w: items must not be empty", engine.ErrInvalid)
	}
	merged := make([]engine.Line, 0, min(len(lines), engine.LinesMax))
	for _, l := range lines {
		if l.ProductID < 1 || l.Quantity < 1 || l.Quantity > engine.QuantityMax {
			return nil, fmt.Errorf("%w: product %d times %d", engine.ErrInvalid, l.ProductID, l.Quantity)
		}
		i := slices.IndexFunc(merged, func(m engine.Line) bool { return m.ProductID == l.ProductID })
		switch {
		case i >= 0 && merged[i].Quantity+l.Quantity <= engine.QuantityMax:
			merged[i].Quantity += l.Quantity
		case i >= 0 || len(merged) == engine.LinesMax:
			return nil, fmt.Errorf("%w: items has too many products, or too much of one", engine.ErrInvalid)
		default:
			merged = append(merged, l)
		}
	}
	return merged, nil
}

// fingerprint tells two requests under one key apart.
func fingerprint(what string, user int64, lines []engine.Line) []byte {
	var text [256]byte
	b := append(text[:0], what...)
	b = strconv.AppendInt(append(b, ' '), user, 10)
	for _, l := range lines {
		b = strconv.AppendInt(append(b, '|'), l.ProductID, 10)
		b = strconv.AppendInt(append(b, 'x'), l.Quantity, 10)
	}
	sum := sha256.Sum256(b)
	return sum[:16]
}
