package shop_test

import (
	"testing"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
)

// More partitions are repaired at once than there are connections to Postgres to spare.
func TestOpen_ManyPartitionsOpenAtOnce(t *testing.T) {
	s := shoptest.Start(t, stack.Options{}, shop.Config{Partitions: 60})
	if err := s.Engine.CheckDoors(t.Context()); err != nil {
		t.Error(err)
	}
	if lag, err := s.Books.Lag(t.Context()); err != nil || lag.Events != 0 {
		t.Errorf("the lag is %+v, %v", lag, err)
	}
}
