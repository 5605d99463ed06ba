package rest

import (
	"context"
	"time"

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

func (s *Server) createProduct(ctx *fasthttp.RequestCtx, _ caller) error {
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
	if err := checkPrice(in.Price); err != nil {
		return err
	}
	if in.Stock == nil || *in.Stock < 0 || *in.Stock > engine.StockMax {
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

func checkPrice(price *int64) error {
	if price == nil || *price < 0 || *price > engine.PriceMax {
		return validationFailed.with("price must be 0 to %d minor units.", engine.PriceMax)
	}
	return nil
}

func (s *Server) updateProduct(ctx *fasthttp.RequestCtx, _ caller) error {
	id, err := pathID(ctx, "the product id")
	if err != nil {
		return err
	}
	var in struct {
		Name  *string `json:"name"`
		Price *int64  `json:"price"`
	}
	if err := decode(ctx, &in); err != nil {
		return err
	}
	if in.Name == nil && in.Price == nil {
		return validationFailed.with("Nothing to change: send name, price or both.")
	}
	if in.Name != nil {
		if err := checkName("name", *in.Name); err != nil {
			return err
		}
	}
	if in.Price != nil {
		if err := checkPrice(in.Price); err != nil {
			return err
		}
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	p, err := s.cfg.Registry.UpdateProduct(bound, id, in.Name, in.Price)
	if err != nil {
		return err
	}
	return reply(ctx, fasthttp.StatusOK, productBody{ID: p.ID, Name: p.Name, Price: p.Price, Stock: p.Stock})
}

func (s *Server) getProduct(ctx *fasthttp.RequestCtx, _ caller) error {
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

func (s *Server) listProducts(ctx *fasthttp.RequestCtx, _ caller) error {
	limit, err := limitOf(ctx, limitDefault, limitMax)
	if err != nil {
		return err
	}
	after, err := productList.last(ctx)
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
		out.NextCursor = productList.cursor(products[len(products)-1].ID)
	}
	return reply(ctx, fasthttp.StatusOK, out)
}

func (s *Server) restock(ctx *fasthttp.RequestCtx, _ caller) error {
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
	if err := checkReason(in.Reason); err != nil {
		return err
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
