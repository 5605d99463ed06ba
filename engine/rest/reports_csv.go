package rest

import (
	"bytes"
	"context"
	"encoding/csv"
	"mime"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/engine"
)

// csvMax is how many rows CSV has at most where the request sets no limit: it is for spreadsheets, which turn no pages.
const csvMax = 100_000

// salesCSV answers with a report as RFC 4180 has it. Only its text is held: the status must be known before the first
// byte goes out.
func (s *Server) salesCSV(bound context.Context, ctx *fasthttp.RequestCtx, q engine.SalesQuery) error {
	var text bytes.Buffer
	w := csv.NewWriter(&text)
	w.UseCRLF = true
	if err := w.Write([]string{"bucket", "product_id", "units", "revenue", "orders"}); err != nil {
		return err
	}
	var last engine.SaleKey
	var record [5]string
	more, err := s.cfg.Registry.SalesReport(bound, q, func(sale engine.Sale) error {
		last = sale.SaleKey
		record = [...]string{
			sale.Bucket.UTC().Format(time.RFC3339), strconv.FormatInt(sale.ProductID, 10),
			strconv.FormatInt(sale.Units, 10), sale.Revenue, strconv.FormatInt(sale.Orders, 10),
		}
		return w.Write(record[:])
	})
	if err != nil {
		return err
	}
	if more {
		if q.Limit == csvMax {
			return validationFailed.with("The report has more than %d rows. Narrow it with from, to or product_id, or take bucket=day.", csvMax)
		}
		next := ctx.QueryArgs()
		next.Set("cursor", *saleCursor(q.Bucket, last))
		ctx.Response.Header.Set(fasthttp.HeaderLink, "<"+string(ctx.Path())+"?"+next.String()+`>; rel="next"`)
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return err
	}
	ctx.SetContentType("text/csv; charset=utf-8")
	ctx.Response.SetBodyRaw(text.Bytes())
	return nil
}

// wantsCSV tells whether a client would rather have CSV than JSON (RFC 9110, 12.5.1). One that says nothing, wants
// something else, or does not care gets JSON.
func wantsCSV(ctx *fasthttp.RequestCtx) bool {
	var asCSV, asJSON preference
	for _, header := range ctx.Request.Header.PeekAll(fasthttp.HeaderAccept) {
		for item := range strings.SplitSeq(string(header), ",") {
			media, params, err := mime.ParseMediaType(item)
			weight := 1.0
			if q, given := params["q"]; given && err == nil {
				weight, err = strconv.ParseFloat(q, 64)
			}
			if err == nil && weight >= 0 && weight <= 1 {
				asCSV.note("text", "csv", media, weight)
				asJSON.note("application", "json", media, weight)
			}
		}
	}
	return asCSV.weight > 0 &&
		(asCSV.weight > asJSON.weight || (asCSV.weight == asJSON.weight && asCSV.named > asJSON.named))
}

// preference is how much a client wants a media type: the weight that the entry gives it which names it best.
type preference struct {
	weight float64
	named  int // 0: by no entry, 1: by */*, 2: by its type, 3: by its full name
}

func (p *preference) note(kind, subtype, media string, weight float64) {
	named := 0
	switch media {
	case kind + "/" + subtype:
		named = 3
	case kind + "/*":
		named = 2
	case "*/*":
		named = 1
	}
	if named > p.named {
		p.weight, p.named = weight, named
	}
}
