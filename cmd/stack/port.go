package stack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
)

const (
	portMin       = 10_000 // below lie the well-known ports of other servers
	portTriesMax  = 64     // random picks before the kernel is asked
	startTriesMax = 5      // ports a server is started on before giving up
)

// FreePort returns a TCP port of 127.0.0.1 on which nobody listens.
//
// It lies below the range from which the kernel takes the local ends of outgoing
// connections: a server that is killed and restarted under load must get its port
// back, and thousands of clients that dial in the meantime must not take it (even
// a dial to the very port can, by connecting to itself).
func FreePort() (int, error) {
	low := ephemeralLow()
	if low > portMin {
		for range portTriesMax {
			port := portMin + rand.IntN(low-portMin)
			if !portTaken(port) {
				return port, nil
			}
		}
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port on 127.0.0.1: %w", err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	return port, listener.Close()
}

// onFreePort starts a server on a free port.
func onFreePort(start func(port int) error) error {
	return onFreePorts([]int{0}, func(ports []int) error { return start(ports[0]) })
}

// onFreePorts starts a server on the given ports, with a free one for each that is 0
// or taken. A server that ended although a port of its own is taken by another has
// lost a race, which is no fault: it gets a new one.
func onFreePorts(wanted []int, start func(ports []int) error) error {
	for try := 1; ; try++ {
		ports, err := freePorts(wanted)
		if err != nil {
			return err
		}
		err = start(ports)
		var exit *ExitError
		if !errors.As(err, &exit) || !slices.ContainsFunc(ports, portTaken) || try == startTriesMax {
			return err
		}
	}
}

func freePorts(wanted []int) ([]int, error) {
	ports := slices.Clone(wanted)
	for i, port := range ports {
		for port == 0 || portTaken(port) || slices.Contains(ports[:i], port) {
			var err error
			if port, err = FreePort(); err != nil {
				return nil, err
			}
		}
		ports[i] = port
	}
	return ports, nil
}

// portTaken tells whether no server could listen on the port now.
func portTaken(port int) bool {
	listener, err := net.Listen("tcp4", address(port))
	if err != nil {
		return true
	}
	return listener.Close() != nil
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// ephemeralLow is the lowest port of outgoing connections.
func ephemeralLow() int {
	const usual = 32_768
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return usual
	}
	var low, high int
	if _, err := fmt.Sscan(string(text), &low, &high); err != nil {
		return usual
	}
	return low
}
