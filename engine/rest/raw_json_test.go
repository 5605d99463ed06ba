package rest_test

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf16"
)

// badJSON are bodies that no route takes, whatever its fields.
func (b *battery) badJSON() {
	for route, k := range b.all() {
		var rows []row
		refuse := func(code, detail string, bodies ...string) {
			for _, body := range bodies {
				rows = append(rows, row{k.with(body), 400, code, detail})
			}
		}
		for i := 1; i < len(k.body); i++ {
			refuse("invalid_json", "^The body is not valid JSON", k.body[:i])
		}
		refuse("invalid_json", "^The body is not valid JSON", notJSON(k.body)...)
		refuse("invalid_json", "must be a JSON object", noObject(k.body)...)
		refuse("invalid_json", "not valid UTF-8", badUTF8(k.body)...)
		refuse("invalid_json", "twice", twice(k.body)...)
		refuse("invalid_json", "deep|nest", deep(k.body)...)
		refuse("invalid_json", "null", nulls(k.body)...)
		refuse("invalid_json", `U\+0000`, inString(k.body, `\u0000`)...)
		refuse("invalid_json", "surrogate", inString(k.body, `\ud800`, `\uDFFF`, `\ud800x`, `\ud83d\ud83d`, `\udc00\ud800`)...)
		refuse("invalid_json", "escape|valid JSON", inValues(k.body, `\x41`, `\u12`, `\u12g4`, `\U0041`, `\'`, `\`)...)
		refuse("invalid_json", "valid JSON", inValues(k.body, "\x00", "\x01", "\n", "\t", "\x1f")...)
		refuse("validation_failed", "field", unknown(k.body)...)
		b.refused(oneIn(4, route, rows)...)
	}
}

// members finds the members of objects whose values are no objects.
var members = regexp.MustCompile(`"([a-z_]+)":("[^"]*"|[0-9]+)`)

// each applies a change to every member of a body, one at a time.
func each(body string, change func(name, value string) string) (changed []string) {
	for _, at := range members.FindAllStringSubmatchIndex(body, -1) {
		changed = append(changed, body[:at[0]]+change(body[at[2]:at[3]], body[at[4]:at[5]])+body[at[1]:])
	}
	return changed
}

func notJSON(body string) []string {
	open := strings.TrimSuffix(body, "}")
	bad := []string{
		body + "x", body + body, body + "}", body + ",", body + "\x00", body + " \v", body + "//", body + "]",
		open + ",}", open + ",,}", open + "]", "{," + body[1:], "{" + body, strings.Replace(body, ":", "=", 1),
		strings.Replace(body, ":", "::", 1), strings.Replace(body, ":", "", 1), strings.Replace(body, ":", ",", 1),
		strings.ReplaceAll(body, `"`, `'`), strings.ReplaceAll(body, `"`, ``), "{/**/" + body[1:], utf16Of(body, binary.LittleEndian),
	}
	for _, value := range []string{
		"", "NaN", "Infinity", "-Infinity", "undefined", "True", "tru", "-", "+1", "01", "-01", ".5", "1.", "1e", "1e+", "0x10", "1_000",
		"1 000", "1,", "--1", "1-1", "08", `"a" "b"`, `"a""b"`, "[", "[1", "{", `{"a"`, `{"a":`, "١",
	} {
		bad = append(bad, each(body, func(name, _ string) string { return `"` + name + `":` + value })...)
	}
	return bad
}

func noObject(body string) []string {
	return []string{
		" ", "\n", "[]", "[" + body + "]", "null", "true", "false", "0", "1", "-1.5e3", `""`, `"x"`, fmt.Sprintf("%q", body),
		"\xef\xbb\xbf" + body, "\xff\xfe" + utf16Of(body, binary.LittleEndian), "\xfe\xff" + utf16Of(body, binary.BigEndian),
		utf16Of(body, binary.BigEndian), "x" + body, body[1:], "/* */" + body, "\f" + body, "NaN", "\x00" + body, "user_id=1&quantity=1", "<order/>",
	}
}

func utf16Of(text string, order binary.AppendByteOrder) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, unit)
	}
	return string(b)
}

// badUTF8 stands in keys and in values.
func badUTF8(body string) (bad []string) {
	for _, bytes := range []string{
		"\x80", "\xbf", "\xc0\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xc3", "\xe2\x82", "\xf0\x9f\x98",
		"\xed\xa0\x80", "\xed\xbf\xbf", "\xed\xa0\xbd\xed\xb8\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xfe", "\xff",
	} {
		bad = append(bad, `{"x`+bytes+`":1,`+body[1:], body+bytes)
		bad = append(bad, inString(body, bytes)...)
	}
	return bad
}

// inString puts text into a further field, into its name, and into the values that stand.
func inString(body string, texts ...string) (changed []string) {
	for _, text := range texts {
		changed = append(changed, `{"note":"`+mark+text+`",`+body[1:], `{"note`+text+`":"`+mark+`",`+body[1:])
	}
	return append(changed, inValues(body, texts...)...)
}

func inValues(body string, texts ...string) (changed []string) {
	for _, text := range texts {
		changed = append(changed, each(body, func(name, value string) string {
			return `"` + name + `":"` + mark + strings.Trim(value, `"`) + text + `"`
		})...)
	}
	return changed
}

func twice(body string) []string {
	again := each(body, func(name, value string) string { return fmt.Sprintf(`"%[1]s":%[2]s,"%[1]s":%[2]s`, name, value) })
	again = append(again, each(body, func(name, value string) string { return fmt.Sprintf(`"%[1]s":0,"%[1]s":%[2]s`, name, value) })...)
	again = append(again, each(body, func(name, value string) string {
		escaped := fmt.Sprintf(`%s\u%04x%s`, name[:1], name[1], name[2:])
		return fmt.Sprintf(`"%s":%s,"%s":%[2]s`, name, value, escaped)
	})...)
	again = append(again, each(body, func(name, value string) string {
		escaped := ""
		for _, c := range name {
			escaped += fmt.Sprintf(`\u%04X`, c)
		}
		return fmt.Sprintf(`"%s":%s,"%s":%[2]s`, escaped, value, name)
	})...)
	return append(again, `{"note":{"a":1,"a":1},`+body[1:], `{"note":[{"a":1,"b":2,"a":1}],`+body[1:])
}

func deep(body string) (bad []string) {
	const levels = 10_000
	for _, pair := range []string{"[ ]", `{"a": }`, `[{"a": }]`} {
		open, shut, _ := strings.Cut(pair, " ")
		times := levels / len(shut) // 64 KiB hold no more
		nested := strings.Repeat(open, times) + "1" + strings.Repeat(shut, times)
		bad = append(bad, `{"note":`+nested+`,`+body[1:], `{"note":`+strings.Repeat(open, times))
	}
	return append(bad, each(body, func(name, value string) string {
		return `"` + name + `":` + strings.Repeat("[", levels) + value + strings.Repeat("]", levels)
	})...)
}

func nulls(body string) []string {
	return append(each(body, func(name, _ string) string { return `"` + name + `":null` }),
		`{"note":null,`+body[1:], `{"note":[null],`+body[1:], `{"items":null}`, `{"items":[null]}`)
}

// unknown are fields that no client may set, keys in the wrong case, and names that are not worth repeating.
func unknown(body string) (bad []string) {
	for _, field := range []string{
		"total_price", "status", "balance", "role", "admin", "id", "created_at", "expires_at", "history", "sold", "currency", "_", "__proto__", "",
		"name ", " name", mark + "\u00fc", strings.Repeat(mark, 30), "Price", "PRICE", "price_", "Stock", "key", "idempotency_key",
		"name", "email", "user_id", "amount", "price", "stock", "delta", "reason", "items", "payment", "product_id", "quantity", // of other routes
	} {
		if strings.Contains(body, `"`+field+`"`) {
			continue
		}
		for _, value := range []string{"1", `"1"`, "true", "{}", "[]"} {
			bad = append(bad, fmt.Sprintf(`{%q:%s,%s`, field, value, body[1:]))
		}
	}
	bad = append(bad, each(body, func(name, value string) string { return `"` + strings.ToUpper(name) + `":` + value })...)
	return append(bad, each(body, func(name, value string) string {
		return `"` + strings.ToUpper(name[:1]) + name[1:] + `":` + value
	})...)
}
