package rest

import (
	_ "embed"

	"github.com/swaggest/swgui/v5/static"
	"github.com/valyala/fasthttp"
)

// openAPI describes the API. It is written by hand; tests hold it against the server.
//
//go:embed openapi.json
var openAPI []byte

// docsPage is Swagger UI on openAPI. All that it needs is embedded: it works offline.
//
//go:embed docs.html
var docsPage []byte

//go:embed docs.js
var docsScript []byte

// docsFile is a file of the page.
type docsFile struct {
	contentType string
	body        []byte
	gzipped     bool
}

// docsFiles are all there are, by name.
var docsFiles = map[string]docsFile{
	"docs.js":              {contentType: typeScript, body: docsScript},
	"swagger-ui-bundle.js": {contentType: typeScript, body: swaggerFile("swagger-ui-bundle.js.gz"), gzipped: true},
	"swagger-ui.css":       {contentType: "text/css; charset=utf-8", body: swaggerFile("swagger-ui.css.gz"), gzipped: true},
	"favicon-32x32.png":    {contentType: "image/png", body: swaggerFile("favicon-32x32.png")},
}

const typeScript = "text/javascript; charset=utf-8"

func swaggerFile(name string) []byte {
	body, err := static.FS.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded: only another version of the module could lack it, and no test would pass with that
	}
	return body
}

// docsPolicy lets the page load its own files, show the icons in its styles, and talk to this server: nothing else.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// cacheable is how long what only another build changes may be kept.
var cacheable = []byte("public, max-age=300")

func (s *Server) openapi(ctx *fasthttp.RequestCtx, _ caller) error {
	ctx.Response.Header.SetCanonical(headerCache, cacheable)
	ctx.SetContentType("application/json")
	ctx.Response.SetBodyRaw(openAPI)
	return nil
}

func (s *Server) docs(ctx *fasthttp.RequestCtx, _ caller) error {
	h := &ctx.Response.Header
	h.SetCanonical(headerCache, cacheable)
	h.Set("Content-Security-Policy", docsPolicy)
	h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
	ctx.SetContentType("text/html; charset=utf-8")
	ctx.Response.SetBodyRaw(docsPage)
	return nil
}

func (s *Server) docsFile(ctx *fasthttp.RequestCtx, _ caller) error {
	name, _ := ctx.UserValue("file").(string)
	file, found := docsFiles[name]
	if !found {
		return pathNotFound
	}
	h := &ctx.Response.Header
	h.SetCanonical(headerCache, cacheable)
	h.Set(fasthttp.HeaderVary, fasthttp.HeaderAcceptEncoding)
	ctx.SetContentType(file.contentType)
	switch {
	case !file.gzipped:
		ctx.Response.SetBodyRaw(file.body)
	case ctx.Request.Header.HasAcceptEncoding("gzip"):
		h.Set(fasthttp.HeaderContentEncoding, "gzip")
		ctx.Response.SetBodyRaw(file.body)
	default:
		plain, err := fasthttp.AppendGunzipBytes(nil, file.body)
		if err != nil {
			return err
		}
		ctx.Response.SetBodyRaw(plain)
	}
	return nil
}
