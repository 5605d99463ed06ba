package rest

import (
	"context"

	"github.com/valyala/fasthttp"

	"stampede/engine"
)

type cartBody struct {
	UserID     int64          `json:"user_id,string"`
	Items      []cartItemBody `json:"items"`
	TotalPrice int64          `json:"total_price"`
}

type cartItemBody struct {
	ProductID int64  `json:"product_id,string"`
	Name      string `json:"name"`
	Price     int64  `json:"price"`
	Quantity  int64  `json:"quantity"`
	Stock     int64  `json:"stock"`
}

func cartOf(c *engine.Cart) cartBody {
	body := cartBody{UserID: c.UserID, Items: make([]cartItemBody, len(c.Items)), TotalPrice: c.Total()}
	for i, item := range c.Items {
		body.Items[i] = cartItemBody(item)
	}
	return body
}

func (s *Server) addToCart(ctx *fasthttp.RequestCtx, who caller) error {
	var in struct {
		UserID    id    `json:"user_id"`
		ProductID id    `json:"product_id"`
		Quantity  int64 `json:"quantity"`
	}
	if err := decode(ctx, &in); err != nil {
		return err
	}
	user, err := s.acting(ctx, who, in.UserID)
	if err != nil {
		return err
	}
	key, err := optionalKey(ctx)
	if err != nil {
		return err
	}
	product, err := in.ProductID.must("product_id")
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	cart, replayed, err := s.cfg.Sales.AddToCart(bound, engine.CartAddRequest{
		UserID: user, ProductID: product, Quantity: in.Quantity, Key: key,
	})
	if err != nil {
		return err
	}
	return replyOnce(ctx, fasthttp.StatusOK, replayed, cartOf(&cart))
}

// removeFromCart takes its fields from the body or from the query: some clients and gateways send no body with DELETE.
func (s *Server) removeFromCart(ctx *fasthttp.RequestCtx, who caller) error {
	var in struct {
		UserID    id `json:"user_id"`
		ProductID id `json:"product_id"`
	}
	if err := decodeOptional(ctx, &in); err != nil {
		return err
	}
	user, err := s.acting(ctx, who, in.UserID)
	if err != nil {
		return err
	}
	product, err := bodyOrQuery(ctx, "product_id", in.ProductID)
	if err != nil {
		return err
	}
	if product == 0 {
		return validationFailed.with("product_id is missing: send it in the body or in the query.")
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	cart, err := s.cfg.Sales.RemoveFromCart(bound, user, product)
	if err != nil {
		return err
	}
	return reply(ctx, fasthttp.StatusOK, cartOf(&cart))
}

func (s *Server) getCart(ctx *fasthttp.RequestCtx, who caller) error {
	user, err := s.acting(ctx, who, 0)
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	cart, err := s.cfg.Sales.Cart(bound, user)
	if err != nil {
		return err
	}
	return reply(ctx, fasthttp.StatusOK, cartOf(&cart))
}

func (s *Server) orderCart(ctx *fasthttp.RequestCtx, who caller) error {
	var in struct {
		UserID  id      `json:"user_id"`
		Payment *string `json:"payment"`
	}
	if err := decodeOptional(ctx, &in); err != nil {
		return err
	}
	user, key, err := s.actingWithKey(ctx, who, in.UserID)
	if err != nil {
		return err
	}
	later, err := paysLater(in.Payment)
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	order, replayed, err := s.cfg.Sales.OrderCart(bound, engine.CartOrderRequest{UserID: user, Later: later, Key: key})
	if err != nil {
		return err
	}
	return replyOnce(ctx, fasthttp.StatusCreated, replayed, orderOf(&order))
}
