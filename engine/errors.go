package engine

import (
	"errors"
	"fmt"
)

// What an operation may end in, beside success. A refusal changed nothing and stored nothing.
var (
	// ErrInvalid wraps what is wrong with a request's values.
	ErrInvalid = errors.New("invalid request")
	// ErrKeyReused: the idempotency key was used with another request.
	ErrKeyReused = errors.New("the idempotency key was used with another request")
	// ErrUserNotFound: no such user.
	ErrUserNotFound = errors.New("user not found")
	// ErrProductNotFound: no such product; a *Refusal names it.
	ErrProductNotFound = errors.New("product not found")
	// ErrOrderNotFound: no such order of that user.
	ErrOrderNotFound = errors.New("order not found")
	// ErrOutOfStock: less is left than asked; a *Refusal names product and units left.
	ErrOutOfStock = errors.New("out of stock")
	// ErrInsufficientBalance: the balance does not cover the total.
	ErrInsufficientBalance = errors.New("insufficient balance")
	// ErrBalanceLimit: the balance would pass BalanceMax.
	ErrBalanceLimit = errors.New("balance limit reached")
	// ErrStockLimit: the stock would pass StockMax.
	ErrStockLimit = errors.New("stock limit reached")
	// ErrOrderLimit: the total of the order would pass BalanceMax, which no balance covers.
	ErrOrderLimit = fmt.Errorf("the total of an order may be %d minor units at most", int64(BalanceMax))
	// ErrNotPayable: the order is not PENDING any more, or its deadline has passed; a *Refusal names its status.
	ErrNotPayable = errors.New("the order cannot be paid")
	// ErrNotCancelable: the order is past canceling, for good or for this caller; a *Refusal names its status.
	ErrNotCancelable = errors.New("the order cannot be canceled")
	// ErrCartEmpty: there is nothing in the cart to order.
	ErrCartEmpty = errors.New("the cart is empty")
	// ErrCartFull: the cart would pass LinesMax products or QuantityMax units of one; a *Refusal names the product.
	ErrCartFull = errors.New("the cart is full")
	// ErrEmailTaken: another user has that email.
	ErrEmailTaken = errors.New("email taken")

	// ErrOverloaded: not done, for lack of room: a queue is full, a deadline passed before the operation was sent,
	// or the writer's backlog is at its cap.
	ErrOverloaded = errors.New("overloaded, not done")
	// ErrUnavailable: not done: Redis or Postgres cannot be reached, or the door is shut.
	ErrUnavailable = errors.New("unavailable, not done")
	// ErrElsewhere: not done: the product's stock lies in other partitions, and did not come here in time; a *Refusal names it.
	ErrElsewhere = errors.New("stock lies in other partitions and did not come here in time, not done")
	// ErrLost: the event will never be in the books: its epoch ended before it.
	ErrLost = errors.New("the event was lost with its epoch")
	// ErrUnknown: it may or may not be done; the same request with the same key tells.
	ErrUnknown = errors.New("outcome unknown")
	// ErrCorrupt: Redis holds something that no script writes.
	ErrCorrupt = errors.New("corrupt data in Redis")

	// What callers of this package never see: the engine reads again and repeats the operation.
	errCartChanged  = errors.New("the cart is not as it was read")
	errOrderChanged = errors.New("the order is not as it was read")
	errShareLeased  = errors.New("the units came just now, for a buyer who waits for them")
	errHoldNotDue   = errors.New("the hold has ended, or its deadline has not come")
)

// Refusal is an error of this package with what a buyer needs to act on it.
type Refusal struct {
	Reason    error  // one of the errors above
	ProductID int64  // where one product is the reason
	Left      int64  // units that are left of it; where the cart is full, units of it in the cart
	Balance   int64  // where the balance is the reason, in minor units
	Status    Status // of an order that is past the wish
	Order     *Order // the order that turned FAILED for lack of balance: the one refusal that changed something
}

