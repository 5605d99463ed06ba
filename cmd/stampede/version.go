package main

import (
	"fmt"
	"runtime"
)

type versionCommand struct{}

// Run prints one line, for people and for scripts.
func (versionCommand) Run(c *console) error {
	_, err := fmt.Fprintf(c.out, "stampede %s, commit %s, %s\n", version, commit, runtime.Version())
	return err
}
