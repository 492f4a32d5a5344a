// Command golden packs upstream's own data (k8s.io/api/testdata/HEAD: an object of each kind with every field set, as JSON and
// as protobuf) for the tests: a compressed file with one line a kind. Kinds that are not in the table of facts are left
// out. APIService, which is a module of its own without such data, is written here by upstream's types. It is run by hand, never by
// the build:
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
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

type object struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	JSON       json.RawMessage `json:"json"`
	Protobuf   []byte          `json:"protobuf"`
}

// An APIService with every field of its own set.
func apiService() object {
	port := int32(8443)
	service := apiregistrationv1.APIService{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apiregistration.k8s.io/v1", Kind: "APIService"},
		ObjectMeta: metav1.ObjectMeta{Name: "nameValue", Labels: map[string]string{"labelsKey": "labelsValue"}},
		Spec: apiregistrationv1.APIServiceSpec{
			Service: &apiregistrationv1.ServiceReference{Namespace: "namespaceValue", Name: "nameValue", Port: &port},
			Group:   "groupValue", Version: "versionValue", InsecureSkipTLSVerify: true, CABundle: []byte{1, 2, 3},
			GroupPriorityMinimum: 7, VersionPriority: 8,
		},
		Status: apiregistrationv1.APIServiceStatus{Conditions: []apiregistrationv1.APIServiceCondition{{
			Type: "typeValue", Status: "statusValue", LastTransitionTime: metav1.NewTime(time.Unix(1072967999, 0).UTC()),
			Reason: "reasonValue", Message: "messageValue",
		}}},
	}
	found := object{APIVersion: service.APIVersion, Kind: service.Kind}
	var err error
	if found.JSON, err = json.Marshal(&service); err != nil {
		log.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := apiregistrationv1.AddToScheme(scheme); err != nil {
		log.Fatal(err)
	}
	var written bytes.Buffer
	if err := protobuf.NewSerializer(scheme, scheme).Encode(&service, &written); err != nil {
		log.Fatal(err)
	}
	found.Protobuf = written.Bytes()
	return found
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
	if err := encoder.Encode(apiService()); err != nil {
		log.Fatal(err)
	}
	if err := out.Close(); err != nil {
		log.Fatal(err)
	}
}
