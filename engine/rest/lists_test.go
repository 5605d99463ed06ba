package rest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"stampede/cmd/shop"
)

func TestAPI_ListsProductsByCursor(t *testing.T) {
	s := start(t, shop.Config{})
	for n := range 7 {
		s.Product(int64(n), 10)
	}
	var got []string
	for path := "/products?limit=3"; path != ""; {
		a := s.send("GET", path, "")
		var list struct {
			Items []struct {
				ID    string
				Stock int64
			}
			NextCursor *string `json:"next_cursor"`
		}
		if err := json.Unmarshal(a.body, &list); err != nil {
			t.Fatal(err)
		}
		for _, p := range list.Items {
			got = append(got, p.ID)
		}
		path = ""
		if list.NextCursor != nil {
			path = "/products?limit=3&cursor=" + *list.NextCursor
		}
	}
	if fmt.Sprint(got) != "[1 2 3 4 5 6 7]" {
		t.Errorf("the pages hold %v", got)
	}
}

// orders reads all pages of a list of orders.
func (s *server) orders(path string, headers ...string) (all []order, pages int) {
	s.t.Helper()
	for cursor := ""; ; pages++ {
		var list struct {
			Items      []json.RawMessage
			NextCursor *string `json:"next_cursor"`
		}
		s.decodeInto(s.want(200, nil, "GET", path+cursor, "", headers...).body, &list)
		if list.Items == nil {
			s.t.Error("items is null")
		}
		for _, item := range list.Items {
			all = append(all, s.orderOf(item))
		}
		if list.NextCursor == nil {
			return all, pages + 1
		}
		cursor = "&cursor=" + *list.NextCursor
	}
}

func TestAPI_ListsOrdersNewestFirst(t *testing.T) {
	s := start(t, shop.Config{})
	u, v, p := s.User(1000), s.User(1000), s.Product(10, 100)
	user := fmt.Sprint(u)
	var want []string
	for i := range 5 {
		payment := []string{"now", "later"}[i%2]
		o := s.orderOf(s.want(201, nil, "POST", "/order", line(u, p, 1+i, payment)).body)
		want = append([]string{o.ID}, want...)
		s.want(201, nil, "POST", "/order", line(v, p, 1, "now"))
	}
	s.wantOrder(200, "PENDING SUCCESS REFUNDED", "POST", "/order/"+want[0]+"/cancel", `{"user_id":`+user+`,"reason":"too many"}`)
	s.Written()
	for _, c := range []struct {
		path    string
		pages   int
		headers []string
	}{
		{"/orders?user_id=" + user, 1, nil},
		{"/orders?limit=2", 3, []string{"X-User-Id", user}},
		{"/orders?limit=5", 1, []string{"X-User-Id", user}},
		{"/orders?limit=1&user_id=" + user, 5, asAdmin},
	} {
		got, pages := s.orders(c.path, c.headers...)
		var ids []string
		for _, o := range got {
			ids = append(ids, o.ID)
			single := s.want(200, nil, "GET", "/order/"+o.ID+"?user_id="+user, "").body
			listed, err := json.Marshal(o)
			if alone, err2 := json.Marshal(s.orderOf(single)); err != nil || err2 != nil || string(listed) != string(alone) {
				t.Errorf("%s lists %s, alone it is %s", c.path, listed, alone)
			}
		}
		if strings.Join(ids, " ") != strings.Join(want, " ") || pages != c.pages {
			t.Errorf("%s: %d pages with %v, want %v", c.path, pages, ids, want)
		}
	}
	w := s.User(0)
	if got, _ := s.orders(fmt.Sprintf("/orders?user_id=%d", w)); len(got) != 0 {
		t.Errorf("who bought nothing has orders: %v", got)
	}
	s.auditClean()
}

func TestAPI_TopSellers(t *testing.T) {
	s := start(t, shop.Config{})
	u := s.User(1_000_000)
	type top struct {
		WindowHours int       `json:"window_hours"`
		AsOf        time.Time `json:"as_of"`
		Items       []struct {
			Rank      int
			ProductID string `json:"product_id"`
			Name      string
			Price     int64
			Sold      int64
		}
	}
	want := func(path, want string) {
		t.Helper()
		var got top
		s.decodeInto(s.want(200, nil, "GET", path, "").body, &got)
		text := ""
		for i, item := range got.Items {
			if item.Rank != i+1 || item.Name != "Thing" || item.Price != 1 {
				t.Errorf("%s: place %d is %+v", path, i+1, item)
			}
			text += fmt.Sprintf("%s×%d ", item.ProductID, item.Sold)
		}
		if text != want || got.WindowHours != 72 || got.Items == nil || time.Since(got.AsOf).Abs() > time.Minute {
			t.Errorf("%s: %q as of %s, want %q", path, text, got.AsOf, want)
		}
	}
	want("/products/top", "")
	var first string
	for i := range 7 { // 1×1 2×2 3×3 4×4 5×5 6×5 7×5
		o := s.wantOrder(201, "PENDING SUCCESS", "POST", "/order", line(u, s.Product(1, 100), min(i+1, 5), "now"))
		if i == 4 {
			first = o.ID
		}
	}
	s.want(201, nil, "POST", "/order", line(u, 1, 50, "later")) // held is not sold
	want("/products/top", "5×5 6×5 7×5 4×4 3×3 ")
	want("/products/top?limit=100", "5×5 6×5 7×5 4×4 3×3 2×2 1×1 ")
	want("/products/top?limit=1", "5×5 ")
	s.want(200, nil, "POST", "/order/"+first+"/cancel", "", asAdmin...)
	want("/products/top?limit=3", "6×5 7×5 4×4 ")
	want("/products/top?limit=100", "6×5 7×5 4×4 3×3 2×2 1×1 ")
	s.auditClean()
}
