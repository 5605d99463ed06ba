package rest

import (
	"context"
	"encoding/base64"
	"strconv"
	"time"
	"unicode"

	"github.com/valyala/fasthttp"

	"stampede/engine"
)

type productBody struct {
	ID        int64      `json:"id,string"`
	Name      string     `json:"name"`
	Price     int64      `json:"price"`
	Stock     int64      `json:"stock"`
	CreatedAt *time.Time `json:"created_at,omitempty"`
}

func (s *Server) createProduct(ctx *fasthttp.RequestCtx) error {
	var in struct {
		Name  string `json:"name"`
		Price *int64 `json:"price"`
		Stock *int64 `json:"stock"`
	}
	if err := decode(ctx, &in); err != nil {
		return err
	}
	if err := checkName("name", in.Name); err != nil {
		return err
	}
	switch {
	case in.Price == nil || *in.Price < 0 || *in.Price > engine.PriceMax:
		return validationFailed.with("price must be 0 to %d minor units.", engine.PriceMax)
	case in.Stock == nil || *in.Stock < 0 || *in.Stock > engine.StockMax:
		return validationFailed.with("stock must be 0 to %d units.", engine.StockMax)
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	p, err := s.cfg.Registry.CreateProduct(bound, in.Name, *in.Price, *in.Stock)
	if err != nil {
		return err
	}
	created := p.CreatedAt.UTC()
	return reply(ctx, fasthttp.StatusCreated, productBody{
		ID: p.ID, Name: p.Name, Price: p.Price, Stock: p.Stock, CreatedAt: &created,
	})
}

func (s *Server) getProduct(ctx *fasthttp.RequestCtx) error {
	id, err := pathID(ctx, "the product id")
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	p, err := s.cfg.Sales.Product(bound, id)
	if err != nil {
		return err
	}
	return reply(ctx, fasthttp.StatusOK, productBody{ID: p.ID, Name: p.Name, Price: p.Price, Stock: p.Stock})
}

// page is the answer of every list.
type page[T any] struct {
	Items      []T     `json:"items"`
	NextCursor *string `json:"next_cursor"`
}

const (
	limitDefault = 50
	limitMax     = 200
)

func (s *Server) listProducts(ctx *fasthttp.RequestCtx) error {
	limit, err := limitOf(ctx)
	if err != nil {
		return err
	}
	after, err := cursorOf(ctx)
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	products, more, err := s.cfg.Sales.Products(bound, after, limit)
	if err != nil {
		return err
	}
	out := page[productBody]{Items: make([]productBody, len(products))}
	for i, p := range products {
		out.Items[i] = productBody{ID: p.ID, Name: p.Name, Price: p.Price, Stock: p.Stock}
	}
	if more {
		next := cursor(products[len(products)-1].ID)
		out.NextCursor = &next
	}
	return reply(ctx, fasthttp.StatusOK, out)
}

func limitOf(ctx *fasthttp.RequestCtx) (int, error) {
	text := ctx.QueryArgs().Peek("limit")
	if !ctx.QueryArgs().Has("limit") {
		return limitDefault, nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 1 || n > limitMax || text[0] == '+' {
		return 0, validationFailed.with("limit must be 1 to %d.", limitMax)
	}
	return n, nil
}

// cursor stands for the last id of a page. It is opaque to clients.
func cursor(last int64) string {
	return base64.RawURLEncoding.EncodeToString(strconv.AppendInt([]byte("after:"), last, 10))
}

func cursorOf(ctx *fasthttp.RequestCtx) (int64, error) {
	if !ctx.QueryArgs().Has("cursor") {
		return 0, nil
	}
	text, err := base64.RawURLEncoding.Strict().DecodeString(string(ctx.QueryArgs().Peek("cursor")))
	if err == nil && len(text) > len("after:") && string(text[:6]) == "after:" {
		if after, err := parseID("cursor", string(text[6:])); err == nil {
			return after, nil
		}
	}
	return 0, validationFailed.with("cursor is not one that a list of this API returned.")
}

func (s *Server) restock(ctx *fasthttp.RequestCtx) error {
	id, err := pathID(ctx, "the product id")
	if err != nil {
		return err
	}
	var in struct {
		Delta  int64  `json:"delta"`
		Reason string `json:"reason"`
	}
	if err := decode(ctx, &in); err != nil {
		return err
	}
	for _, r := range in.Reason {
		if unicode.IsControl(r) {
			return validationFailed.with("reason must not hold control characters.")
		}
	}
	key, err := idempotencyKey(ctx)
	if err != nil {
		return err
	}
	stock, replayed, err := s.cfg.Sales.Restock(context.Background(), engine.RestockRequest{
		ProductID: id, Delta: in.Delta, Reason: in.Reason, Key: key,
	})
	if err != nil {
		return err
	}
	return replyOnce(ctx, fasthttp.StatusOK, replayed, struct {
		ProductID int64 `json:"product_id,string"`
		Stock     int64 `json:"stock"`
	}{id, stock})
}
