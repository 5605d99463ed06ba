package rest

import (
	"context"
	"errors"
	"unicode"
	"unicode/utf8"

	"github.com/valyala/fasthttp"

	"stampede/engine"
)

func (s *Server) pay(ctx *fasthttp.RequestCtx, who caller) error {
	orderID, err := pathID(ctx, "the order id")
	if err != nil {
		return err
	}
	var in struct {
		UserID id `json:"user_id"`
	}
	if err := decodeOptional(ctx, &in); err != nil {
		return err
	}
	user, key, err := s.actingWithKey(ctx, who, in.UserID)
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	order, replayed, err := s.cfg.Sales.Pay(bound, engine.PayRequest{UserID: user, OrderID: orderID, Key: key})
	if err != nil {
		var r *engine.Refusal
		if errors.As(err, &r) && r.Order != nil {
			markReplay(ctx, replayed) // it changed the order, so it is stored like a success
		}
		return err
	}
	return replyOnce(ctx, fasthttp.StatusOK, replayed, orderOf(&order))
}

func (s *Server) cancel(ctx *fasthttp.RequestCtx, who caller) error {
	orderID, err := pathID(ctx, "the order id")
	if err != nil {
		return err
	}
	var in struct {
		UserID id     `json:"user_id"`
		Reason string `json:"reason"`
	}
	if err := decodeOptional(ctx, &in); err != nil {
		return err
	}
	user, err := s.acting(ctx, who, in.UserID)
	if err != nil {
		return err
	}
	key, err := idempotencyKey(ctx)
	if err != nil {
		return err
	}
	if err := checkReason(in.Reason); err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	order, replayed, err := s.cfg.Sales.Cancel(bound, engine.CancelRequest{
		OrderID: orderID, UserID: user, Admin: who.admin, Reason: in.Reason, Key: key,
	})
	if err != nil {
		return err
	}
	return replyOnce(ctx, fasthttp.StatusOK, replayed, orderOf(&order))
}

// checkReason takes what may stand in the books as somebody's reason, or nothing.
func checkReason(reason string) error {
	if utf8.RuneCountInString(reason) > engine.NameMax {
		return validationFailed.with("reason must have at most %d characters.", engine.NameMax)
	}
	for _, r := range reason {
		if unicode.IsControl(r) {
			return validationFailed.with("reason must not hold control characters.")
		}
	}
	return nil
}
