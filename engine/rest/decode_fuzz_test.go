package rest

import (
	"bytes"
	"errors"
	"io"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/valyala/fasthttp"
)

// post is a request with this body, as the server hands it to a handler.
func post(body []byte) *fasthttp.RequestCtx {
	ctx := &fasthttp.RequestCtx{}
	ctx.Request.Header.SetMethod(fasthttp.MethodPost)
	ctx.Request.Header.SetContentType("application/json")
	ctx.Request.SetBody(body)
	return ctx
}

// The decoder of orders takes exactly the bodies that a strict reader by the book takes, and reads the same in them.
func FuzzDecodeOrder(f *testing.F) {
	for _, seed := range orderSeeds() {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > 4<<10 {
			return
		}
		var got orderRequest
		err := decode(post(body), &got)
		want, sound := readOrder(body)
		if (err == nil) != sound {
			t.Fatalf("%q: the decoder says %v, the reference takes it: %v", body, err, sound)
		}
		if err != nil {
			wantHelpful(t, body, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %+v, want %+v", body, got, want)
		}
	})
}

// wantHelpful wants a refusal that a client can act on and that does not throw its body back at it.
func wantHelpful(t *testing.T, body []byte, err error) {
	t.Helper()
	var p *problem
	if !errors.As(err, &p) || p.status != 400 || p.detail == "" {
		t.Fatalf("%q: %v", body, err)
	}
	if len(p.detail) > 200 {
		t.Fatalf("%q: a detail of %d characters: %s", body, len(p.detail), p.detail)
	}
}

func orderSeeds() []string {
	good := string(orderOfLines(2))
	seeds := []string{
		good, string(orderOfLines(1)), `{}`, ` { "items" : [ ] } `, `{"user_id":9223372036854775807}`, `{"user_id":9223372036854775808}`,
		`{"user_id":"1","user_id":"1"}`, `{"user_id":1,"user_i\u0064":1}`, `{"user_i\u0064":1}`, `{"payment":"l\u0061ter"}`,
		`{"payment":"\ud83d\ude00"}`, `{"payment":"\ud83d"}`, `{"payment":"\ude00\ud83d"}`, `{"payment":"\u0000"}`, `{"payment":"\x"}`,
		"{\"payment\":\"\xff\"}", "{\"payment\":\"\xc0\x80\"}", "{\"payment\":\"\xed\xa0\x80\"}", "{\"payment\":\"a\nb\"}", "\ufeff{}",
		`{"User_id":1}`, `{"user_id":null}`, `{"items":null}`, `{"items":[null]}`, `{"items":[{"quantity":1,"quantity":1}]}`,
		`{"items":[{"quantity":1.0}]}`, `{"items":[{"quantity":1e3}]}`, `{"items":[{"quantity":-0}]}`, `{"items":[{"quantity":01}]}`,
		`{"items":[{"quantity":9223372036854775808}]}`, `{"items":[{"quantity":"1"}]}`, `{"items":[{"quantity":true}]}`,
		`{"items":{}}`, `{"items":[[]]}`, `{"items":[1]}`, `{"items":[{}],"price":1}`, `{"items":[{}]}x`, `{"items":[{}]}{}`, `{"items":[{}],}`,
		`[]`, `null`, `1`, `"x"`, ``, ` `, `{`, `{"`, `{"a`, `{"a"`, `{"a":`, `{"a":[`, `{"items":[{},]}`, `{"items":[,{}]}`, `{,}`, `{"items":[{}]]`,
		`{"user_id":[1]}`, `{"user_id":{}}`, `{"user_id":""}`, `{"user_id":" 1"}`, `{"user_id":"1`, `{"user_id":+1}`, `{"user_id":.1}`, `{"user_id":tru}`,
		strings.Repeat(`{"items":`, 20), strings.Repeat(`{"items":[`, 4) + strings.Repeat(`]}`, 4), strings.Repeat(`[`, 100),
		`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1}`,
	}
	for i := range good {
		seeds = append(seeds, good[:i])
	}
	return seeds
}

// readOrder is the reference: a reader of tokens that knows JSON by the book (RFC 8259, and RFC 7493 on duplicate keys
// and Unicode), and what an order may hold.
func readOrder(body []byte) (in orderRequest, sound bool) {
	if depth(body) > depthMax {
		return in, false
	}
	d := jsontext.NewDecoder(bytes.NewReader(body))
	sound = readObject(d, func(name string) bool {
		switch name {
		case "user_id":
			return readID(d, &in.UserID)
		case "payment":
			text, ok := readText(d)
			in.Payment = &text
			return ok
		case "items":
			return readItems(d, &in.Items)
		}
		return false
	})
	if !sound {
		return in, false
	}
	_, err := d.ReadToken() // nothing may follow
	return in, err != nil && errors.Is(err, io.EOF)
}

func readItems(d *jsontext.Decoder, items *[]lineRequest) bool {
	if t, err := d.ReadToken(); err != nil || t.Kind() != '[' {
		return false
	}
	*items = []lineRequest{}
	for d.PeekKind() != ']' {
		var line lineRequest
		ok := readObject(d, func(name string) bool {
			switch name {
			case "product_id":
				return readID(d, &line.ProductID)
			case "quantity":
				return readInteger(d, &line.Quantity)
			}
			return false
		})
		if !ok {
			return false
		}
		*items = append(*items, line)
	}
	_, err := d.ReadToken()
	return err == nil
}

