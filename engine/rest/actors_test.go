package rest_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"stampede/cmd/shop"
	"stampede/engine/rest"
)

// manner is how a route treats those who call it.
type manner int

const (
	open   manner = iota // anybody, whatever credential they show
	buyers               // a buyer, for themselves
	both                 // a buyer for what is theirs, an admin for all
	admins
)

// errand is a request of a route that succeeds for those who may make it. In body and says, USER stands for the buyer
// whom it is about, PRODUCT for a product, EMAIL for a fresh address, and KEY for a fresh key.
type errand struct {
	route string // as the server names it; {id} is an id of the buyer's
	manner
	body     string
	status   int     // of the success
	says     string  // part of the success: who acted
	stranger outcome // of another buyer; zero: they do it for themselves
}

// errands are one for every route.
var errands = []errand{
	{"POST /users", admins, `{"name":"x","email":"EMAIL"}`, 201, "", outcome{}},
	{"GET /users/{id}", both, "", 200, `{"id":"USER"`, notTheirs},
	{"POST /balance/charge", buyers, `{"amount":1}`, 200, `"user_id":"USER"`, outcome{}},
	{"GET /balance", buyers, "", 200, `"user_id":"USER"`, outcome{}},
	{"POST /products", admins, `{"name":"x","price":1,"stock":1}`, 201, "", outcome{}},
	{"GET /products", open, "", 200, "", outcome{}},
	{"GET /products/top", open, "", 200, "", outcome{}},
	{"GET /products/{id}", open, "", 200, "", outcome{}},
	{"PATCH /products/{id}", admins, `{"name":"y","price":11}`, 200, "", outcome{}},
	{"POST /products/{id}/stock", admins, `{"delta":1,"reason":"x"}`, 200, "", outcome{}},
	{"POST /order", buyers, `{"items":[{"product_id":PRODUCT,"quantity":1}]}`, 201, `"user_id":"USER"`, outcome{}},
	{"GET /order/{id}", both, "", 200, `"user_id":"USER"`, hidden},
	{"POST /order/{id}/payment", buyers, `{}`, 200, `"user_id":"USER"`, hidden},
	{"POST /order/{id}/cancel", both, `{"reason":"x"}`, 200, `"user_id":"USER"`, hidden},
	{"GET /orders", both, "", 200, "", outcome{}},
	{"POST /orders/batch", admins, `{"orders":[{"idempotency_key":"KEY","user_id":USER,"items":[{"product_id":PRODUCT,"quantity":1}]}]}`, 200, `{"results":[{"status":201,"order":{"id":`, outcome{}},
	{"POST /cart/add", buyers, `{"product_id":PRODUCT,"quantity":1}`, 200, `"user_id":"USER"`, outcome{}},
	{"GET /cart", buyers, "", 200, `"user_id":"USER"`, outcome{}},
	{"POST /cart/order", buyers, `{}`, 201, `"user_id":"USER"`, outcome{}},
	{"DELETE /cart/remove", buyers, `{"product_id":PRODUCT}`, 200, `"user_id":"USER"`, outcome{}},
	{"GET /reports/sales", admins, "", 200, "", outcome{}},
	{"GET /reports/users/{id}/ledger", admins, "", 200, `"kind":"charge","amount":100000,"balance_after":100000,"charge_id":"`, outcome{}},
	{"GET /openapi.json", open, "", 200, "", outcome{}},
	{"GET /docs", open, "", 200, "", outcome{}},
	{"GET /docs/{file}", open, "", 200, "", outcome{}},
	{"GET /healthz", open, "", 200, "", outcome{}},
	{"GET /readyz", open, "", 200, "", outcome{}},
	{"GET /metrics", open, "", 200, "", outcome{}},
}

// outcome is how a request must be refused.
type outcome struct {
	status    int
	code      string
	detail    string // a part of it
	challenge string
}

