package rest_test

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// badCredentials are values of Authorization that are no admin's and no buyer's.
func badCredentials() (lines []string) {
	changed := []byte(adminToken)
	changed[len(changed)/2] ^= 1
	for _, value := range []string{
		"Bearer wrong", "Bearer", "Bearer ", adminToken, "Token " + adminToken, "Secret " + adminToken, "Bearer" + adminToken, "Bearer  " + adminToken, "Bearer: " + adminToken,
		"Bearer " + adminToken[:len(adminToken)-1], "Bearer " + adminToken[1:], "Bearer " + adminToken + "n", "Bearer " + adminToken + "," + adminToken,
		"Bearer " + adminToken + " x", "Bearer x " + adminToken, "Bearer " + strings.ToUpper(adminToken), "Bearer " + string(changed),
		`Bearer "` + adminToken + `"`, "Bearer " + adminToken + "%00", "Bearer " + base64.StdEncoding.EncodeToString([]byte(adminToken)),
		"Basic YTpi", "Basic " + base64.StdEncoding.EncodeToString([]byte("admin:"+adminToken)), "Basic " + adminToken,
		"Bearer " + strings.Repeat("x", 7000), "Negotiate x",
	} {
		lines = append(lines, "Authorization: "+value)
	}
	return lines
}

const showAdmin = "Authorization: Bearer " + adminToken

// powers are what other servers might take for a credential.
var powers = []string{"X-Admin: true", "X-Role: admin", "X-Forwarded-User: admin", "X-Authorization: Bearer " + adminToken, "Proxy-Authorization: Bearer " + adminToken, "Cookie: token=" + adminToken}

func (c *cast) trustedMode() {
	asBuyer, asOther := fmt.Sprint("X-User-Id: ", c.buyer), fmt.Sprint("X-User-Id: ", c.other)
	byQuery := fmt.Sprint("user_id=", c.buyer)
	nobody := map[manner]outcome{buyers: nobodyNamed, both: nobodyNamed, admins: noCredential}
	actors := []refused{
		{actor{name: "nobody"}, nobody},
		{actor{name: "nobody, with much to say", headers: powers, query: "admin=true&role=admin&access_token=" + adminToken}, nobody},
		{actor{name: "the buyer", headers: []string{asBuyer}}, map[manner]outcome{admins: noCredential}},
		{actor{name: "another buyer", headers: []string{asOther}}, map[manner]outcome{buyers: aStranger, both: aStranger}},
		{actor{name: "another buyer as the buyer", headers: []string{asOther}, query: byQuery}, map[manner]outcome{buyers: disagreeing, both: disagreeing}},
		{actor{name: "another buyer as the buyer", headers: []string{asOther}, body: c.buyer}, map[manner]outcome{buyers: disagreeing, both: disagreeing}},
		{actor{name: "an admin as two buyers", headers: []string{showAdmin, asOther}, query: byQuery}, map[manner]outcome{both: disagreeing}},
		{actor{name: "the admin as nobody", headers: []string{showAdmin}}, map[manner]outcome{buyers: nobodyNamed}},
		{actor{name: "a buyer with two names", query: byQuery, body: c.other}, map[manner]outcome{buyers: {400, "validation_failed", "different values for user_id", ""}, both: {400, "validation_failed", "different values for user_id", ""}}},
		{actor{name: "two credentials", headers: []string{showAdmin, showAdmin, asBuyer}}, map[manner]outcome{buyers: badCredential, both: badCredential, admins: badCredential}},
	}
	for _, credential := range append(badCredentials(), bearing(c.buyer)) {
		actors = append(actors,
			refused{actor{name: credential, headers: []string{credential}}, map[manner]outcome{buyers: nobodyNamed, both: badCredential, admins: badCredential}},
			refused{actor{name: "the buyer with " + credential, headers: []string{asBuyer, credential}}, map[manner]outcome{both: badCredential, admins: badCredential}})
	}
	for _, names := range misnames(c.buyer) {
		actors = append(actors, refused{actor{name: fmt.Sprint(names), headers: names, query: byQuery}, map[manner]outcome{buyers: misnamed, both: misnamed}})
	}
	c.refuse(actors)
	c.serve([]served{
		{actor{name: "the buyer by header", headers: []string{asBuyer}}, c.buyer, []manner{open, buyers, both}},
		{actor{name: "the buyer by query", query: byQuery}, c.buyer, []manner{buyers, both}},
		{actor{name: "the buyer by body", body: c.buyer}, c.buyer, []manner{buyers, both}},
		{actor{name: "the buyer thrice", headers: []string{asBuyer}, query: byQuery, body: c.buyer}, c.buyer, []manner{buyers, both}},
		{actor{name: "the buyer beside a credential that nobody looks at", headers: []string{asBuyer, "Authorization: Bearer wrong"}}, c.buyer, []manner{open, buyers}},
		{actor{name: "another buyer", headers: []string{asOther}}, c.other, []manner{open, buyers, both}},
		{actor{name: "the admin", headers: []string{showAdmin}, query: byQuery}, c.buyer, []manner{open, both, admins}},
		{actor{name: "the admin, in another case", headers: []string{"authorization: bEARER " + adminToken}, query: byQuery}, c.buyer, []manner{both, admins}},
		{actor{name: "the admin as the buyer", headers: []string{showAdmin, asBuyer}}, c.buyer, []manner{buyers}},
		{actor{name: "anybody", headers: []string{showAdmin, "Authorization: Basic x", "X-User-Id: x"}}, 0, []manner{open}},
	})
}

// misnames are headers that name no user, or several.
func misnames(user int64) [][]string {
	return [][]string{
		{"X-User-Id:"},
		{"X-User-Id: 0"},
		{fmt.Sprint("X-User-Id: -", user)},
		{fmt.Sprint("X-User-Id: 0", user)},
		{fmt.Sprint("X-User-Id: ", user, " ", user)},
		{fmt.Sprint("X-User-Id: ", user, ",", user)},
		{fmt.Sprint("X-User-Id: ", user), fmt.Sprint("X-User-Id: ", user)},
		{"X-User-Id: admin"},
	}
}
