// Command clients works with a cluster through each of Go's clients: typed (in protobuf), dynamic, metadata, informers and
// controller-runtime. It ends at the first thing that is not as it should be.
//
//	go run . KUBECONFIG
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	check(err)
	config.QPS, config.Burst = 1000, 1000
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, part := range []struct {
		name string
		run  func(context.Context, *rest.Config, string)
	}{
		{"typed", typed}, {"dynamic", dynamically}, {"metadata", metadataOnly}, {"informers", informed},
		{"controller-runtime", controllerRuntime},
	} {
		namespace := made(ctx, config, part.name)
		part.run(ctx, config, namespace)
		check(kubernetes.NewForConfigOrDie(config).CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}))
		fmt.Printf("ok: Go, %s\n", part.name)
	}
}

// made gives a namespace of its own to each part.
func made(ctx context.Context, config *rest.Config, name string) string {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "clients-" + name + "-"}}
	namespace, err := kubernetes.NewForConfigOrDie(config).CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
	check(err)
	return namespace.Name
}

func check(err error) {
	if err != nil {
		log.Output(2, err.Error())
		os.Exit(1)
	}
}

func expect[T comparable](what string, found, wanted T) {
	if found != wanted {
		log.Output(2, fmt.Sprintf("%s: found %v, wanted %v", what, found, wanted))
		os.Exit(1)
	}
}
