package rest_test

import (
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/shop"
)

var salesHeader = []string{"bucket", "product_id", "units", "revenue", "orders"}

// sales reads all pages of a report of sales: a row is what CSV has of it. query begins with & where it is not empty.
func (s *server) sales(limit int, query string) (rows [][]string) {
	s.t.Helper()
	for cursor := ""; ; {
		var list struct {
			Items []struct {
				Bucket    string
				ProductID string `json:"product_id"`
				Units     json.Number
				Revenue   json.Number
				Orders    json.Number
			}
			NextCursor *string `json:"next_cursor"`
		}
		a := s.want(200, nil, "GET", fmt.Sprint("/reports/sales?limit=", limit, query, cursor), "", asAdmin...)
		s.decodeInto(a.body, &list)
		if list.Items == nil || len(list.Items) > limit || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Vary") != "Accept" {
			s.t.Errorf("%s of at most %d: %v %s", query, limit, a.Header, a.body)
		}
		for _, i := range list.Items {
			rows = append(rows, []string{i.Bucket, i.ProductID, i.Units.String(), i.Revenue.String(), i.Orders.String()})
		}
		if list.NextCursor == nil {
			return rows
		}
		cursor = "&cursor=" + *list.NextCursor
	}
}

// salesCSV reads a report as CSV, and all pages of it where the server names a next one.
func (s *server) salesCSV(query string) (rows [][]string) {
	s.t.Helper()
	for path := "/reports/sales?" + query; path != ""; {
		a := s.want(200, nil, "GET", path, "", append([]string{"Accept", "text/csv"}, asAdmin...)...)
		if a.Header.Get("Content-Type") != "text/csv; charset=utf-8" || a.Header.Get("Vary") != "Accept" ||
			strings.Count(string(a.body), "\r\n") != strings.Count(string(a.body), "\n") {
			s.t.Errorf("%s: %v %q", path, a.Header, a.body)
		}
		page, err := csv.NewReader(strings.NewReader(string(a.body))).ReadAll()
		if err != nil || !slices.Equal(page[0], salesHeader) {
			s.t.Fatalf("%s: %v %q", path, err, a.body)
		}
		rows = append(rows, page[1:]...)
		next, isNext := strings.CutSuffix(a.Header.Get("Link"), `>; rel="next"`)
		if path = strings.TrimPrefix(next, "<"); !isNext && next != "" {
			s.t.Fatalf("Link: %s", next)
		}
	}
	return rows
}

// rowsEqual compares rows of reports.
func rowsEqual(a, b [][]string) bool { return slices.EqualFunc(a, b, slices.Equal[[]string]) }

// exec changes the tables.
func (s *server) exec(sql string, args ...any) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.Stack.PostgresURL())
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(s.t.Context()) //nolint:errcheck // all is done
	if _, err := conn.Exec(s.t.Context(), sql, args...); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

func TestReports_SalesNetOfRefunds(t *testing.T) {
	s := start(t, shop.Config{})
	u, cheap, dear := s.User(10_000), s.Product(5, 100), s.Product(1000, 100)
	buy := func(product int64, quantity int, payment string) string {
		return s.orderOf(s.want(201, nil, "POST", "/order", line(u, product, quantity, payment)).body).ID
	}
	first := s.orderOf(s.want(201, nil, "POST", "/order", line(u, cheap, 2, "now")).body)
	buy(cheap, 3, "now")
	given := buy(dear, 1, "now")
	held := buy(dear, 4, "later")
	hour := first.UpdatedAt.Truncate(time.Hour).Format(time.RFC3339)
	day := first.UpdatedAt.Truncate(24 * time.Hour).Format(time.RFC3339)
	c, d := fmt.Sprint(cheap), fmt.Sprint(dear)
	want := func(query string, rows ...[]string) {
		t.Helper()
		for _, limit := range []int{1, 200} {
			if got := s.sales(limit, query); !rowsEqual(got, rows) {
				t.Errorf("%q in pages of %d shows %v, want %v", query, limit, got, rows)
			}
		}
		for _, limit := range []string{"", "limit=1&", "limit=200&"} {
			if got := s.salesCSV(limit + strings.TrimPrefix(query, "&")); !rowsEqual(got, rows) {
				t.Errorf("%q as CSV with %q shows %v, want %v", query, limit, got, rows)
			}
		}
	}
	want("&bucket=hour", []string{hour, c, "5", "25", "2"}, []string{hour, d, "1", "1000", "1"})
	s.want(200, nil, "POST", "/order/"+given+"/cancel", "", asAdmin...)
	want("", []string{day, c, "5", "25", "2"})
	s.want(200, nil, "POST", "/order/"+held+"/payment", fmt.Sprintf(`{"user_id":%d}`, u))
	want("&bucket=day", []string{day, c, "5", "25", "2"}, []string{day, d, "4", "4000", "1"})
	want("&bucket=hour&product_id="+d, []string{hour, d, "4", "4000", "1"})
	want("&product_id=99999")
	from := first.UpdatedAt.Truncate(24 * time.Hour)
	want("&from="+day+"&product_id="+c, []string{day, c, "5", "25", "2"})
	want("&to=" + day)
	want("&from=" + from.Add(time.Second).Format(time.RFC3339)) // the day began before
	want("&product_id="+c+"&to="+from.Add(time.Second).Format(time.RFC3339), []string{day, c, "5", "25", "2"})
	want("&product_id="+c+"&from="+url.QueryEscape(from.In(time.FixedZone("", 5400)).Format(time.RFC3339)), []string{day, c, "5", "25", "2"})
	want("&from=0000-01-01T00:00:00Z&to=0001-01-01T00:00:00Z")
	want("&bucket=hour&product_id="+d+"&from=0000-01-01T00:00:00Z&to=9999-12-31T23:59:59.999999999Z", []string{hour, d, "4", "4000", "1"})
	s.auditClean()
}

