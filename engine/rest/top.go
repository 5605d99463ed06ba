package rest

import (
	"context"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/engine"
)

const topDefault = 5

type topBody struct {
	WindowHours int          `json:"window_hours"`
	AsOf        time.Time    `json:"as_of"`
	Items       []sellerBody `json:"items"`
}

type sellerBody struct {
	Rank      int    `json:"rank"`
	ProductID int64  `json:"product_id,string"`
	Name      string `json:"name"`
	Price     int64  `json:"price"`
	Sold      int64  `json:"sold"`
}

func (s *Server) topProducts(ctx *fasthttp.RequestCtx, _ caller) error {
	limit, err := limitOf(ctx, topDefault, engine.TopMax)
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	asOf, sellers, err := s.cfg.Sales.Top(bound, limit)
	if err != nil {
		return err
	}
	out := topBody{WindowHours: int(engine.Window / time.Hour), AsOf: asOf.UTC(), Items: make([]sellerBody, len(sellers))}
	for i, p := range sellers {
		out.Items[i] = sellerBody{Rank: i + 1, ProductID: p.ID, Name: p.Name, Price: p.Price, Sold: p.Sold}
	}
	return reply(ctx, fasthttp.StatusOK, out)
}
