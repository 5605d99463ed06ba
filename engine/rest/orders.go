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

func (s *Server) placeOrder(ctx *fasthttp.RequestCtx, who caller) error {
	var in orderRequest
	if err := decode(ctx, &in); err != nil {
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
	lines, err := linesOf(in.Items)
	if err != nil {
		return err
	}
	order, replayed, err := s.cfg.Sales.Place(context.Background(), engine.PlaceRequest{
		UserID: user, Lines: lines, Later: later, Key: key,
	})
	if err != nil {
		return err
	}
	return replyOnce(ctx, fasthttp.StatusCreated, replayed, orderOf(&order))
}

func linesOf(items []lineRequest) ([]engine.Line, error) {
	lines := make([]engine.Line, len(items))
	for i, item := range items {
		if item.ProductID <= 0 {
			return nil, noID("items[" + strconv.Itoa(i) + "].product_id")
		}
		lines[i] = engine.Line{ProductID: int64(item.ProductID), Quantity: item.Quantity}
	}
	return lines, nil
}

// paysLater reads the field payment.
func paysLater(payment *string) (bool, error) {
	switch {
	case payment == nil || *payment == "now":
		return false, nil
	case *payment == "later":
		return true, nil
	}
	return false, validationFailed.with(`payment must be "now" or "later".`)
}

func (s *Server) getOrder(ctx *fasthttp.RequestCtx, who caller) error {
	id, err := pathID(ctx, "the order id")
	if err != nil {
		return err
	}
	user, err := s.acting(ctx, who, 0)
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	order, err := s.cfg.Sales.Order(bound, id, user)
	if err != nil {
		return err
	}
	return reply(ctx, fasthttp.StatusOK, orderOf(&order))
}

func (s *Server) listOrders(ctx *fasthttp.RequestCtx, who caller) error {
	user, err := s.acting(ctx, who, 0)
	if err != nil {
		return err
	}
	if user == 0 {
		return validationFailed.with("The request names no user: an admin says in user_id whose orders to list.")
	}
	limit, err := limitOf(ctx, limitDefault, limitMax)
	if err != nil {
		return err
	}
	before, err := orderList.last(ctx)
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	orders, more, err := s.cfg.Registry.Orders(bound, user, before, limit)
	if err != nil {
		return err
	}
	out := page[orderBody]{Items: make([]orderBody, len(orders))}
	for i := range orders {
		out.Items[i] = orderOf(&orders[i])
	}
	if more {
		out.NextCursor = orderList.cursor(orders[len(orders)-1].ID)
	}
	return reply(ctx, fasthttp.StatusOK, out)
}

func orderOf(o *engine.Order) orderBody {
	body := orderBody{
		ID: o.ID, UserID: o.UserID, Status: o.Status.String(), TotalPrice: o.Total,
		Items: make([]itemBody, len(o.Items)), CreatedAt: o.CreatedAt.UTC(), UpdatedAt: o.UpdatedAt().UTC(),
		History: make([]stepBody, len(o.History)),
	}
	for i, item := range o.Items {
		body.Items[i] = itemBody(item)
	}
	for i, step := range o.History {
		body.History[i] = stepBody{Status: step.Status.String(), Reason: step.Reason, At: step.At.UTC()}
	}
	if o.Status == engine.Pending && !o.ExpiresAt.IsZero() {
		expires := o.ExpiresAt.UTC()
		body.ExpiresAt = &expires
	}
	return body
}
