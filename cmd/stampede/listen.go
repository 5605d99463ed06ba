package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// listen takes the address before anything else is started, so that a port in use costs nothing. In trusted mode
// anybody who reaches the port acts as any buyer: beyond this machine only when the operator has said so.
func listen(address, auth string) (net.Listener, error) {
	at, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q (%w): give --addr as host:port, for example 127.0.0.1:8080", address, err)
	}
	if auth == "" && !at.IP.IsLoopback() {
		return nil, fmt.Errorf("%s can be reached from other machines, and whoever reaches it may act as any buyer: "+
			"listen on 127.0.0.1, or put a gateway that authenticates in front and say --auth trusted", address)
	}
	listener, err := net.ListenTCP("tcp", at)
	switch {
	case err == nil:
		return listener, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is in use by another program: stop that one, or take another address with --addr", address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("this user may not listen on %s: take a port above 1023 with --addr", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("this machine does not have the address %s: take one it has with --addr", address)
	}
	return nil, fmt.Errorf("cannot listen on %s (%w): take another address with --addr", address, err)
}

// reachable is the address at which this machine reaches the listener.
func reachable(listener net.Listener) string {
	at, ok := listener.Addr().(*net.TCPAddr)
	if !ok || !at.IP.IsUnspecified() {
		return listener.Addr().String()
	}
	return fmt.Sprintf("127.0.0.1:%d", at.Port)
}
