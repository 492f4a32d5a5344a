// Command api measures API servers with client-go, one after the other on the same machine, and compares them.
//
// It starts each server itself, on loopback and in a directory of its own, does the same work to each, and prints rates,
// times, processor seconds and memory, with the ratio of the two. No node runs: the Pods stay Pending, so that it is the
// API alone that is measured. Every write is durable before its answer in both (etcd and wherry sync to disk).
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
)

func main() {
	wherry := flag.String("wherry", "", "the wherry binary")
	apiserver := flag.String("kube-apiserver", "", "the kube-apiserver binary")
	etcd := flag.String("etcd", "", "the etcd binary")
	out := flag.String("out", "", "the file that each figure is appended to, as a line of JSON")
	load := Load{}
	flag.IntVar(&load.Pods, "pods", 5000, "how many Pods are created")
	flag.IntVar(&load.Workers, "workers", 32, "how many requests are in flight")
	flag.IntVar(&load.Watchers, "watchers", 50, "how many clients watch")
	flag.IntVar(&load.Lists, "lists", 20, "how often all Pods are listed in each encoding")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, load, *wherry, *apiserver, *etcd, *out); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, load Load, wherry, apiserver, etcd, out string) error {
	var tables [][]Figure
	for _, start := range []func(context.Context, string) (*Server, error){
		func(ctx context.Context, dir string) (*Server, error) { return startWherry(ctx, dir, wherry) },
		func(ctx context.Context, dir string) (*Server, error) {
			return startKubernetes(ctx, dir, apiserver, etcd)
		},
	} {
		figures, err := measure(ctx, load, start)
		if err != nil {
			return err
		}
		tables = append(tables, figures)
	}
	return report(tables[0], tables[1], out)
}

// One server from its start to its end.
func measure(ctx context.Context, load Load, start func(context.Context, string) (*Server, error)) ([]Figure, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	server, err := start(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer server.Stop()
	fmt.Fprintf(os.Stderr, "measuring %s\n", server.Name)
	return load.run(ctx, server)
}
