package token

import (
	"fmt"
	"testing"
)

// A token's first request verifies it, all others find it in the cache.
func BenchmarkUser(b *testing.B) {
	for _, alg := range []struct {
		name string
		sign func(payload string) string
	}{{"HS256", withHS256}, {"EdDSA", withEdDSA}} {
		payload := func(user int) string {
			return fmt.Sprintf(`{"iss":"https://id.example","sub":"%d","aud":["stampede"],"iat":1799999000,"exp":%s}`, user, exp)
		}
		config := Config{Secret: secret, PublicKey: public, Issuer: "https://id.example", Audience: "stampede"}
		b.Run(alg.name+"/cold", func(b *testing.B) {
			v := verifier(b, config)
			tokens := make([][]byte, b.N)
			for i := range tokens {
				tokens[i] = []byte(alg.sign(payload(i + 1)))
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, token := range tokens {
				if _, err := v.User(token, now); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(alg.name+"/cached", func(b *testing.B) {
			v, token := verifier(b, config), []byte(alg.sign(payload(1)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.User(token, now); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(alg.name+"/cached-parallel", func(b *testing.B) {
			v := verifier(b, config)
			var tokens [1024][]byte
			for i := range tokens {
				tokens[i] = []byte(alg.sign(payload(i + 1)))
				if _, err := v.User(tokens[i], now); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := v.User(tokens[i%len(tokens)], now); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
