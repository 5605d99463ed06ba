package shoptest

import (
	"fmt"
	"os"
	"strconv"

	"stampede/cmd/shop"
	"stampede/cmd/stack"
)

// layoutVariable names the environment variable that says on what the shops of all tests run that do not say it themselves:
// a number of partitions on one Redis (1 where it is empty), or "cluster" for as many as a shop on three masters has.
const layoutVariable = "STAMPEDE_TEST_LAYOUT"

const clusterMasters = 3

// OnePartition reports whether shops have one partition where they do not say it themselves.
func OnePartition() bool {
	layout := os.Getenv(layoutVariable)
	return layout == "" || layout == "1"
}

// lay fills in the layout that the environment asks for.
func lay(o stack.Options, c shop.Config) (stack.Options, shop.Config, error) {
	layout := os.Getenv(layoutVariable)
	if layout == "" || c.Partitions != 0 || o.RedisNodes != 0 {
		return o, c, nil
	}
	if layout == "cluster" {
		o.RedisNodes = clusterMasters
		return o, c, nil
	}
	n, err := strconv.Atoi(layout)
	if err != nil {
		return o, c, fmt.Errorf("%s is a number of partitions or \"cluster\", not %q", layoutVariable, layout)
	}
	c.Partitions = n
	return o, c, nil
}
