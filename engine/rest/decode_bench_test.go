package rest

import (
	"fmt"
	"strings"
	"testing"
)

// orderOfLines is the body of an order as clients send it.
func orderOfLines(n int) []byte {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf(`{"product_id":"%d","quantity":%d}`, 1000+i, i%9+1)
	}
	return []byte(`{"user_id":"123456","items":[` + strings.Join(lines, ",") + `],"payment":"now"}`)
}

// What strictness costs: the decoder alone, and as requests go through it.
func BenchmarkDecodeOrder(b *testing.B) {
	for _, n := range []int{1, 3, 100} {
		body := orderOfLines(n)
		b.Run(fmt.Sprintf("lines=%d/sonic", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var in orderRequest
				if err := decoder.Unmarshal(body, &in); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("lines=%d/strict", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var in orderRequest
				if err := strict(body); err != nil {
					b.Fatal(err)
				}
				if err := decoder.Unmarshal(body, &in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
