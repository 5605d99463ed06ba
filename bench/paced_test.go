package main

import (
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"stampede/bench/load"
)

func TestPaced_CountsLatencyFromWhenARequestWasDue(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const answerTakes = 20 * time.Millisecond
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(answerTakes)
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusCreated)
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	// Two connections answer 100 a second. At 200 those that are due after a second have waited for half of it.
	p, err := dialPaced(t.Context(), listener.Addr().String(), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	r := load.NewRecorder()
	goods := load.Goods{Users: []string{"1"}, Products: []string{"1"}}
	took := p.run(t.Context(), 200, time.Second/2, load.NewUniformOrders(goods, "paced", 1, 2), r)
	counts := r.Tally()
	if counts.Accepted != 100 || counts.Wrong() != "" {
		t.Errorf("of 100 requests that were due %d were answered (%s)", counts.Accepted, counts.Wrong())
	}
	if took < 900*time.Millisecond || counts.P99 < 400*time.Millisecond {
		t.Errorf("took %v with a p99 of %v: who came late did not wait", took, counts.P99)
	}
}
