package rest

// Routes are the names of all routes, such as "GET /order/{id}".
func Routes() []string {
	var names []string
	for _, route := range new(Server).routes() {
		names = append(names, route.String())
	}
	return names
}
