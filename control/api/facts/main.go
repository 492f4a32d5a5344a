// Command facts writes the table of facts about the built-in Kubernetes types that the crate wherry-api reads:
// field names, types, protobuf numbers, merge keys, list types and defaults. It is run by hand, never by the build:
//
//	go run . "$(go env GOMODCACHE)/k8s.io/kubernetes@v1.36.3/api/openapi-spec/v3" > ../src/facts/table.txt
//
// The format is described in ../src/facts/mod.rs.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// Every version of these groups that is listed gets its types into the table.
var wanted = map[schema.GroupVersion]bool{}

func init() {
	for _, gv := range []string{
		"v1", "apps/v1", "batch/v1", "autoscaling/v1", "autoscaling/v2", "networking.k8s.io/v1", "policy/v1",
		"rbac.authorization.k8s.io/v1", "storage.k8s.io/v1", "scheduling.k8s.io/v1", "node.k8s.io/v1",
		"coordination.k8s.io/v1", "discovery.k8s.io/v1", "events.k8s.io/v1", "certificates.k8s.io/v1",
		"authentication.k8s.io/v1", "authorization.k8s.io/v1", "admissionregistration.k8s.io/v1",
		"flowcontrol.apiserver.k8s.io/v1", "apiregistration.k8s.io/v1",
	} {
		parsed, err := schema.ParseGroupVersion(gv)
		if err != nil {
			log.Fatal(err)
		}
		wanted[parsed] = true
	}
}

type property struct {
	Default     json.RawMessage `json:"default"`
	ListType    string          `json:"x-kubernetes-list-type"`
	ListMapKeys []string        `json:"x-kubernetes-list-map-keys"`
	MapType     string          `json:"x-kubernetes-map-type"`
}

type definition struct {
	property
	Required   []string            `json:"required"`
	Properties map[string]property `json:"properties"`
}

type generator struct {
	specs map[string]definition
	kinds map[reflect.Type]schema.GroupVersionKind
	seen  map[reflect.Type]bool
	queue []reflect.Type
}

// Defaults that say no more than that the field is always there.
var zero = map[string]bool{`""`: true, "0": true, "false": true, "{}": true}

// Types that have a form of their own on the wire.
var special = map[string]string{
	"k8s.io/apimachinery/pkg/api/resource.Quantity":   "Q",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Time":       "T",
	"k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime":  "M",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Duration":   "D",
	"k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1":   "F",
	"k8s.io/apimachinery/pkg/util/intstr.IntOrString": "X",
	"k8s.io/apimachinery/pkg/runtime.RawExtension":    "R",
}

func path(t reflect.Type) string { return t.PkgPath() + "." + t.Name() }

func short(t reflect.Type) string {
	parts := strings.Split(t.PkgPath(), "/")
	return strings.Join(parts[len(parts)-2:], ".") + "." + t.Name()
}

func long(t reflect.Type) string {
	return strings.Replace(strings.ReplaceAll(path(t), "/", "."), "k8s.io.", "io.k8s.", 1)
}

func (g *generator) want(t reflect.Type) {
	if !g.seen[t] {
		g.seen[t] = true
		g.queue = append(g.queue, t)
	}
}

func (g *generator) shape(t reflect.Type) string {
	if code, ok := special[path(t)]; ok {
		return code
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.shape(t.Elem())
	case reflect.String:
		return "s"
	case reflect.Bool:
		return "b"
	case reflect.Int32, reflect.Int16:
		return "i"
	case reflect.Int64, reflect.Int:
		return "l"
	case reflect.Float64:
		return "d"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "y"
		}
		return "[]" + g.shape(t.Elem())
	case reflect.Map:
		return "{}" + g.shape(t.Elem())
	case reflect.Struct:
		g.want(t)
		return short(t)
	}
	log.Fatalf("no shape for %v", t)
	return ""
}

