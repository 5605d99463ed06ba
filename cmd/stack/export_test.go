package stack

// WithSystem points the look-ups of Start elsewhere; empty keeps the default.
func WithSystem(o Options, path, postgresGlob, outside string) Options {
	o.system = system{path: path, postgresGlob: postgresGlob, outside: outside}
	return o
}

// OnFreePort is the retry of a first start.
var OnFreePort = onFreePort

// StartTriesMax bounds it.
const StartTriesMax = startTriesMax
