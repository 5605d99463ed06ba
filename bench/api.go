package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const callMax = 30 * time.Second // for one call outside of a load

// api calls the shop's routes one at a time, to fill the shop and to look at it; loads have a client of their own.
type api struct {
	base  string
	token string // of the admin
	http  *http.Client
}

func newAPI(addr, token string) *api {
	return &api{
		base: "http://" + addr, token: token,
		http: &http.Client{
			Timeout:   callMax,
			Transport: &http.Transport{MaxIdleConnsPerHost: fillConnections},
		},
	}
}

// call sends a request, with a body if in is not nil, and decodes the answer into out. Any status but want is an error.
func (a *api) call(ctx context.Context, method, path, key string, in any, want int, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := a.http.Do(request)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if response.StatusCode != want {
		return fmt.Errorf("%s %s: %s %.300s", method, path, response.Status, text)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

func (a *api) ready(ctx context.Context) error {
	return a.call(ctx, http.MethodGet, "/readyz", "", nil, http.StatusOK, nil)
}

type created struct {
	ID string `json:"id"`
}

func (a *api) createUser(ctx context.Context, name, email string) (id string, err error) {
	var user created
	in := map[string]any{"name": name, "email": email}
	err = a.call(ctx, http.MethodPost, "/users", "", in, http.StatusCreated, &user)
	return user.ID, err
}

func (a *api) createProduct(ctx context.Context, name string, price, stock int64) (id string, err error) {
	var product created
	in := map[string]any{"name": name, "price": price, "stock": stock}
	err = a.call(ctx, http.MethodPost, "/products", "", in, http.StatusCreated, &product)
	return product.ID, err
}

// charge adds to a balance, once a user.
func (a *api) charge(ctx context.Context, user string, amount int64) error {
	in := map[string]any{"user_id": user, "amount": amount}
	return a.call(ctx, http.MethodPost, "/balance/charge", "charge-"+user, in, http.StatusOK, nil)
}

func (a *api) stock(ctx context.Context, product string) (int64, error) {
	var p struct {
		Stock int64 `json:"stock"`
	}
	err := a.call(ctx, http.MethodGet, "/products/"+product, "", nil, http.StatusOK, &p)
	return p.Stock, err
}

// lagMetric is measured when asked: 0 means that every change answered before stands in PostgreSQL's tables.
const lagMetric = "stampede_writer_lag_events"

func (a *api) lag(ctx context.Context) (int64, error) { return a.gauge(ctx, lagMetric) }

// gauge reads a measure of /metrics.
func (a *api) gauge(ctx context.Context, metric string) (int64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := a.http.Do(request)
	if err != nil {
		return 0, err
	}
	value, err := readGauge(response.Body, metric)
	return value, errors.Join(err, response.Body.Close())
}

// readGauge adds up the samples of a metric in Prometheus' text format.
func readGauge(from io.Reader, metric string) (int64, error) {
	sum, found := 0.0, false
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), metric)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("/metrics: %s: %w", metric, err)
		}
		sum, found = sum+value, true
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	if !found {
		return 0, fmt.Errorf("/metrics has no %s", metric)
	}
	return int64(sum), nil
}
