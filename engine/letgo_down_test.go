package engine_test

import (
	"context"
	"testing"

	"stampede/engine"
)

// Without the books, what was done and cannot be shown is "unknown", never "not done": the key says that it was. What
// was not done is "not done", and stays so.
func TestLetGo_WithoutTheBooksADoneRequestIsNotCalledUndone(t *testing.T) {
	b, e := letGoRoom(t)
	ctx := context.Background()
	paid := mustPlace(t, e, 1, "paid", lines(1, 2))
	place := engine.PlaceRequest{UserID: 1, Key: "held", Lines: lines(1, 1), Later: true}
	held, _, err := e.Place(ctx, place)
	wantErr(t, "hold", err, nil)
	pay := engine.PayRequest{UserID: 1, OrderID: held.ID, Key: "pay"}
	_, _, err = e.Pay(ctx, pay)
	wantErr(t, "payment", err, nil)
	refund := cancelOf(held.ID, "refund")
	_, _, err = e.Cancel(ctx, refund)
	wantErr(t, "refund", err, nil)
	b.write(t)
	b.letGo(t)
	b.down.Store(true)
	before := letGoFunds - paid.Total

	_, _, err = e.Place(ctx, place)
	wantErr(t, "replay of the hold", err, engine.ErrUnknown)
	_, _, err = e.Pay(ctx, pay)
	wantErr(t, "replay of the payment", err, engine.ErrUnknown)
	_, _, err = e.Cancel(ctx, refund)
	wantErr(t, "replay of the refund", err, engine.ErrUnknown)
	_, _, err = e.Cancel(ctx, cancelOf(paid.ID, "refund"))
	wantErr(t, "key of another refund", err, engine.ErrKeyReused)

	_, err = e.Order(ctx, paid.ID, 1)
	wantErr(t, "read", err, engine.ErrUnavailable)
	_, _, err = e.Pay(ctx, engine.PayRequest{UserID: 1, OrderID: paid.ID, Key: "new"})
	wantErr(t, "new payment", err, engine.ErrUnavailable)
	_, _, err = e.Cancel(ctx, cancelOf(paid.ID, "new"))
	wantErr(t, "new refund", err, engine.ErrUnavailable)
	wantBalance(t, e, 1, before)

	b.down.Store(false)
	_, replayed, err := e.Cancel(ctx, cancelOf(paid.ID, "new"))
	if err != nil || replayed {
		t.Errorf("the same refund with the books back: replayed %t, %v", replayed, err)
	}
	wantBalance(t, e, 1, letGoFunds)
}
