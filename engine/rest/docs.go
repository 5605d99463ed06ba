package rest

import (
	_ "embed"
	"sync"

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
	plain       func() ([]byte, error) // the body of one that is gzipped; nil for others
}

// gzipped is unpacked when the first client that cannot do so asks, and then kept: it is megabytes of work.
func gzipped(contentType, name string) docsFile {
	body := swaggerFile(name)
	return docsFile{contentType, body, sync.OnceValues(func() ([]byte, error) { return fasthttp.AppendGunzipBytes(nil, body) })}
}

// docsFiles are all there are, by name.
var docsFiles = map[string]docsFile{
	"docs.js":              {contentType: typeScript, body: docsScript},
	"swagger-ui-bundle.js": gzipped(typeScript, "swagger-ui-bundle.js.gz"),
	"swagger-ui.css":       gzipped("text/css; charset=utf-8", "swagger-ui.css.gz"),
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
	case file.plain == nil:
		ctx.Response.SetBodyRaw(file.body)
	case ctx.Request.Header.HasAcceptEncoding("gzip"):
		h.Set(fasthttp.HeaderContentEncoding, "gzip")
		ctx.Response.SetBodyRaw(file.body)
	default:
		plain, err := file.plain()
		if err != nil {
			return err
		}
		ctx.Response.SetBodyRaw(plain)
	}
	return nil
}
