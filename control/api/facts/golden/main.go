// Command golden packs upstream's own data (k8s.io/api/testdata/HEAD: an object of each kind with every field set, as JSON and
// as protobuf) for the tests: a compressed file with one line a kind. Kinds that are not in the table of facts are left
// out. It is run by hand, never by the build:
//
//	go run ./golden ../src/facts/table.txt "$(go env GOMODCACHE)/k8s.io/api@v0.36.3/testdata/HEAD" > ../testdata/golden.jsonl.gz
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"log"
	"os"
	"path/filepath"
	"strings"
)

type object struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	JSON       json.RawMessage `json:"json"`
	Protobuf   []byte          `json:"protobuf"`
}

func main() {
	table, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	served := map[string]bool{}
	for _, line := range strings.Split(string(table), "\n") {
		if words := strings.Fields(line); strings.HasPrefix(line, "=") && len(words) > 1 {
			served[words[1]] = true
		}
	}
	files, err := filepath.Glob(filepath.Join(os.Args[2], "*.json"))
	if err != nil || len(files) == 0 {
		log.Fatalf("no data in %s: %v", os.Args[2], err)
	}
	out, err := gzip.NewWriterLevel(os.Stdout, gzip.BestCompression)
	if err != nil {
		log.Fatal(err)
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			log.Fatal(err)
		}
		var found object
		if err := json.Unmarshal(text, &found); err != nil {
			log.Fatal(err)
		}
		if !served[found.APIVersion+"/"+found.Kind] {
			continue
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, text); err != nil {
			log.Fatal(err)
		}
		found.JSON = compact.Bytes()
		if found.Protobuf, err = os.ReadFile(strings.TrimSuffix(file, ".json") + ".pb"); err != nil {
			log.Fatal(err)
		}
		if err := encoder.Encode(found); err != nil {
			log.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		log.Fatal(err)
	}
}
