package engine

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// User is a buyer as Postgres knows it.
type User struct {
	ID        int64
	Name      string
	Email     string
	CreatedAt time.Time
}

// ChargeRequest adds to a balance.
type ChargeRequest struct {
	UserID int64
	Amount int64  // minor units, 1 to BalanceMax
	Key    string // idempotency key
}

// Charged is a charge that was made.
type Charged struct {
	ChargeID int64
	UserID   int64
	Amount   int64 // minor units
	Balance  int64 // after it, in minor units
}

// Charge adds to a user's balance. The second result says that an earlier call with the same key did.
func (e *Engine) Charge(ctx context.Context, r ChargeRequest) (Charged, bool, error) {
	if err := checkUser(r.UserID); err != nil {
		return Charged{}, false, err
	}
	if r.Amount < 1 || r.Amount > BalanceMax {
		return Charged{}, false, invalid("amount must be 1 to %d minor units", int64(BalanceMax))
	}
	if err := checkKey(r.Key); err != nil {
		return Charged{}, false, err
	}
	op := &chargeOp{
		user: r.UserID, amount: r.Amount, key: r.Key, charge: e.ids.next(),
		fingerprint: fingerprint("POST /balance/charge", r.UserID, strconv.FormatInt(r.Amount, 10)),
	}
	if err := e.partitionOf(r.UserID).queue.do(ctx, chargeKind, op, 1); err != nil {
		return Charged{}, false, err
	}
	return Charged{ChargeID: op.charge, UserID: r.UserID, Amount: r.Amount, Balance: op.balance}, op.replayed, nil
}

// Balance returns a user's balance in minor units.
func (e *Engine) Balance(ctx context.Context, user int64) (int64, error) {
	if err := checkUser(user); err != nil {
		return 0, err
	}
	p := e.partitionOf(user)
	text, found, err := e.read(ctx, p, e.keys.Balance(p.number, user))
	if err != nil {
		return 0, err
	}
	if !found {
		return 0, ErrUserNotFound
	}
	balance, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: balance of user %d", ErrCorrupt, user)
	}
	return balance, nil
}

// Enroll opens accounts of users that stand in Postgres: a balance of 0 where there is none. Safe to repeat.
func (e *Engine) Enroll(ctx context.Context, user int64) error {
	if err := checkUser(user); err != nil {
		return err
	}
	return e.partitionOf(user).queue.do(ctx, enrollKind, &enrollOp{user: user}, 1)
}