func TestReports_LedgerOfAUser(t *testing.T) {
	s := start(t, shop.Config{})
	u, p := s.User(1000), s.Product(10, 100)
	charged := s.want(200, nil, "POST", "/balance/charge", fmt.Sprintf(`{"user_id":%d,"amount":77}`, u)).field("charge_id")
	kept := s.orderOf(s.want(201, nil, "POST", "/order", line(u, p, 2, "now")).body).ID
	given := s.orderOf(s.want(201, nil, "POST", "/order", line(u, p, 3, "later")).body).ID
	s.want(200, nil, "POST", "/order/"+given+"/payment", fmt.Sprintf(`{"user_id":%d}`, u))
	s.want(200, nil, "POST", "/order/"+given+"/cancel", fmt.Sprintf(`{"user_id":%d}`, u))
	type posting struct {
		At           time.Time
		Kind         string
		Amount       int64
		BalanceAfter int64  `json:"balance_after"`
		OrderID      string `json:"order_id"`
		ChargeID     string `json:"charge_id"`
	}
	want := []posting{
		{Kind: "refund", Amount: 30, BalanceAfter: 1057, OrderID: given},
		{Kind: "order", Amount: -30, BalanceAfter: 1027, OrderID: given},
		{Kind: "order", Amount: -20, BalanceAfter: 1057, OrderID: kept},
		{Kind: "charge", Amount: 77, BalanceAfter: 1077, ChargeID: charged},
		{Kind: "charge", Amount: 1000, BalanceAfter: 1000},
	}
	for _, limit := range []int{1, 2, 5, 200} {
		var got []posting
		for cursor := ""; ; {
			var list struct {
				Items      []posting
				NextCursor *string `json:"next_cursor"`
			}
			s.decodeInto(s.want(200, nil, "GET", fmt.Sprintf("/reports/users/%d/ledger?limit=%d%s", u, limit, cursor), "", asAdmin...).body, &list)
			got = append(got, list.Items...)
			if list.NextCursor == nil {
				break
			}
			cursor = "&cursor=" + *list.NextCursor
		}
		last := time.Now().Add(time.Hour)
		for i := range got {
			if got[i].At.After(last) || time.Since(got[i].At) > time.Hour {
				t.Errorf("posting %d is of %v", i, got[i].At)
			}
			last, got[i].At = got[i].At, time.Time{}
		}
		if want[4].ChargeID == "" && len(got) == 5 {
			want[4].ChargeID = got[4].ChargeID // of a charge that was made outside HTTP
		}
		if !slices.Equal(got, want) || got[4].ChargeID == "" {
			t.Errorf("in pages of %d the ledger is %+v, want %+v", limit, got, want)
		}
	}
	if a := s.want(200, nil, "GET", fmt.Sprintf("/reports/users/%d/ledger", s.User(0)), "", asAdmin...); string(a.body) != `{"items":[],"next_cursor":null}` {
		t.Errorf("of who did nothing: %s", a.body)
	}
	s.want(404, with("code", "user_not_found"), "GET", "/reports/users/99999/ledger", "", asAdmin...)
}

