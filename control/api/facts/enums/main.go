// Command enums writes the table of the fields that take one of a few words, for the OpenAPI documents of the crate
// wherry-api: what upstream marks with +enum. The published specification leaves it out; the generated Go code has it.
// It is run by hand, never by the build, from ..:
//
//	go run ./enums "$(go env GOMODCACHE)/k8s.io/kubernetes@v1.36.3/pkg/generated/openapi/zz_generated.openapi.go" \
//		../src/facts/table.txt > ../src/openapi/enums.txt
//
// The types are those of the table of facts. A line is `TYPE FIELD WORD|...`, as core.v1.ContainerPort protocol SCTP|TCP|UDP; FIELD[] means the items of a list or the
// values of a map.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log"
	"os"
	"sort"
	"strconv"
	"strings"
)

func main() {
	file, err := parser.ParseFile(token.NewFileSet(), os.Args[1], nil, 0)
	if err != nil {
		log.Fatal(err)
	}
	table, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	var lines []string
	for _, decl := range file.Decls {
		function, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		// schema_k8sio_api_core_v1_ContainerPort
		name, ok := strings.CutPrefix(function.Name.Name, "schema_k8sio_api_")
		if !ok {
			continue
		}
		name = strings.ReplaceAll(name, "_", ".")
		if !strings.Contains(string(table), "\n="+name+"\n") && !strings.Contains(string(table), "\n="+name+" ") {
			continue
		}
		ast.Inspect(function.Body, func(node ast.Node) bool {
			pair, ok := node.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			if key, ok := pair.Key.(*ast.BasicLit); ok {
				if field, err := strconv.Unquote(key.Value); err == nil {
					lines = append(lines, enums(name, field, pair.Value)...)
					return false
				}
			}
			return true
		})
	}
	sort.Strings(lines)
	fmt.Println(strings.Join(lines, "\n"))
}

// The words of one property, whose schema is value.
func enums(name, field string, value ast.Node) []string {
	var lines []string
	ast.Inspect(value, func(node ast.Node) bool {
		pair, ok := node.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		switch key, _ := pair.Key.(*ast.Ident); {
		case key == nil:
		case key.Name == "Items" || key.Name == "AdditionalProperties":
			lines = append(lines, enums(name, field+"[]", pair.Value)...)
			return false
		case key.Name == "Enum":
			var words []string
			for _, element := range pair.Value.(*ast.CompositeLit).Elts {
				word, err := strconv.Unquote(element.(*ast.BasicLit).Value)
				if err != nil {
					log.Fatal(err)
				}
				words = append(words, word)
			}
			lines = append(lines, name+" "+field+" "+strings.Join(words, "|"))
		}
		return true
	})
	return lines
}