// Error says the reason and its figures.
func (r *Refusal) Error() string {
	switch {
	case errors.Is(r.Reason, ErrOutOfStock):
		return fmt.Sprintf("%v: product %d, %d left", r.Reason, r.ProductID, r.Left)
	case errors.Is(r.Reason, ErrStockLimit):
		return fmt.Sprintf("%v: %d of at most %d in stock", r.Reason, r.Left, StockMax)
	case errors.Is(r.Reason, ErrCartFull) && r.Left > 0:
		return fmt.Sprintf("%v: it holds %d units of product %d, and may hold %d", r.Reason, r.Left, r.ProductID, QuantityMax)
	case errors.Is(r.Reason, ErrCartFull):
		return fmt.Sprintf("%v: it holds %d different products", r.Reason, LinesMax)
	case r.ProductID != 0:
		return fmt.Sprintf("%v: product %d", r.Reason, r.ProductID)
	case errors.Is(r.Reason, ErrInsufficientBalance), errors.Is(r.Reason, ErrBalanceLimit):
		return fmt.Sprintf("%v: balance %d", r.Reason, r.Balance)
	case errors.Is(r.Reason, ErrNotPayable), errors.Is(r.Reason, ErrNotCancelable):
		return fmt.Sprintf("%v: it is %v", r.Reason, r.Status)
	}
	return r.Reason.Error()
}

// Unwrap gives the reason to errors.Is.
func (r *Refusal) Unwrap() error { return r.Reason }

// code is what a script answers for an operation; lua/door.lua names the same numbers.
type code int

const (
	codeOK                  code = 0
	codeReplay              code = 1
	codeKeyReused           code = 2
	codeBacklog             code = 3
	codeUserNotFound        code = 4
	codeProductNotFound     code = 5
	codeOutOfStock          code = 6
	codeInsufficientBalance code = 7
	codeBalanceLimit        code = 8
	codeStockLimit          code = 9
	codeCorrupt             code = 10
	codeOrderNotFound       code = 11
	codeNotPayable          code = 12
	codeNotCancelable       code = 13
	codeCartChanged         code = 14
	codeCartEmpty           code = 15
	codeCartFull            code = 16
	codeOrderChanged        code = 17
	codeHoldNotDue          code = 18
	codeOrderLimit          code = 19
	codeShareLeased         code = 20
)

// refusals says which error a code stands for, and which figures follow it in the reply.
var refusals = map[code]struct {
	reason  error
	product bool
	left    bool
	balance bool
	status  bool
}{
	codeKeyReused:           {reason: ErrKeyReused},
	codeBacklog:             {reason: ErrOverloaded},
	codeUserNotFound:        {reason: ErrUserNotFound},
	codeProductNotFound:     {reason: ErrProductNotFound, product: true},
	codeOutOfStock:          {reason: ErrOutOfStock, product: true, left: true},
	codeInsufficientBalance: {reason: ErrInsufficientBalance, balance: true},
	codeBalanceLimit:        {reason: ErrBalanceLimit, balance: true},
	codeStockLimit:          {reason: ErrStockLimit, left: true},
	codeCorrupt:             {reason: ErrCorrupt, product: true},
	codeOrderNotFound:       {reason: ErrOrderNotFound},
	codeNotPayable:          {reason: ErrNotPayable, status: true},
	codeNotCancelable:       {reason: ErrNotCancelable, status: true},
	codeCartChanged:         {reason: errCartChanged},
	codeCartEmpty:           {reason: ErrCartEmpty},
	codeCartFull:            {reason: ErrCartFull, product: true, left: true},
	codeOrderChanged:        {reason: errOrderChanged},
	codeHoldNotDue:          {reason: errHoldNotDue},
	codeOrderLimit:          {reason: ErrOrderLimit},
	codeShareLeased:         {reason: errShareLeased, product: true},
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