// A spreadsheet has all rows or none.
func TestReports_CSVIsNeverCut(t *testing.T) {
	s := start(t, shop.Config{})
	s.exec(`INSERT INTO sales_hours SELECT 0, '2026-01-01 05:00Z', n, 1, 90000000000000000000000000000000000000 + n, 1 FROM generate_series(1, 100000) n`)
	rows := s.salesCSV("")
	if last := rows[len(rows)-1]; len(rows) != 100_000 || !slices.Equal(last, []string{"2026-01-01T00:00:00Z", "100000", "1", "90000000000000000000000000000000100000", "1"}) {
		t.Errorf("%d rows, the last is %v", len(rows), last)
	}
	if page := s.sales(200, "&product_id=100000"); !rowsEqual(page, rows[len(rows)-1:]) {
		t.Errorf("the last row as JSON is %v", page)
	}
	s.exec(`INSERT INTO sales_hours VALUES (0, '2026-01-02 05:00Z', 1, 1, 1, 1)`)
	for _, bucket := range []string{"hour", "day"} {
		a := s.want(400, with("code", "validation_failed"), "GET", "/reports/sales?bucket="+bucket, "", append([]string{"Accept", "text/csv"}, asAdmin...)...)
		if !strings.Contains(a.field("detail"), "more than 100000 rows") {
			t.Errorf("%s", a.body)
		}
	}
	if rows := s.salesCSV("to=2026-01-02T00:00:00Z"); len(rows) != 100_000 {
		t.Errorf("narrowed, %d rows", len(rows))
	}
	if rows := s.salesCSV("from=2026-01-01T12:00:00Z"); len(rows) != 1 {
		t.Errorf("of the second day, %d rows", len(rows))
	}
}

func TestReports_AcceptChoosesTheForm(t *testing.T) {
	s := start(t, shop.Config{})
	for accept, asCSV := range map[string]bool{
		"": false, "*/*": false, "application/json": false, "application/*": false, "text/html": false, "image/png, */*;q=0.1": false,
		"text/csv": true, "TEXT/CSV": true, "text/*": true, "text/csv; charset=utf-8": true, "text/csv;header=present;q=0.2": true,
		"text/csv, */*": true, "*/*, text/csv": true, "text/csv, */*;q=0.8": true, "text/csv;q=0.5, */*": false, "text/*, */*": true,
		"text/csv, application/json": false, "application/json;q=0.9, text/csv": true, "application/json, text/csv;q=0.9": false,
		"text/csv;q=0": false, "text/csv;q=0, text/*": false, "*/*;q=0": false, "text/csv;q=0.001, application/json;q=0": true,
		"text/csv;q=nan": false, "text/csv;q=2": false, "text/csv;q=-1": false, "text/csv;q=x": false, ",": false, "/, text/csv": true,
		"text/csv-schema": false, "xtext/csv": false,
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			a := s.want(200, nil, method, "/reports/sales", "", append([]string{"Accept", accept}, asAdmin...)...)
			want := "application/json"
			if asCSV {
				want = "text/csv; charset=utf-8"
			}
			if got := a.Header.Get("Content-Type"); got != want || (method == http.MethodHead && len(a.body) > 0) {
				t.Errorf("%s with Accept: %q gets %s: %q", method, accept, got, a.body)
			}
		}
	}
	if a := s.want(200, nil, "GET", "/reports/sales", "", append([]string{"Accept", "text/csv"}, asAdmin...)...); string(a.body) != "bucket,product_id,units,revenue,orders\r\n" {
		t.Errorf("of a shop that sold nothing: %q", a.body)
	}
	a := s.want(400, with("code", "validation_failed"), "GET", "/reports/sales?bucket=week", "", append([]string{"Accept", "text/csv"}, asAdmin...)...)
	if a.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("a refusal is %v", a.Header)
	}
}

