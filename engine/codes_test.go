package engine

import (
	"maps"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"stampede/lua"
)

// The scripts and this package say the same numbers.

var named = map[string]code{
	"ok": codeOK, "replay": codeReplay, "key_reused": codeKeyReused, "backlog": codeBacklog,
	"user_not_found": codeUserNotFound, "product_not_found": codeProductNotFound, "out_of_stock": codeOutOfStock,
	"insufficient_balance": codeInsufficientBalance, "balance_limit": codeBalanceLimit, "stock_limit": codeStockLimit,
	"corrupt": codeCorrupt, "order_not_found": codeOrderNotFound, "order_not_payable": codeNotPayable,
	"order_not_cancelable": codeNotCancelable, "cart_changed": codeCartChanged, "cart_empty": codeCartEmpty,
	"cart_full": codeCartFull, "order_changed": codeOrderChanged, "hold_not_due": codeHoldNotDue,
	"order_limit": codeOrderLimit, "share_leased": codeShareLeased,
}

func TestCodes_AreThoseOfTheScripts(t *testing.T) {
	_, table, _ := strings.Cut(lua.Place.Text, "local code = {")
	table, _, found := strings.Cut(table, "}")
	if !found {
		t.Fatal("no table of codes in the prelude")
	}
	inLua := map[string]code{}
	for _, m := range regexp.MustCompile(`(\w+) = (\d+),`).FindAllStringSubmatch(table, -1) {
		n, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		inLua[m[1]] = code(n)
	}
	if !maps.Equal(inLua, named) {
		t.Errorf("the scripts say %v, the engine says %v", inLua, named)
	}
	for name, c := range named {
		_, refusal := refusals[c]
		if success := c == codeOK || c == codeReplay; success == refusal {
			t.Errorf("%s: success %t, among the refusals %t", name, success, refusal)
		}
	}
	if len(refusals)+2 != len(named) {
		t.Errorf("%d refusals for %d codes", len(refusals), len(named))
	}
}

func TestLimits_AreThoseOfTheScripts(t *testing.T) {
	for name, want := range map[string]int64{
		"BALANCE_MAX": BalanceMax, "STOCK_MAX": StockMax, "ENTRY_OVERHEAD_BYTES": entryOverheadBytes,
	} {
		m := regexp.MustCompile(`local ` + name + ` = (\d+)\n`).FindStringSubmatch(lua.Place.Text)
		if m == nil {
			t.Errorf("%s is not in the prelude", name)
			continue
		}
		if got, err := strconv.ParseInt(m[1], 10, 64); err != nil || got != want {
			t.Errorf("%s is %d in the scripts, %d in the engine", name, got, want)
		}
	}
	for _, c := range []struct {
		script *lua.Script
		number string // a pattern that finds it
		want   int64
	}{
		{lua.Place, `local WINDOW_MINUTES = (\d+)\n`, windowMinutes},
		{lua.Cart, `local LINES_MAX, QUANTITY_MAX = (\d+), \d+\n`, LinesMax},
		{lua.Cart, `local LINES_MAX, QUANTITY_MAX = \d+, (\d+)\n`, QuantityMax},
	} {
		m := regexp.MustCompile(c.number).FindStringSubmatch(c.script.Text)
		if m == nil || m[1] != strconv.FormatInt(c.want, 10) {
			t.Errorf("%s is %v in %s.lua, %d in the engine", c.number, m, c.script.Name, c.want)
		}
	}
	statuses := regexp.MustCompile(`local PENDING, SUCCESS, FAILED, CANCELED, EXPIRED, REFUNDED = 1, 2, 3, 4, 5, 6\n`)
	if !statuses.MatchString(lua.Debit.Text) || [6]Status{Pending, Success, Failed, Canceled, Expired, Refunded} != [6]Status{1, 2, 3, 4, 5, 6} {
		t.Error("scripts and engine number the states of an order differently")
	}
	// What a script adds up stays exact in a double: the largest order, and a balance with a charge.
	if max(int64(PriceMax)*QuantityMax*LinesMax, 2*int64(BalanceMax), int64(IDMax)) > 1<<53 {
		t.Error("a limit lets scripts compute beyond 2^53")
	}
}

func TestRefusal_SaysItsFigures(t *testing.T) {
	for _, c := range []struct {
		refusal Refusal
		want    []string
	}{
		{Refusal{Reason: ErrOutOfStock, ProductID: 17, Left: 3}, []string{"out of stock", "17", "3"}},
		{Refusal{Reason: ErrInsufficientBalance, Balance: 99}, []string{"insufficient", "99"}},
		{Refusal{Reason: ErrBalanceLimit, Balance: 99}, []string{"limit", "99"}},
		{Refusal{Reason: ErrProductNotFound, ProductID: 17}, []string{"not found", "17"}},
		{Refusal{Reason: ErrKeyReused}, []string{"another request"}},
		{Refusal{Reason: ErrNotPayable, Status: Expired}, []string{"paid", "EXPIRED"}},
		{Refusal{Reason: ErrNotCancelable, Status: Success}, []string{"canceled", "SUCCESS"}},
		{Refusal{Reason: ErrCartFull, ProductID: 17, Left: 9999}, []string{"cart", "17", "9999", "10000"}},
		{Refusal{Reason: ErrCartFull, ProductID: 17}, []string{"cart", "100"}},
	} {
		for _, want := range c.want {
			if text := c.refusal.Error(); !strings.Contains(text, want) {
				t.Errorf("%q lacks %q", text, want)
			}
		}
	}
}
