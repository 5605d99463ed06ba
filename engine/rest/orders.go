package rest

import (
	"context"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/engine"
)

type orderRequest struct {
	UserID  id            `json:"user_id"`
	Items   []lineRequest `json:"items"`
	Payment *string       `json:"payment"`
}

type lineRequest struct {
	ProductID id    `json:"product_id"`
	Quantity  int64 `json:"quantity"`
}

type orderBody struct {
	ID         int64      `json:"id,string"`
	UserID     int64      `json:"user_id,string"`
	Status     string     `json:"status"`
	TotalPrice int64      `json:"total_price"`
	Items      []itemBody `json:"items"`
	CreatedAt  time.Time  `json:"created_at"`
	UpdatedAt  time.Time  `json:"updated_at"`
	ExpiresAt  *time.Time `json:"expires_at,omitempty"`
	History    []stepBody `json:"history"`
}

type itemBody struct {
	ProductID int64 `json:"product_id,string"`
	Quantity  int64 `json:"quantity"`
	Price     int64 `json:"price"`
}

type stepBody struct {
	Status string    `json:"status"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
}

func (s *Server) placeOrder(ctx *fasthttp.RequestCtx) error {
	var in orderRequest
	if err := decode(ctx, &in); err != nil {
		return err
	}
	user, key, err := keyedBuyer(ctx, string(in.UserID))
	if err != nil {
		return err
	}
	if in.Payment != nil && *in.Payment != "now" {
		return validationFailed.with(`payment must be "now".`)
	}
	lines := make([]engine.Line, len(in.Items))
	for i, item := range in.Items {
		if lines[i].ProductID, err = parseID("items["+strconv.Itoa(i)+"].product_id", string(item.ProductID)); err != nil {
			return err
		}
		lines[i].Quantity = item.Quantity
	}
	order, replayed, err := s.cfg.Sales.Place(context.Background(), engine.PlaceRequest{UserID: user, Lines: lines, Key: key})
	if err != nil {
		return err
	}
	return replyOnce(ctx, fasthttp.StatusCreated, replayed, orderOf(&order))
}

func (s *Server) getOrder(ctx *fasthttp.RequestCtx) error {
	id, err := pathID(ctx, "the order id")
	if err != nil {
		return err
	}
	var user int64 // 0: anybody's
	named := queryUser(ctx)
	if !s.isAdmin(ctx) || named != "" {
		if user, err = buyer(ctx, named); err != nil {
			return err
		}
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	order, err := s.cfg.Sales.Order(bound, id, user)
	if err != nil {
		return err
	}
	return reply(ctx, fasthttp.StatusOK, orderOf(&order))
}

func orderOf(o *engine.Order) orderBody {
	body := orderBody{
		ID: o.ID, UserID: o.UserID, Status: o.Status.String(), TotalPrice: o.Total,
		Items: make([]itemBody, len(o.Items)), CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt(),
		History: make([]stepBody, len(o.History)),
	}
	for i, item := range o.Items {
		body.Items[i] = itemBody(item)
	}
	for i, step := range o.History {
		body.History[i] = stepBody{Status: step.Status.String(), Reason: step.Reason, At: step.At}
	}
	if !o.ExpiresAt.IsZero() {
		body.ExpiresAt = &o.ExpiresAt
	}
	return body
}
