package rest_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"stampede/engine/rest"
)

// document is openapi.json, and which of its answers were seen.
type document struct {
	*openapi3.T
	raw        any // as JSON, numbers as they are written
	operations map[string]*operation
	seen       map[kind]bool
}

type operation struct {
	*openapi3.Operation
	method, path string
	item         *openapi3.PathItem
}

// kind is one of the answers that an operation may give; successes have no code.
type kind struct {
	operation string
	status    int
	code      string
}

func (k kind) String() string { return fmt.Sprint(k.operation, " ", k.status, " ", k.code) }

func readDocument(t *testing.T) *document {
	t.Helper()
	d := &document{operations: map[string]*operation{}, seen: map[kind]bool{}}
	numbers := json.NewDecoder(bytes.NewReader(rest.OpenAPI))
	numbers.UseNumber()
	if err := numbers.Decode(&d.raw); err != nil {
		t.Fatal(err)
	}
	var closed any
	if err := json.Unmarshal(rest.OpenAPI, &closed); err != nil {
		t.Fatal(err)
	}
	walkJSON(closed, "", closeSchema)
	text, err := json.Marshal(closed)
	if err != nil {
		t.Fatal(err)
	}
	if d.T, err = openapi3.NewLoader().LoadFromData(text); err != nil {
		t.Fatal(err)
	}
	for path, item := range d.Paths.Map() {
		for method, op := range item.Operations() {
			d.operations[op.OperationID] = &operation{op, method, path, item}
		}
	}
	return d
}

// closeSchema forbids fields that a schema does not name. For clients the document leaves answers open, so that a field can be
// added; for these tests one that is not described is a fault.
func closeSchema(at string, value any) {
	schema, ok := value.(map[string]any)
	if !ok || !strings.HasPrefix(at, "/components/schemas/") || at == "/components/schemas/Problem" {
		return // Problem is the part that all problems share
	}
	_, closed := schema["additionalProperties"]
	if schema["allOf"] != nil || (schema["type"] == "object" && schema["properties"] != nil && !closed) {
		schema["unevaluatedProperties"] = false
	}
}

// at finds the operation of a method and a path, and the values of the path's parameters.
func (d *document) at(method, path string) (op *operation, params map[string]string) {
	parts := strings.Split(path, "/")
	for _, candidate := range d.operations {
		pattern := strings.Split(candidate.path, "/")
		if candidate.method != method || len(pattern) != len(parts) {
			continue
		}
		found, values := true, map[string]string{}
		for i := range pattern {
			if name, isParam := strings.CutPrefix(pattern[i], "{"); isParam {
				values[strings.TrimSuffix(name, "}")], _ = url.PathUnescape(parts[i])
			} else if pattern[i] != parts[i] {
				found = false
			}
		}
		if found && (op == nil || len(values) == 0) {
			op, params = candidate, values
		}
	}
	return op, params
}

// taken are the statuses of requests that are as the document wants them, whatever became of them.
var taken = []int{200, 201, 402, 403, 404, 409, 422, 429, 500, 503, 504}

// check holds an answer against the document, and the request with it unless it was refused for its form.
func (d *document) check(t *testing.T, body string, a answer) {
	t.Helper()
	r := a.Request.Clone(context.Background())
	r.Body = io.NopCloser(strings.NewReader(body))
	about := fmt.Sprintf("%s %s %.200s: %d %.500s", r.Method, r.URL, body, a.StatusCode, a.body)
	op, params := d.at(r.Method, r.URL.EscapedPath())
	if op == nil {
		t.Errorf("%s: not in the document", about)
		return
	}
	input := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params,
		Route:   &routers.Route{Spec: d.T, Path: op.path, PathItem: op.item, Method: op.method, Operation: op.Operation},
		Options: &openapi3filter.Options{SkipSettingDefaults: true, RejectWhenRequestBodyNotSpecified: true, AuthenticationFunc: named},
	}
	seen := kind{op.OperationID, a.StatusCode, ""}
	if a.Header.Get("Content-Type") == "application/problem+json" {
		seen.code = a.field("code")
		if a.field("type") != "urn:stampede:problem:"+seen.code || a.field("status") != fmt.Sprint(a.StatusCode) || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", about, a.Header)
		}
	}
	if slices.Contains(taken, a.StatusCode) && seen.code != "not_found" {
		if err := openapi3filter.ValidateRequest(t.Context(), input); err != nil {
			t.Errorf("%s: the request is not in the document: %v", about, err)
		}
	}
	response := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: a.StatusCode, Header: a.Header,
		Body: io.NopCloser(bytes.NewReader(a.body)), Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	if err := openapi3filter.ValidateResponse(t.Context(), response); err != nil {
		t.Errorf("%s %v: the answer is not in the document: %v", about, a.Header, err)
	}
	limited := a.StatusCode == http.StatusTooManyRequests
	for _, name := range []string{"RateLimit", "RateLimit-Policy", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"} {
		if limited && a.Header.Get(name) == "" {
			t.Errorf("%s: %s is missing", about, name)
		}
	}
	if a.Header.Get("X-Content-Type-Options") != "nosniff" || a.Header.Get("X-Request-Id") == "" {
		t.Errorf("%s: headers %v", about, a.Header)
	}
	d.seen[seen] = true
}

