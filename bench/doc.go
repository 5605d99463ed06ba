// Command bench puts load on Stampede and measures it: orders a second, latency, and the CPU time that each process
// spends on an order, beside baselines that run in the same minutes on the same machine.
//
// Numbers of different machines or of different runs say little beside each other; so every run measures its
// baseline too, in turns with Stampede, and what counts is the ratio.
package main
