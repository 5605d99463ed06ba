package main

import (
	"math/rand/v2"
	"strings"
)

type demoUser struct {
	name, email string
	balance     int64 // minor units
}

// Balances of demo users, in minor units: enough for most baskets, never enough for everything.
const (
	demoBalanceMin  = 200_00
	demoBalanceMax  = 5_000_00
	demoBalanceStep = 5_00
)

// demoUsers are always the same: every first name with every last name, once, so that no two share an email.
func demoUsers() []demoUser {
	steps := int64((demoBalanceMax - demoBalanceMin) / demoBalanceStep)
	balances := rand.New(rand.NewPCG(demoSeed, 2)) //nolint:gosec // repeatable on purpose
	users := make([]demoUser, 0, len(demoFirstNames)*len(demoLastNames))
	for round := range demoLastNames {
		for i, first := range demoFirstNames {
			last := demoLastNames[(round+7*i)%len(demoLastNames)]
			users = append(users, demoUser{
				name:    first + " " + last,
				email:   strings.ToLower(first + "." + last + "@example.com"),
				balance: demoBalanceMin + demoBalanceStep*balances.Int64N(steps+1),
			})
		}
	}
	return users
}

var demoFirstNames = []string{
	"Amara", "Anton", "Beatriz", "Carlos", "Chloe", "Daniel", "Elif", "Emil", "Fatima", "Felix",
	"Grace", "Hana", "Hugo", "Ines", "Ivan", "Jana", "Jonas", "Kofi", "Lena", "Liam",
	"Lucia", "Mateo", "Maya", "Mei", "Nadia", "Noah", "Olga", "Omar", "Priya", "Rafael",
	"Rosa", "Samir", "Sara", "Sofia", "Tariq", "Thea", "Tomas", "Yuki", "Yusuf", "Zoe",
}

var demoLastNames = []string{
	"Andersson", "Bauer", "Costa", "Dubois", "Eriksen", "Fischer", "Garcia", "Haddad", "Ivanova", "Jansen",
	"Kaya", "Kim", "Kowalski", "Lopez", "Mensah", "Moreau", "Nakamura", "Novak", "Okafor", "Patel",
	"Rossi", "Silva", "Tanaka", "Virtanen", "Weber",
}
