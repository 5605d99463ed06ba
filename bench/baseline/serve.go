package baseline

import (
	"context"
	"log/slog"
	"net"
	"time"

	"stampede/engine/rest"
)

const stopMax = 10 * time.Second // for requests under way

// serve answers requests at addr until ctx ends.
func serve(ctx context.Context, addr string, c rest.Config) error {
	// A load that is refused must not be measured with its log.
	c.Log = slog.New(slog.DiscardHandler)
	server, err := rest.New(c)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopMax)
	defer cancel()
	return server.Shutdown(ctx)
}
