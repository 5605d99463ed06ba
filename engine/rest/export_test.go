package rest

import "time"

// Routes are the names of all routes, such as "GET /order/{id}".
func Routes() []string {
	var names []string
	for _, route := range new(Server).routes() {
		names = append(names, route.String())
	}
	return names
}

// RefusalLines has refusals of one kind come at times after a first moment, and returns what each line that is written
// says to have skipped.
func RefusalLines(times ...time.Duration) (skipped []int) {
	log, begin := newRefusalLog(nil), time.Now()
	for _, at := range times {
		if n, due := log.due(refusalLine{"GET /", "overloaded"}, begin.Add(at)); due {
			skipped = append(skipped, n)
		}
	}
	return skipped
}
