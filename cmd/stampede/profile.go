package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"syscall"
	"time"
)

const (
	profileMax       = 5 * time.Minute // of recording one
	profileReadMax   = 5 * time.Second // of a request
	profileWriteMax  = time.Minute     // of an answer, once it is recorded
	profileIdleMax   = time.Minute
	profileHeaderMax = 8 << 10
)

// listenProfiles takes the address of the profiles; nil where none is asked for. They ask for no credential: only this
// machine may reach them.
func listenProfiles(address string) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	at, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q (%w): give --admin-addr as host:port, for example 127.0.0.1:6060", address, err)
	}
	if !at.IP.IsLoopback() {
		return nil, fmt.Errorf("%s can be reached from other machines, and profiles ask for no credential: "+
			"give --admin-addr an address such as 127.0.0.1:6060, and come through ssh -L from elsewhere", address)
	}
	listener, err := net.ListenTCP("tcp", at)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is in use by another program: stop that one, or take another address with --admin-addr", address)
	case err != nil:
		return nil, fmt.Errorf("cannot listen on %s (%w): take another address with --admin-addr", address, err)
	}
	return listener, nil
}

// serveProfiles answers /debug/pprof, and nothing else, until stop is called, which cuts what is under way.
func serveProfiles(listener net.Listener, log *slog.Logger) (stop func()) {
	mux := http.NewServeMux()
	// All but cmdline: secrets may stand in flags.
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{
		Handler:           guarded(mux),
		ReadHeaderTimeout: profileReadMax,
		ReadTimeout:       profileReadMax,
		WriteTimeout:      profileWriteMax, // net/http/pprof adds the seconds asked for
		IdleTimeout:       profileIdleMax,
		MaxHeaderBytes:    profileHeaderMax,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	log.Info("profiles are served at /debug/pprof/", "address", listener.Addr().String())
	return func() {
		_ = server.Close() // nothing in it is worth waiting for
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			log.Warn("profiles were not served to the end", "error", err)
		}
	}
}

// guarded bounds a profile, and refuses requests that name another host: a page in a browser on this machine can have
// its own name point here (DNS rebinding).
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host // no port in it
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "profiles are for this machine: ask for localhost", http.StatusForbidden)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), profileMax)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