func (g *generator) fields(out *bufio.Writer, t reflect.Type, spec definition, prefix string) {
	for i := 0; i < t.NumField(); i++ {
		f := t.Field(i)
		tag := strings.Split(f.Tag.Get("json"), ",")
		number := "0"
		if pb := strings.Split(f.Tag.Get("protobuf"), ","); len(pb) > 1 {
			number = pb[1]
		}
		options := map[string]bool{}
		for _, option := range tag[1:] {
			options[option] = true
		}
		if tag[0] == "-" {
			continue
		}
		if f.Anonymous && f.Type == reflect.TypeOf(metav1.TypeMeta{}) {
			// On the wire of protobuf these two stand in the envelope, not in the message.
			fmt.Fprintln(out, "apiVersion s 0 -o\nkind s 0 -o")
			continue
		}
		if f.Anonymous && tag[0] == "" {
			inner := prefix
			if number != "0" {
				inner = prefix + number + "."
			}
			embedded := f.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			g.fields(out, embedded, spec, inner)
			continue
		}
		name := tag[0]
		prop := spec.Properties[name]
		flags := ""
		if options["omitempty"] {
			flags += "o"
		}
		if options["omitzero"] {
			flags += "z"
		}
		if f.Type.Kind() == reflect.Pointer {
			flags += "p"
		}
		for _, required := range spec.Required {
			if required == name {
				flags += "r"
			}
		}
		if prop.MapType == "atomic" {
			flags += "a"
		}
		if prop.MapType == "granular" {
			flags += "g"
		}
		words := []string{name, g.shape(f.Type), prefix + number, "-" + flags}
		if strategy := f.Tag.Get("patchStrategy"); strategy != "" {
			words = append(words, "strategy="+strategy)
		}
		if key := f.Tag.Get("patchMergeKey"); key != "" {
			words = append(words, "mergekey="+key)
		}
		if prop.ListType != "" {
			words = append(words, "list="+prop.ListType)
		}
		if len(prop.ListMapKeys) > 0 {
			words = append(words, "keys="+strings.Join(prop.ListMapKeys, ","))
		}
		structByValue := f.Type.Kind() == reflect.Struct && special[path(f.Type)] == ""
		written := f.Type.Kind() != reflect.Pointer && !options["omitzero"] && (structByValue || !options["omitempty"])
		if len(prop.Default) > 0 && !(written && zero[string(prop.Default)]) {
			words = append(words, "default="+string(prop.Default))
		}
		fmt.Fprintln(out, strings.Join(words, " "))
	}
}

func main() {
	specs := map[string]definition{}
	documents, err := filepath.Glob(filepath.Join(os.Args[1], "*.json"))
	if err != nil || len(documents) == 0 {
		log.Fatalf("no OpenAPI v3 documents in %s: %v", os.Args[1], err)
	}
	for _, name := range documents {
		text, err := os.ReadFile(name)
		if err != nil {
			log.Fatal(err)
		}
		var document struct {
			Components struct{ Schemas map[string]definition }
		}
		if err := json.Unmarshal(text, &document); err != nil {
			log.Fatal(err)
		}
		maps.Copy(specs, document.Components.Schemas)
	}
	g := &generator{specs: specs, kinds: map[reflect.Type]schema.GroupVersionKind{}, seen: map[reflect.Type]bool{}}
	if err := apiregistrationv1.AddToScheme(scheme.Scheme); err != nil {
		log.Fatal(err)
	}
	for gvk, t := range scheme.Scheme.AllKnownTypes() {
		own := strings.HasPrefix(t.PkgPath(), "k8s.io/api/") || strings.HasPrefix(t.PkgPath(), "k8s.io/kube-aggregator/")
		if wanted[gvk.GroupVersion()] && own {
			g.kinds[t] = gvk
			g.want(t)
		}
	}
	for _, meta := range []any{metav1.DeleteOptions{}, metav1.Status{}, metav1.PartialObjectMetadata{}, metav1.PartialObjectMetadataList{},
		metav1.CreateOptions{}} {
		g.want(reflect.TypeOf(meta))
	}
	blocks := map[string]string{}
	for len(g.queue) > 0 {
		t := g.queue[0]
		g.queue = g.queue[1:]
		spec := g.specs[long(t)]
		var block strings.Builder
		out := bufio.NewWriter(&block)
		head := []string{"=" + short(t)}
		if gvk, ok := g.kinds[t]; ok {
			head = append(head, gvk.GroupVersion().String()+"/"+gvk.Kind)
		}
		if spec.MapType == "atomic" {
			head = append(head, "atomic")
		}
		fmt.Fprintln(out, strings.Join(head, " "))
		g.fields(out, t, spec, "")
		out.Flush()
		blocks[short(t)] = block.String()
	}
	names := make([]string, 0, len(blocks))
	for name := range blocks {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Print(blocks[name])
	}
}
