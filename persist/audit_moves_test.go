package persist

import (
	"testing"

	"stampede/engine"
)

// Units move between a product's home and another partition, in the layout that the books have.
func TestAudit_TransfersPassByTheHome(t *testing.T) {
	keys, err := engine.NewKeys(4)
	if err != nil {
		t.Fatal(err)
	}
	const product = 9
	home := keys.Home(product)
	one, another := (home+1)%4, (home+2)%4
	for _, c := range []struct {
		name     string
		from, to int
		epoch    int64
		violated bool
	}{
		{"lent", home, one, 5, false},
		{"recalled", one, home, 5, false},
		{"between two others", one, another, 5, true},
		{"between two others, in an earlier layout", one, another, 4, false},
		{"to itself", home, home, 5, true},
	} {
		var found []Violation
		a := &audit{keys: keys, checks: map[string]*Checked{}, layouts: layouts{{}, {first: 5}}, report: func(v Violation) { found = append(found, v) }}
		a.lentOrRecalled(c.from, []event{{Event: &engine.Event{Kind: engine.Moved, ProductID: product, Peer: c.to}, at: engine.Position{Epoch: c.epoch, Seq: 3}}})
		if (len(found) > 0) != c.violated {
			t.Errorf("%s: %+v", c.name, found)
		}
	}
}
