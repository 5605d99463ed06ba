package rest_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"stampede/engine"
	"stampede/engine/rest"
)

// The document is one that others can read, and each of its examples is one of what it describes.
func TestOpenAPI_IsValidWithItsExamples(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(rest.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context(), openapi3.EnableExamplesValidation()); err != nil {
		t.Error(err)
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.OperationID == "" || op.Summary == "" || op.Description == "" || len(op.Tags) != 1 || op.Security == nil {
				t.Errorf("%s %s wants an id, a summary, a description, one tag and its security", method, path)
			}
			for status, response := range op.Responses.Map() {
				for media, content := range response.Value.Content {
					if strings.HasSuffix(media, "json") && path != "/openapi.json" && content.Example == nil && len(content.Examples) == 0 {
						t.Errorf("%s %s: %s has no example", method, path, status)
					}
				}
			}
		}
	}
}

// What the server routes stands in the document, with who may call it, and nothing else.
func TestOpenAPI_HasTheServersRoutes(t *testing.T) {
	d := readDocument(t)
	var served, described []string
	for _, r := range rest.RouteAccesses() {
		var schemes []string
		if r.Admin {
			schemes = append(schemes, "adminToken")
		}
		if r.Buyer {
			schemes = append(schemes, "buyerToken", "userId", "")
		}
		served = append(served, fmt.Sprint(r.Method, " ", r.Path, " ", schemes, " limited: ", !r.Probe))
	}
	for _, op := range d.operations {
		schemes := []string(nil)
		for _, alternative := range *op.Security {
			schemes = append(schemes, strings.Join(slices.Collect(maps.Keys(alternative)), "+"))
		}
		limited := op.Responses.Status(http.StatusTooManyRequests) != nil
		described = append(described, fmt.Sprint(op.method, " ", op.path, " ", schemes, " limited: ", limited))
	}
	slices.Sort(served)
	slices.Sort(described)
	if !slices.Equal(served, described) {
		t.Errorf("the server routes\n%s\nthe document has\n%s", strings.Join(served, "\n"), strings.Join(described, "\n"))
	}
}

// serversProblems reads out of this package's source every problem that it can answer with, as status, code and title.
func serversProblems(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			literal, ok := n.(*ast.CompositeLit)
			if !ok || fmt.Sprint(literal.Type) != "problem" {
				return true
			}
			fields := map[string]string{}
			for _, element := range literal.Elts {
				if pair, ok := element.(*ast.KeyValueExpr); ok {
					if value, ok := pair.Value.(*ast.BasicLit); ok {
						fields[fmt.Sprint(pair.Key)] = value.Value
					}
				}
			}
			code, _ := strconv.Unquote(fields["code"])
			title, _ := strconv.Unquote(fields["title"])
			found[fmt.Sprintf("%s %s: %s", fields["status"], code, title)] = true
			return true
		})
	}
	return found
}

// Every problem that the server can answer with has its schema, its example and its line in the table, and there are no
// others.
func TestOpenAPI_HasTheServersProblems(t *testing.T) {
	d := readDocument(t)
	server := serversProblems(t)
	if len(server) < 20 {
		t.Fatalf("only %d problems found in the source", len(server))
	}
	examples := map[string]bool{}
	walkJSON(d.raw, "", func(_ string, value any) {
		if object, ok := value.(map[string]any); ok && object["title"] != nil && object["code"] != nil && object["detail"] != nil {
			if _, isText := object["code"].(string); isText {
				examples[fmt.Sprintf("%v %v: %v", object["status"], object["code"], object["title"])] = true
			}
		}
	})
	schemas := map[string]bool{}
	for _, schema := range d.Components.Schemas {
		if status, code, ok := problemOf(schema.Value); ok {
			schemas[fmt.Sprintf("%d %s", status, code)] = true
		}
	}
	for problem := range server {
		kind, _, _ := strings.Cut(problem, ":")
		code := strings.Fields(kind)[1]
		if !examples[problem] || !schemas[kind] || !strings.Contains(d.Info.Description, "`"+code+"`") {
			t.Errorf("the server answers %q; example: %v, schema: %v", problem, examples[problem], schemas[kind])
		}
		delete(examples, problem)
		delete(schemas, kind)
	}
	if len(examples) > 0 || len(schemas) > 0 {
		t.Errorf("no problem of the server: examples %v, schemas %v", examples, schemas)
	}
}

