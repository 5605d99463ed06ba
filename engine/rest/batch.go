package rest

import (
	"bytes"
	"context"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"stampede/engine"
)

const (
	batchPath      = "/orders/batch"
	batchOrdersMax = 1000
)

type batchRequest struct {
	Orders []batchOrder `json:"orders"`
}

// batchOrder is what a buyer would send to POST /order with this key and without payment: it is paid at once.
type batchOrder struct {
	Key    string        `json:"idempotency_key"`
	UserID id            `json:"user_id"`
	Items  []lineRequest `json:"items"`
}

type batchBody struct {
	Results []batchResult `json:"results"`
}

// batchResult holds what POST /order would have answered: an order or a problem.
type batchResult struct {
	Status   int            `json:"status"`
	Order    *orderBody     `json:"order,omitempty"`
	Replayed bool           `json:"replayed,omitempty"`
	Problem  map[string]any `json:"problem,omitempty"`
}

// placeBatch places orders each on its own. What is wrong with the form of the request refuses all of it before the first is
// begun; what is wrong with the values of an order is the problem of that order.
func (s *Server) placeBatch(ctx *fasthttp.RequestCtx, _ caller) error {
	var in batchRequest
	if err := decode(ctx, &in); err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	results := make([]batchResult, len(in.Orders))
	requests, at := make([]engine.PlaceRequest, 0, len(in.Orders)), make([]int, 0, len(in.Orders))
	for i := range in.Orders {
		r, err := in.Orders[i].request()
		if err != nil {
			results[i] = s.batchProblem(ctx, err)
			continue
		}
		requests, at = append(requests, r), append(at, i)
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	placed := s.cfg.Sales.PlaceEach(bound, requests)
	orders := make([]orderBody, len(placed))
	for i, p := range placed {
		if p.Err != nil {
			results[at[i]] = s.batchProblem(ctx, p.Err)
			continue
		}
		orders[i] = orderOf(&p.Order)
		results[at[i]] = batchResult{Status: fasthttp.StatusCreated, Order: &orders[i], Replayed: p.Replayed}
	}
	return reply(ctx, fasthttp.StatusOK, batchBody{results})
}

func (s *Server) batchProblem(ctx *fasthttp.RequestCtx, err error) batchResult {
	p := asProblem(ctx, err)
	s.noted(ctx, "POST "+batchPath, p, err)
	return batchResult{Status: p.status, Problem: p.body()}
}

// check looks at what a decoder by types alone would have refused.
func (in *batchRequest) check() error {
	if len(in.Orders) == 0 || len(in.Orders) > batchOrdersMax {
		return validationFailed.with("orders must have 1 to %d entries.", batchOrdersMax)
	}
	for i := range in.Orders {
		if in.Orders[i].UserID == mistypedID {
			return noID("orders[" + strconv.Itoa(i) + "].user_id")
		}
		for j := range in.Orders[i].Items {
			if in.Orders[i].Items[j].ProductID == mistypedID {
				return noID("orders[" + strconv.Itoa(i) + "].items[" + strconv.Itoa(j) + "].product_id")
			}
		}
	}
	return nil
}

// request says of an order what POST /order would, in the same order.
func (o *batchOrder) request() (engine.PlaceRequest, error) {
	user, err := o.UserID.must("user_id")
	if err != nil {
		return engine.PlaceRequest{}, err
	}
	switch {
	case o.Key == "":
		return engine.PlaceRequest{}, missingKey.with("An order of a batch needs an idempotency_key of 1 to %d printable characters, the same one on each retry.", engine.KeyMax)
	case strings.Trim(o.Key, " ") != o.Key:
		// A header is read without them: POST /order would take another key to be meant.
		return engine.PlaceRequest{}, validationFailed.with("An idempotency key has no spaces around it.")
	}
	lines, err := linesOf(o.Items)
	if err != nil {
		return engine.PlaceRequest{}, err
	}
	return engine.PlaceRequest{UserID: user, Lines: lines, Key: o.Key}, nil
}

// headerReceived bounds the body that is about to be read.
func (s *Server) headerReceived(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	return fasthttp.RequestConfig{MaxRequestBodySize: s.bodyLimit(h)}
}

// bodyLimit is how long the body of a request may be. Only those who may send a batch get the room for one: bodies are read
// before anybody is asked who they are.
func (s *Server) bodyLimit(h *fasthttp.RequestHeader) int {
	if length := h.ContentLength(); length >= 0 && length <= bodyMax || !h.IsPost() {
		return bodyMax
	}
	if path, _, _ := bytes.Cut(h.RequestURI(), []byte("?")); string(path) != batchPath {
		return bodyMax
	}
	if text, _, err := bearer(h); err != nil || !s.isAdmin(text) {
		return bodyMax
	}
	return batchBodyMax
}