// readObject reads the value of each key by a function that knows the key.
func readObject(d *jsontext.Decoder, value func(name string) bool) bool {
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return false
	}
	for d.PeekKind() != '}' {
		name, ok := readText(d)
		if !ok || !value(name) {
			return false
		}
	}
	_, err := d.ReadToken()
	return err == nil
}

func readText(d *jsontext.Decoder) (string, bool) {
	t, err := d.ReadToken()
	if err != nil || t.Kind() != '"' {
		return "", false
	}
	text := t.String()
	return text, !strings.ContainsRune(text, 0)
}

func readInteger(d *jsontext.Decoder, n *int64) bool {
	v, err := d.ReadValue()
	if err != nil || v.Kind() != '0' {
		return false
	}
	*n, err = strconv.ParseInt(string(v), 10, 64)
	return err == nil
}

// readID takes anything but null, as ids are judged where their names are known.
func readID(d *jsontext.Decoder, to *id) bool {
	v, err := d.ReadValue()
	if err != nil {
		return false
	}
	raw := string(v)
	*to = malformedID
	if kind := v.Kind(); kind != '"' && (kind != '0' || strings.ContainsAny(raw, ".eE")) {
		*to = mistypedID
	}
	if n, ok := bigID(strings.TrimSuffix(strings.TrimPrefix(raw, `"`), `"`)); ok && (raw[0] == '"') == (raw[len(raw)-1] == '"') {
		*to = id(n)
	}
	return clean(v)
}

// clean refuses null and U+0000 at any depth.
func clean(v jsontext.Value) bool {
	d := jsontext.NewDecoder(bytes.NewReader(v))
	for {
		t, err := d.ReadToken()
		switch {
		case err != nil:
			return errors.Is(err, io.EOF)
		case t.Kind() == 'n', t.Kind() == '"' && strings.ContainsRune(t.String(), 0):
			return false
		}
	}
}

// depth is how deep brackets outside of strings nest.
func depth(body []byte) int {
	deepest, open, quoted := 0, 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			open++
			deepest = max(deepest, open)
		case c == '}' || c == ']':
			open--
		}
	}
	return deepest
}

// bigID is digits by another way.
func bigID(text string) (int64, bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" || text[0] == '0' {
		return 0, false
	}
	n, _ := new(big.Int).SetString(text, 10)
	return n.Int64(), n.IsInt64()
}

// An id is taken from header, path and query exactly where it is one.
func FuzzID(f *testing.F) {
	for _, seed := range []string{
		"1", "0", "01", "-1", "+1", "1e3", "1.0", " 1", "1 ", "", "9223372036854775807", "9223372036854775808", "18446744073709551617",
		"99999999999999999999", "{1}", "1:2", "１", "1\x00", "0x1", "1_000",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseID("id", text)
		want, sound := bigID(text)
		if (err == nil) != sound || (sound && got != want) {
			t.Fatalf("%q: %d, %v; want %d, %v", text, got, err, want, sound)
		}
		if raw, err := parseID("id", []byte(text)); raw != got || (err == nil) != sound {
			t.Fatalf("%q: %d as bytes, %d as text", text, raw, got)
		}
		if err != nil {
			wantHelpful(t, []byte(text), err)
		}
	})
}

// A cursor that a list gave out is read again, and no other text is.
func FuzzCursor(f *testing.F) {
	f.Add(int64(1), *productList.cursor(1))
	f.Add(int64(1<<62), *orderList.cursor(7))
	f.Add(int64(5), "b3JkZXJzOjA")
	f.Fuzz(func(t *testing.T, last int64, text string) {
		for _, l := range []list{productList, orderList} {
			if last > 0 {
				if got, err := l.last(withCursor(*l.cursor(last))); err != nil || got != last {
					t.Fatalf("%s%d is read as %d, %v", l, last, got, err)
				}
			}
			got, err := l.last(withCursor(text))
			if err == nil && text != "" && *l.cursor(got) != text {
				t.Fatalf("%q passes as a cursor of %s to %d", text, l, got)
			}
		}
	})
}

func withCursor(text string) *fasthttp.RequestCtx {
	ctx := &fasthttp.RequestCtx{}
	ctx.QueryArgs().Set("cursor", text)
	return ctx
}

// Of the headers of a request an idempotency key is what stands in the one header of that name, untouched.
func FuzzIdempotencyKeyHeader(f *testing.F) {
	for _, seed := range []string{"k", "", " ", "a b", strings.Repeat("k", 255), strings.Repeat("ж", 255), strings.Repeat("k", 1021), "a\tb"} {
		f.Add(seed, "")
		f.Add(seed, "other")
	}
	f.Fuzz(func(t *testing.T, key, second string) {
		ctx := &fasthttp.RequestCtx{}
		given := slices.DeleteFunc([]string{key, second}, func(s string) bool { return s == "" })
		for _, k := range given {
			ctx.Request.Header.Add("Idempotency-Key", k)
		}
		sent := ctx.Request.Header.PeekAll("Idempotency-Key")
		got, err := idempotencyKey(ctx)
		if err == nil && (len(sent) != 1 || got != string(sent[0]) || got == "" || len(got) > 4*255) {
			t.Fatalf("%q: the key is %q", given, got)
		}
		if err == nil {
			return
		}
		wantHelpful(t, []byte(key), err)
		if len(sent) == 1 && len(sent[0]) > 0 && len(sent[0]) <= 4*255 {
			t.Fatalf("%q: %v", given, err)
		}
	})
}