var (
	noCredential  = outcome{401, "unauthorized", "Authorization: Bearer", "Bearer"}
	badCredential = outcome{401, "unauthorized", "token|more than once", `Bearer error="invalid_token"`}
	notTheirs     = outcome{403, "forbidden", "their own user", ""}
	hidden        = outcome{404, "order_not_found", "not this user's", ""}
	disagreeing   = outcome{403, "forbidden", "another user|different users", ""}
	nobodyNamed   = outcome{400, "validation_failed", "names no user", ""}
	misnamed      = outcome{400, "validation_failed", "X-User-Id", ""}
)

// actor is somebody with what they send along.
type actor struct {
	name    string
	headers []string // lines
	query   string
	body    int64 // user_id in the body of routes that take one there; 0: none, and any route
}

// refused is an actor who must be, by the manner of a route; where nothing stands they do not call it.
type refused struct {
	actor
	wants map[manner]outcome
}

// served is an actor who must be, for a user, on routes of these manners.
type served struct {
	actor
	user int64
	may  []manner
}

// cast are those whom the actors ask about, and a server that they ask.
type cast struct {
	*server
	buyer, other, product int64
	trusted               *server // of the same shop
}

// TestAPI_WhoMayDoWhat has everybody ask for everything: who acts is whom the credential names.
func TestAPI_WhoMayDoWhat(t *testing.T) {
	var routes []string
	for _, e := range errands {
		routes = append(routes, e.route)
	}
	if all := rest.Routes(); !slices.Equal(slices.Sorted(slices.Values(routes)), slices.Sorted(slices.Values(all))) {
		t.Fatalf("the table has the routes %v, the server %v: each needs one row", routes, all)
	}
	s := start(t, shop.Config{})
	c := &cast{server: s, trusted: s, buyer: s.User(100_000), other: s.User(100_000), product: s.Product(10, 1000)}
	for _, user := range []int64{c.buyer, c.other} { // whose carts are not for anybody else to buy
		s.want(200, nil, "POST", "/cart/add", fmt.Sprintf(`{"user_id":%d,"product_id":%d,"quantity":1}`, user, c.product))
	}
	t.Run("trusted", func(t *testing.T) { c.on(t, s.addr).trustedMode() })
	t.Run("jwt", func(t *testing.T) { c.on(t, s.beside(rest.Config{Tokens: issuerTokens(t)})).jwtMode() })
	t.Run("bodies", func(t *testing.T) { c.on(t, s.addr).fieldsWithoutPower() })
	s.auditClean()
}

// on is the cast in a test of its own, before another server of the same shop.
func (c *cast) on(t *testing.T, addr string) *cast {
	on := *c
	on.server = c.at(t, addr)
	return &on
}

// at is the shop of the server behind another address, for a test of its own.
func (s *server) at(t *testing.T, addr string) *server {
	there := *s
	there.t, there.addr = t, addr
	return &there
}

// beside serves the same shop once more, at the address returned. Nothing is logged.
func (s *server) beside(c rest.Config) (addr string) {
	s.t.Helper()
	c.Sales, c.Registry, c.Health = s.Engine, s.Books, health{s.Shop}
	if c.Log == nil {
		c.Log = silent
	}
	return serve(s.t, c)
}

// path is where an errand goes for a user, an order of whom is held.
func (c *cast) path(e errand, user int64, held string) string {
	_, path, _ := strings.Cut(e.route, " ")
	return strings.NewReplacer(
		"/users/{id}", fmt.Sprint("/users/", user), "/products/{id}", fmt.Sprint("/products/", c.product),
		"/order/{id}", "/order/"+held, "{file}", "docs.js",
	).Replace(path)
}

// request is an errand for a user, run by an actor; "" where it has no place for what they send.
func (c *cast) request(e errand, a actor, method string, user int64, held string) string {
	path := c.path(e, user, held)
	if a.query != "" {
		path += "?" + a.query
	}
	body := strings.NewReplacer(
		"PRODUCT", fmt.Sprint(c.product), "EMAIL", freshKey()+"@example.com", "USER", fmt.Sprint(user), "KEY", freshKey(),
	).Replace(e.body)
	if a.body != 0 {
		if body == "" || e.manner == admins {
			return ""
		}
		body = strings.Replace(strings.Replace(body, "{", fmt.Sprintf(`{"user_id":%d,`, a.body), 1), ",}", "}", 1)
	}
	return call(method, path, body, a.headers...)
}

