package rest_test

import (
	"fmt"
	"regexp"
	"strings"
)

// wished are members that a client might hope to put into a body, and that no request of a buyer has.
var wished = []string{
	`"role":"admin"`, `"roles":["admin"]`, `"admin":true`, `"is_admin":true`, `"isAdmin":true`, `"scope":"admin"`, `"password":"x"`,
	`"price":1`, `"unit_price":1`, `"total_price":1`, `"total":1`, `"discount":100`, `"currency":"JPY"`,
	`"status":"SUCCESS"`, `"history":[]`, `"payment_status":"SUCCESS"`, `"paid":true`,
	`"balance":1000000`, `"charge_id":1`, `"stock":1000`, `"sold":1000`, `"order_id":1`, `"id":1`,
	`"created_at":"2020-01-01T00:00:00Z"`, `"updated_at":"2020-01-01T00:00:00Z"`, `"expires_at":"2099-01-01T00:00:00Z"`,
	`"hold":"24h"`, `"refund_window":"9999h"`, `"idempotency_key":"k"`, `"__proto__":{"admin":true}`, `"$set":{"price":1}`,
}

// fieldsWithoutPower adds to each body what its sender must not decide: the field is refused by its name, and nothing
// happens.
func (c *cast) fieldsWithoutPower() {
	buyer := actor{name: "the buyer", headers: []string{fmt.Sprint("X-User-Id: ", c.buyer)}}
	admin := actor{name: "the admin", headers: []string{showAdmin}}
	callers := map[manner][]actor{buyers: {buyer}, both: {buyer, admin}, admins: {admin}}
	somebodyElse := fmt.Sprintf(`"user_id":%d`, c.other)
	held, conn := c.hold(c.buyer), c.dial()
	before := c.everything()
	for _, e := range errands {
		for _, who := range callers[e.manner] {
			for _, member := range append(wished, somebodyElse) {
				name, _, _ := strings.Cut(member, ":")
				if e.body == "" || strings.Contains(e.body, name+":") {
					continue // there is no body, or the route is for setting this
				}
				want := outcome{400, "validation_failed", "field " + regexp.QuoteMeta(name), ""}
				switch {
				case member != somebodyElse || e.manner == admins:
				case who.name == admin.name:
					want = hidden // as the order of that user it is not there
				default:
					want = disagreeing
				}
				for _, body := range withMember(e.body, member) {
					spoiled := e
					spoiled.body = body
					c.wantOutcome(conn, who.name+" on "+e.route+" with "+member, c.request(spoiled, who, methodOf(e.route), c.buyer, held), want)
				}
			}
		}
	}
	c.wantUnchanged(before)
}

// withMember puts a member first and last into a body, and into the lines of an order.
func withMember(body, member string) []string {
	if body == "{}" {
		return []string{"{" + member + "}"}
	}
	bodies := []string{"{" + member + "," + body[1:], body[:len(body)-1] + "," + member + "}"}
	if strings.Contains(body, "[{") && !strings.HasPrefix(member, `"user_id"`) {
		bodies = append(bodies, strings.Replace(body, "[{", "[{"+member+",", 1))
	}
	return bodies
}