func TestReports_RefuseWhatTheyCannotRead(t *testing.T) {
	s := start(t, shop.Config{})
	u := s.User(1000)
	s.exec(`INSERT INTO sales_hours VALUES (0, '2026-01-01 05:00Z', 1, 1, 1, 1), (0, '2026-01-01 06:00Z', 2, 1, 1, 1)`)
	s.want(200, nil, "POST", "/balance/charge", fmt.Sprintf(`{"user_id":%d,"amount":77}`, u))
	next := func(path string) string { return s.want(200, nil, "GET", path, "", asAdmin...).field("next_cursor") }
	ledger := fmt.Sprintf("/reports/users/%d/ledger?limit=1", u)
	ofDays, ofHours, ofLedger := next("/reports/sales?limit=1"), next("/reports/sales?limit=1&bucket=hour"), next(ledger)
	if ofDays == "" || ofHours == "" || ofLedger == "" {
		t.Fatalf("cursors %q %q %q", ofDays, ofHours, ofLedger)
	}
	for path, detail := range map[string]string{
		"bucket=": "bucket", "bucket=week": "bucket", "bucket=Day": "bucket", "bucket=day&bucket=day": "bucket",
		"from=": "from", "from=2026-01-01": "from", "from=1767225600": "from", "from=2026-01-01T00:00:00": "from", "from=2026-01-01T00:00:00+01:00": "%2B",
		"to=2026-13-01T00:00:00Z": "to", "to=2026-02-30T00:00:00Z": "to", "to=2026-01-01T24:00:00Z": "to", "to=2026-01-01T1:00:00Z": "to", "to=2026-01-01T01:00:00,5Z": "to", "to=infinity": "to",
		"from=2026-01-01T00:00:00Z&from=2026-01-01T00:00:00Z": "from", "from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z": "before",
		"from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z": "before", "from=2026-01-01T00:00:00Z&to=0001-01-01T00:00:00Z": "before",
		"product_id=0": "product_id", "product_id=x": "product_id", "product_id=1&product_id=2": "product_id",
		"limit=0": "limit", "limit=201": "limit", "limit=x": "limit",
		"cursor=": "cursor", "cursor=x": "cursor", "cursor=" + ofHours: "cursor", "bucket=hour&cursor=" + ofDays: "cursor", "cursor=" + ofLedger: "cursor",
		"cursor=" + ofDays + "A": "cursor", "cursor=" + ofDays + "%0A": "cursor", "cursor=" + encoded("sales-day:0:1"): "cursor", "cursor=" + encoded("sales-day:1"): "cursor",
		"cursor=" + encoded("sales-day:1:01"): "cursor", "cursor=" + encoded("sales-day:9223372036854775807:1"): "cursor", "cursor=" + encoded("sales-day:1:2:3"): "cursor",
	} {
		for _, accept := range []string{"application/json", "text/csv"} {
			a := s.want(400, with("code", "validation_failed"), "GET", "/reports/sales?"+path, "", append([]string{"Accept", accept}, asAdmin...)...)
			if !strings.Contains(a.field("detail"), detail) {
				t.Errorf("%s: %s", path, a.body)
			}
		}
	}
	for _, query := range []string{"&limit=1", "&cursor=x", "&cursor=" + ofDays, "&cursor=" + encoded("ledger:1"), "&cursor=" + encoded("ledger:1:0")} {
		s.want(400, with("code", "validation_failed"), "GET", ledger+query, "", asAdmin...)
	}
	// A cursor that comes from far away shows what is behind it.
	s.want(200, with("items", "[]"), "GET", "/reports/sales?cursor="+encoded("sales-day:106751:1"), "", asAdmin...)
}

// Reports answer without Redis; without Postgres they say soon that they cannot.
func TestReports_WhileServersAreAway(t *testing.T) {
	s := start(t, shop.Config{OperationTimeout: 500 * time.Millisecond})
	u, p := s.User(1000), s.Product(10, 100)
	s.want(201, nil, "POST", "/order", line(u, p, 1, "now"))
	s.Written()
	ledger := fmt.Sprintf("/reports/users/%d/ledger", u)
	if err := s.Servers().HaltNow(within(t)); err != nil {
		t.Fatal(err)
	}
	if rows := s.sales(50, ""); len(rows) != 1 || rows[0][2] != "1" {
		t.Errorf("without Redis the sales are %v", rows)
	}
	if a := s.want(200, nil, "GET", ledger, "", asAdmin...); !strings.Contains(string(a.body), `"amount":-10`) {
		t.Errorf("without Redis the ledger is %s", a.body)
	}
	if err := s.Servers().Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.Stack.Postgres().HaltNow(within(t)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/reports/sales", ledger} {
		begun := time.Now()
		a := s.send("GET", path, "", asAdmin...)
		if took := time.Since(begun); a.StatusCode != 503 || a.field("code") != "overloaded" || took > 12*time.Second {
			t.Errorf("%s without Postgres: after %v %d %s", path, took, a.StatusCode, a.body)
		}
	}
	if err := s.Stack.Postgres().Resume(within(t)); err != nil {
		t.Fatal(err)
	}
}

// encoded is a cursor that the server did not make.
func encoded(plain string) string { return base64.RawURLEncoding.EncodeToString([]byte(plain)) }