// methods of an errand: what may not be read may not be asked after with HEAD either.
func (e errand) methods() []string {
	if method := methodOf(e.route); method != "GET" {
		return []string{method}
	}
	return []string{"GET", "HEAD"}
}

// hold places an unpaid order.
func (c *cast) hold(user int64) string {
	c.t.Helper()
	return c.trusted.wantOrder(201, "PENDING", "POST", "/order", line(user, c.product, 1, "later")).ID
}

// refuse has the actors run every errand for the buyer, and wants all of it refused and nothing changed.
func (c *cast) refuse(actors []refused) {
	c.t.Helper()
	held, conn := c.hold(c.buyer), c.dial()
	before := c.everything()
	for _, a := range actors {
		for _, e := range errands {
			want := a.wants[e.manner]
			if want == (outcome{}) {
				continue
			}
			if want == aStranger {
				want = e.stranger
			}
			for _, method := range e.methods() {
				if request := c.request(e, a.actor, method, c.buyer, held); request != "" && want != (outcome{}) {
					c.wantOutcome(conn, a.name+" on "+e.route, request, want)
				}
			}
		}
	}
	c.wantUnchanged(before)
}

// aStranger stands for what the errand says of one.
var aStranger = outcome{code: "stranger"}

func (c *cast) wantOutcome(conn *rawConn, who, request string, want outcome) {
	c.t.Helper()
	_, _ = conn.Write([]byte(request)) // where it fails there is no answer
	a, err := conn.answer(methodOf(request))
	if err != nil {
		c.t.Fatalf("%s: %.300q: %v", who, request, err)
	}
	c.wantProblem(row{request, want.status, want.code, want.detail}, a)
	if a.status != want.status || a.headers["www-authenticate"] != want.challenge {
		c.t.Errorf("%s: %d with the challenge %q, want %d with %q", who, a.status, a.headers["www-authenticate"], want.status, want.challenge)
	}
}

// serve has the actors run every errand that they may run, for their user.
func (c *cast) serve(actors []served) {
	c.t.Helper()
	conn := c.dial()
	for _, a := range actors {
		for _, e := range errands {
			if !slices.Contains(a.may, e.manner) {
				continue
			}
			held := ""
			if strings.Contains(e.route, "/order/{id}") {
				held = c.hold(a.user)
			}
			request := c.request(e, a.actor, methodOf(e.route), a.user, held)
			if request == "" {
				continue
			}
			got := c.exchange(conn, request)
			says := strings.Replace(e.says, "USER", fmt.Sprint(a.user), 1)
			if got.StatusCode != e.status || !bytes.Contains(got.body, []byte(says)) {
				c.t.Errorf("%s on %s: %d %.500s, want %d with %s", a.name, e.route, got.StatusCode, got.body, e.status, says)
			}
			for _, user := range []int64{c.buyer, c.other} {
				if user != a.user && bytes.Contains(got.body, fmt.Appendf(nil, `"user_id":"%d"`, user)) {
					c.t.Errorf("%s on %s: reads of somebody else: %s", a.name, e.route, got.body)
				}
			}
		}
	}
}

// exchange sends a request and reads the answer; the connection stays open.
func (s *server) exchange(conn *rawConn, request string) answer {
	s.t.Helper()
	_, _ = conn.Write([]byte(request)) // where it fails there is no answer
	response, err := http.ReadResponse(conn.r, &http.Request{Method: methodOf(request)})
	if err != nil {
		s.t.Fatalf("%.300q: %v", request, err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatalf("%.300q: %v", request, err)
	}
	return answer{response, body}
}
