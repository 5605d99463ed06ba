package rest

// RouteAccess is a route with who may call it: anybody (and without a limit on the rate if it is a probe), a buyer, an
// admin, or both of these.
type RouteAccess struct {
	Method, Path        string
	Probe, Buyer, Admin bool
}

// RouteAccesses are those of all routes.
func RouteAccesses() (all []RouteAccess) {
	for _, r := range new(Server).routes() {
		all = append(all, RouteAccess{
			Method: r.method, Path: r.path, Probe: r.access == probe,
			Buyer: r.access == buyerOnly || r.access == adminOrBuyer, Admin: r.access == adminOnly || r.access == adminOrBuyer,
		})
	}
	return all
}

// Limits of this package that the document names.
const (
	BodyMax        = bodyMax
	BatchBodyMax   = batchBodyMax
	BatchOrdersMax = batchOrdersMax
	HeaderMax      = headerMax
	ReadTimeout    = readTimeout
	EmailMax       = emailMax
	LimitMax       = limitMax
	LimitDefault   = limitDefault
	TopDefault     = topDefault
	RequestIDMax   = requestIDMax
	ConnsPerIPMax  = connsPerIPMax
)

// OpenAPI is the document as it is served.
var OpenAPI = openAPI