// named tells whether a request brings the credential of a scheme; whether that is valid is the server's word.
func named(_ context.Context, in *openapi3filter.AuthenticationInput) error {
	header := cmp.Or(in.SecurityScheme.Name, "Authorization")
	if in.RequestValidationInput.Request.Header.Get(header) == "" {
		return fmt.Errorf("%s is missing", header)
	}
	return nil
}

// described are all answers that the document names.
func (d *document) described() map[kind]bool {
	all := map[kind]bool{}
	for id, op := range d.operations {
		for status, response := range op.Responses.Map() {
			number := 0
			_, _ = fmt.Sscan(status, &number)
			problem := response.Value.Content["application/problem+json"]
			if problem == nil {
				all[kind{id, number, ""}] = true
				continue
			}
			alternatives := problem.Schema.Value.OneOf
			if len(alternatives) == 0 {
				alternatives = openapi3.SchemaRefs{problem.Schema}
			}
			for _, alternative := range alternatives {
				of, code, _ := problemOf(alternative.Value)
				if of != number {
					code += " of another status" // was never seen
				}
				all[kind{id, number, code}] = true
			}
		}
	}
	return all
}

// problemOf returns which problem a schema describes.
func problemOf(schema *openapi3.Schema) (status int, code string, ok bool) {
	if len(schema.AllOf) != 2 || schema.AllOf[0].Ref != "#/components/schemas/Problem" {
		return 0, "", false
	}
	properties := schema.AllOf[1].Value.Properties
	number, _ := properties["status"].Value.Const.(float64)
	code, _ = properties["code"].Value.Const.(string)
	return int(number), code, true
}

// example is the request that the document gives as an operation's.
func (d *document) example(id string) request {
	op := d.operations[id]
	r := request{method: op.method, path: op.path}
	query := url.Values{}
	for _, parameter := range op.Parameters {
		p := parameter.Value
		text, _ := p.Example.(string)
		switch {
		case p.In == "path":
			r.path = strings.Replace(r.path, "{"+p.Name+"}", text, 1)
		case p.In == "query" && text != "":
			query.Set(p.Name, text)
		}
	}
	if len(query) > 0 {
		r.path += "?" + query.Encode()
	}
	if op.RequestBody != nil {
		content := op.RequestBody.Value.Content["application/json"]
		value := content.Example
		for _, name := range slices.Sorted(maps.Keys(content.Examples)) {
			value = content.Examples[name].Value.Value
		}
		text, err := json.Marshal(value)
		if err != nil {
			panic(err) // it came out of JSON
		}
		r.body = string(text)
	}
	if len(*op.Security) == 1 {
		r.headers = asAdmin
	}
	return r
}

// ask sends a request and checks what comes back.
func (d *document) ask(s *server, r request) answer {
	s.t.Helper()
	a := s.send(r.method, r.path, r.body, r.headers...)
	d.check(s.t, r.body, a)
	return a
}

// want is ask for an answer of this status and code.
func (d *document) want(s *server, status int, code string, r request) answer {
	s.t.Helper()
	a := d.ask(s, r)
	if a.StatusCode != status || (status >= http.StatusBadRequest && a.field("code") != code) {
		s.t.Errorf("%s %s %s %v: %d %s, want %d %s", r.method, r.path, r.body, r.headers, a.StatusCode, a.body, status, code)
	}
	return a
}
