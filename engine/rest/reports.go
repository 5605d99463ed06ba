package rest

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/engine"
)

type saleBody struct {
	Bucket    time.Time   `json:"bucket"`
	ProductID int64       `json:"product_id,string"`
	Units     int64       `json:"units"`
	Revenue   json.Number `json:"revenue"`
	Orders    int64       `json:"orders"`
}

type postingBody struct {
	At           time.Time `json:"at"`
	Kind         string    `json:"kind"`
	Amount       int64     `json:"amount"`
	BalanceAfter int64     `json:"balance_after"`
	OrderID      int64     `json:"order_id,string,omitempty"`
	ChargeID     int64     `json:"charge_id,string,omitempty"`
}

func (s *Server) salesReport(ctx *fasthttp.RequestCtx, _ caller) error {
	asCSV := wantsCSV(ctx)
	ctx.Response.Header.Set(fasthttp.HeaderVary, fasthttp.HeaderAccept)
	q, err := salesQuery(ctx, asCSV)
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	if asCSV {
		return s.salesCSV(bound, ctx, q)
	}
	out := page[saleBody]{Items: []saleBody{}}
	var last engine.SaleKey
	more, err := s.cfg.Registry.SalesReport(bound, q, func(sale engine.Sale) error {
		last = sale.SaleKey
		out.Items = append(out.Items, saleBody{
			Bucket: sale.Bucket.UTC(), ProductID: sale.ProductID, Units: sale.Units, Revenue: json.Number(sale.Revenue), Orders: sale.Orders,
		})
		return nil
	})
	if err != nil {
		return err
	}
	if more {
		out.NextCursor = saleCursor(q.Bucket, last)
	}
	return reply(ctx, fasthttp.StatusOK, out)
}

// salesQuery reads which sales a request asks for.
func salesQuery(ctx *fasthttp.RequestCtx, asCSV bool) (q engine.SalesQuery, err error) {
	if q.From, err = queryTime(ctx, "from"); err != nil {
		return q, err
	}
	if q.To, err = queryTime(ctx, "to"); err != nil {
		return q, err
	}
	if q.From != nil && q.To != nil && !q.From.Before(*q.To) {
		return q, validationFailed.with("from must be before to.")
	}
	if q.Bucket, err = queryBucket(ctx); err != nil {
		return q, err
	}
	if q.ProductID, err = bodyOrQuery(ctx, "product_id", 0); err != nil {
		return q, err
	}
	standard := limitDefault
	if asCSV {
		standard = csvMax
	}
	if q.Limit, err = limitOf(ctx, standard, limitMax); err != nil {
		return q, err
	}
	q.After, err = lastSale(ctx, q.Bucket)
	return q, err
}

// queryTime returns a time of the query, nil where it does not stand.
func queryTime(ctx *fasthttp.RequestCtx, name string) (*time.Time, error) {
	text, err := queryValue(ctx, name)
	if err != nil || text == "" {
		return nil, err
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || text[len("2006-01-02T15")] != ':' || strings.Contains(text, ",") { // which the parser lets pass
		return nil, validationFailed.with("%s must be a time as RFC 3339 has it, such as 2026-05-01T00:00:00Z; write the + of an offset as %%2B.", name)
	}
	return &t, nil
}

func queryBucket(ctx *fasthttp.RequestCtx) (engine.Bucket, error) {
	switch text, err := queryValue(ctx, "bucket"); {
	case err != nil:
		return 0, err
	case text == "" || text == "day":
		return engine.Day, nil
	case text == "hour":
		return engine.Hour, nil
	}
	return 0, validationFailed.with(`bucket must be "hour" or "day".`)
}

func (s *Server) userLedger(ctx *fasthttp.RequestCtx, _ caller) error {
	user, err := pathID(ctx, "the user id")
	if err != nil {
		return err
	}
	limit, err := limitOf(ctx, limitDefault, limitMax)
	if err != nil {
		return err
	}
	epoch, seq, err := ledgerList.lastPair(ctx)
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	postings, more, err := s.cfg.Registry.Ledger(bound, user, engine.Position{Epoch: epoch, Seq: seq}, limit)
	if err != nil {
		return err
	}
	out := page[postingBody]{Items: make([]postingBody, len(postings))}
	for i := range postings {
		out.Items[i] = postingOf(&postings[i])
	}
	if more {
		last := postings[len(postings)-1].Position
		out.NextCursor = ledgerList.pair(last.Epoch, last.Seq)
	}
	return reply(ctx, fasthttp.StatusOK, out)
}

func postingOf(p *engine.Posting) postingBody {
	body := postingBody{At: p.At.UTC(), Kind: p.Kind, Amount: p.Amount, BalanceAfter: p.BalanceAfter}
	if p.Kind == engine.PostedCharge {
		body.ChargeID = p.RefID
	} else {
		body.OrderID = p.RefID
	}
	return body
}
