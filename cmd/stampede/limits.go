package main

import (
	"errors"
	"fmt"

	"stampede/engine/rest"
	"stampede/engine/rest/limit"
)

// Requests a second that `serve` allows where nothing else is said. `up` limits nothing by itself.
const (
	// userRateOfServe leaves room for a client that sends one key a hundred times at once.
	userRateOfServe = 200
	// ipRateOfServe holds in --auth jwt only: in trusted mode all requests come from a gateway.
	ipRateOfServe = 1000

	rateMax = 1_000_000
)

// limitFlags bound what one client may ask for.
type limitFlags struct {
	RateLimitUser  *int     `placeholder:"N" help:"Requests a second of one buyer, and as many at once; 0 for no limit. By default 200 with serve and none with up."`
	RateLimitIP    *int     `name:"rate-limit-ip" placeholder:"N" help:"The same from one address. By default 1000 with serve --auth jwt and none otherwise, where all come from a gateway."`
	TrustedProxies []string `placeholder:"CIDR" help:"Load balancers whose X-Forwarded-For is believed, separated by commas."`
}

func (f *limitFlags) validate() error {
	for name, rate := range map[string]*int{"user": f.RateLimitUser, "ip": f.RateLimitIP} {
		if rate != nil && (*rate < 0 || *rate > rateMax) {
			return fmt.Errorf("--rate-limit-%s must be 0 to %d requests a second: 0 is no limit", name, rateMax)
		}
	}
	_, err := f.proxies()
	return err
}

func (f *limitFlags) proxies() (limit.Proxies, error) {
	proxies, err := limit.ParseProxies(f.TrustedProxies)
	if err != nil {
		return nil, errors.New("--trusted-proxies: " + err.Error())
	}
	return proxies, nil
}

// limits returns what the flags say, and the given rates where they say nothing.
func (f *limitFlags) limits(userRate, ipRate int) (l rest.Limits, err error) {
	l = rest.Limits{UserRate: userRate, IPRate: ipRate}
	if f.RateLimitUser != nil {
		l.UserRate = *f.RateLimitUser
	}
	if f.RateLimitIP != nil {
		l.IPRate = *f.RateLimitIP
	}
	l.Proxies, err = f.proxies()
	return l, err
}
