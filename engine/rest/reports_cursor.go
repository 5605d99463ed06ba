package rest

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/engine"
)

// Lists whose rows two numbers name.
const (
	hourList   list = "sales-hour:" // bucket, counted from 1970, and product
	dayList    list = "sales-day:"
	ledgerList list = "ledger:" // epoch and sequence number
)

// pair is cursor for a row that two numbers name.
func (l list) pair(first, second int64) *string {
	plain := append(strconv.AppendInt([]byte(l), first, 10), ':')
	text := base64.RawURLEncoding.EncodeToString(strconv.AppendInt(plain, second, 10))
	return &text
}

// lastPair returns the numbers that the request's cursor stands for, 0 where there is none.
func (l list) lastPair(ctx *fasthttp.RequestCtx) (first, second int64, err error) {
	text, err := queryValue(ctx, "cursor")
	if err != nil || text == "" {
		return 0, 0, err
	}
	if plain, err := base64.RawURLEncoding.Strict().DecodeString(text); err == nil {
		if last, of := strings.CutPrefix(string(plain), string(l)); of {
			a, b, _ := strings.Cut(last, ":")
			first, isFirst := digits(a)
			second, isSecond := digits(b)
			if isFirst && isSecond && *l.pair(first, second) == text {
				return first, second, nil
			}
		}
	}
	return 0, 0, errNoCursor
}

var errNoCursor = validationFailed.with("cursor is not one that this list returned.")

func saleList(bucket engine.Bucket) list {
	if bucket == engine.Hour {
		return hourList
	}
	return dayList
}

// saleCursor stands for the last row of a page of sales.
func saleCursor(bucket engine.Bucket, last engine.SaleKey) *string {
	return saleList(bucket).pair(last.Bucket.UnixNano()/int64(bucket), last.ProductID)
}

// lastSale returns the row that the request's cursor stands for.
func lastSale(ctx *fasthttp.RequestCtx, bucket engine.Bucket) (engine.SaleKey, error) {
	n, product, err := saleList(bucket).lastPair(ctx)
	if err != nil || n == 0 {
		return engine.SaleKey{}, err
	}
	if n > math.MaxInt64/int64(bucket) {
		return engine.SaleKey{}, errNoCursor
	}
	return engine.SaleKey{Bucket: time.Unix(0, n*int64(bucket)).UTC(), ProductID: product}, nil
}