// Every limit in the document is the constant that the server goes by.
func TestOpenAPI_HasTheServersLimits(t *testing.T) {
	const schemas, total = "/components/schemas/", engine.LinesMax * engine.QuantityMax * engine.PriceMax
	want := map[string]int64{
		schemas + "UserIdInput/maximum":                                 engine.IDMax,
		schemas + "ProductIdInput/maximum":                              engine.IDMax,
		schemas + "IdempotencyKey/maxLength":                            engine.KeyMax,
		schemas + "Name/maxLength":                                      engine.NameMax,
		schemas + "Reason/maxLength":                                    engine.NameMax,
		schemas + "Email/maxLength":                                     rest.EmailMax,
		schemas + "Price/maximum":                                       engine.PriceMax,
		schemas + "Units/maximum":                                       engine.StockMax,
		schemas + "Quantity/maximum":                                    engine.QuantityMax,
		schemas + "Money/maximum":                                       engine.BalanceMax,
		schemas + "Total/maximum":                                       total,
		schemas + "NewCharge/properties/amount/maximum":                 engine.BalanceMax,
		schemas + "Charge/properties/amount/maximum":                    engine.BalanceMax,
		schemas + "StockChange/properties/delta/maximum":                engine.StockMax,
		schemas + "Order/properties/items/maxItems":                     engine.LinesMax,
		schemas + "Order/properties/history/maxItems":                   3, // PENDING, SUCCESS, REFUNDED
		schemas + "Cart/properties/items/maxItems":                      engine.LinesMax,
		schemas + "ProductPage/properties/items/maxItems":               rest.LimitMax,
		schemas + "OrderPage/properties/items/maxItems":                 rest.LimitMax,
		schemas + "SalesPage/properties/items/maxItems":                 rest.LimitMax,
		schemas + "NewOrders/properties/orders/maxItems":                rest.BatchOrdersMax,
		schemas + "OrderResults/properties/results/maxItems":            rest.BatchOrdersMax,
		schemas + "LedgerPage/properties/items/maxItems":                rest.LimitMax,
		schemas + "Top/properties/items/maxItems":                       engine.TopMax,
		schemas + "Seller/properties/rank/maximum":                      engine.TopMax,
		schemas + "Problem/properties/status/maximum":                   599,
		schemas + "ValidationFailed/allOf/1/properties/in_cart/maximum": engine.QuantityMax,
		schemas + "OutOfStock/allOf/1/properties/left/maximum":          engine.StockMax,
		"/components/parameters/Limit/schema/maximum":                   rest.LimitMax,
		"/components/parameters/Limit/schema/default":                   rest.LimitDefault,
		"/paths/~1products~1top/get/parameters/0/schema/maximum":        engine.TopMax,
		"/paths/~1products~1top/get/parameters/0/schema/default":        rest.TopDefault,
	}
	d := readDocument(t)
	walkJSON(d.raw, "", func(at string, value any) {
		number, ok := value.(json.Number)
		if keyword := at[strings.LastIndex(at, "/")+1:]; !ok || !slices.Contains([]string{"maximum", "maxLength", "maxItems", "default"}, keyword) {
			return
		}
		if limit, known := want[at]; !known || fmt.Sprint(limit) != number.String() {
			t.Errorf("%s is %v, the server's is %d", at, number, limit)
		}
		delete(want, at)
	})
	for at, limit := range want {
		t.Errorf("%s is missing, the server's is %d", at, limit)
	}
	for _, text := range []string{
		fmt.Sprintf("body up to %d KiB (an admin's batch: %d MiB)", rest.BodyMax>>10, rest.BatchBodyMax>>20), fmt.Sprintf("headers up to %d KiB", rest.HeaderMax>>10),
		fmt.Sprintf("within %d seconds", int(rest.ReadTimeout.Seconds())), fmt.Sprintf("1 to %d printable characters", engine.KeyMax),
		fmt.Sprintf("one of 1 to %d letters", rest.RequestIDMax), fmt.Sprintf("with %d,000 connections", rest.ConnsPerIPMax/1000),
	} {
		if !strings.Contains(d.Info.Description, text) {
			t.Errorf("the description does not say %q", text)
		}
	}
	if hours := d.Components.Schemas["Top"].Value.Properties["window_hours"].Value.Const; fmt.Sprint(hours) != fmt.Sprint(engine.Window.Hours()) {
		t.Errorf("the top's window is %v hours", hours)
	}
}

// walkJSON visits every value with its JSON pointer.
func walkJSON(value any, at string, visit func(at string, value any)) {
	visit(at, value)
	switch value := value.(type) {
	case map[string]any:
		for name, member := range value {
			walkJSON(member, at+"/"+strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1"), visit)
		}
	case []any:
		for i, member := range value {
			walkJSON(member, fmt.Sprint(at, "/", i), visit)
		}
	}
}
