package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	jsonType     = "application/json"
	protobufType = "application/vnd.kubernetes.protobuf"
	namespace    = "default"
)

// Load is what is done to a server.
type Load struct{ Pods, Workers, Watchers, Lists int }

// Figure is one thing that was measured.
type Figure struct {
	Server string  `json:"server"`
	What   string  `json:"what"`
	Rate   float64 `json:"per_second,omitempty"`
	P50    float64 `json:"p50_ms,omitempty"`
	P99    float64 `json:"p99_ms,omitempty"`
	// Processor time of the server, in microseconds for each operation.
	CPU    float64 `json:"cpu_us_per_op,omitempty"`
	Memory float64 `json:"resident_mib,omitempty"`
}

func client(config *rest.Config, content string) (*kubernetes.Clientset, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.ContentType, config.AcceptContentTypes = content, content
	if content == protobufType {
		config.AcceptContentTypes += "," + jsonType
	}
	// The Pods' defaults are not what is measured: no warnings are printed.
	config.WarningHandler = rest.NoWarnings{}
	return kubernetes.NewForConfig(config)
}

func (l Load) run(ctx context.Context, server *Server) ([]Figure, error) {
	typed, err := client(server.Config, protobufType)
	if err != nil {
		return nil, err
	}
	plain, err := client(server.Config, jsonType)
	if err != nil {
		return nil, err
	}
	pods := typed.CoreV1().Pods(namespace)
	list := func(client *kubernetes.Clientset) func(int) error {
		return func(int) error {
			found, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
			if err == nil && len(found.Items) != l.Pods {
				return fmt.Errorf("%d Pods are listed, not %d", len(found.Items), l.Pods)
			}
			return err
		}
	}
	patch := []byte(`{"metadata":{"labels":{"patched":"yes"}}}`)
	var figures []Figure
	for _, step := range []struct {
		what           string
		count, workers int
		do             func(int) error
	}{
		{"create", l.Pods, l.Workers, func(i int) error {
			_, err := pods.Create(ctx, pod(i), metav1.CreateOptions{})
			return err
		}},
		{"patch", l.Pods, l.Workers, func(i int) error {
			_, err := pods.Patch(ctx, name(i), types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			return err
		}},
		{"get", l.Pods * 4, l.Workers, func(i int) error {
			_, err := pods.Get(ctx, name(i%l.Pods), metav1.GetOptions{})
			return err
		}},
		{"list all, JSON", l.Lists, 2, list(plain)},
		{"list all, protobuf", l.Lists, 2, list(typed)},
	} {
		figure, err := timed(server, step.what, step.count, step.workers, step.do)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", server.Name, step.what, err)
		}
		figures = append(figures, figure)
	}
	figure, err := l.watch(ctx, server)
	if err != nil {
		return nil, fmt.Errorf("%s, watch: %w", server.Name, err)
	}
	memory, err := server.resident()
	if err != nil {
		return nil, err
	}
	return append(figures, figure, Figure{Server: server.Name, What: "resident", Memory: memory}), nil
}

// timed does something many times from several workers.
func timed(server *Server, what string, count, workers int, do func(int) error) (Figure, error) {
	before, err := server.cpu()
	if err != nil {
		return Figure{}, err
	}
	var next atomic.Int64
	times := make([]time.Duration, count)
	failures := make([]error, workers)
	began := time.Now()
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				start := time.Now()
				if err := do(i); err != nil {
					failures[worker] = err
					return
				}
				times[i] = time.Since(start)
			}
		})
	}
	group.Wait()
	took := time.Since(began)
	if err := errors.Join(failures...); err != nil {
		return Figure{}, err
	}
	after, err := server.cpu()
	if err != nil {
		return Figure{}, err
	}
	slices.Sort(times)
	return Figure{
		Server: server.Name, What: what, Rate: float64(count) / took.Seconds(),
		P50: milliseconds(times[count/2]), P99: milliseconds(times[count*99/100]),
		CPU: float64((after - before).Microseconds()) / float64(count),
	}, nil
}

// watch lets all clients see a change of every Pod; it is done when each has seen all.
func (l Load) watch(ctx context.Context, server *Server) (Figure, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	writer, err := client(server.Config, protobufType)
	if err != nil {
		return Figure{}, err
	}
	current, err := writer.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return Figure{}, err
	}
	failures := make([]error, l.Watchers)
	var watchers sync.WaitGroup
	for i := range l.Watchers {
		// A connection of its own, as clients have.
		config := rest.CopyConfig(server.Config)
		config.Dial = dialer()
		watching, err := client(config, protobufType)
		if err != nil {
			return Figure{}, err
		}
		stream, err := watching.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: current.ResourceVersion})
		if err != nil {
			return Figure{}, err
		}
		watchers.Go(func() { failures[i] = seeAll(stream, l.Pods) })
	}
	patch := []byte(`{"metadata":{"labels":{"seen":"yes"}}}`)
	began := time.Now()
	before, err := server.cpu()
	if err != nil {
		return Figure{}, err
	}
	figure, err := timed(server, "watch", l.Pods, l.Workers, func(i int) error {
		_, err := writer.CoreV1().Pods(namespace).Patch(ctx, name(i), types.StrategicMergePatchType, patch, metav1.PatchOptions{})
		return err
	})
	if err != nil {
		return Figure{}, err
	}
	watchers.Wait()
	if err := errors.Join(failures...); err != nil {
		return Figure{}, err
	}
	after, err := server.cpu()
	if err != nil {
		return Figure{}, err
	}
	delivered := float64(l.Pods * l.Watchers)
	return Figure{
		Server: server.Name, What: fmt.Sprintf("watch, %d clients", l.Watchers), Rate: delivered / time.Since(began).Seconds(),
		P50: figure.P50, P99: figure.P99, CPU: float64((after - before).Microseconds()) / delivered,
	}, nil
}

// seeAll reads a watch until every Pod's change came.
func seeAll(stream watch.Interface, pods int) error {
	defer stream.Stop()
	seen := map[string]bool{}
	for event := range stream.ResultChan() {
		pod, ok := event.Object.(*corev1.Pod)
		if !ok {
			return fmt.Errorf("a watch got %s %T", event.Type, event.Object)
		}
		if event.Type == watch.Modified && pod.Labels["seen"] == "yes" {
			if seen[pod.Name] = true; len(seen) == pods {
				return nil
			}
		}
	}
	return fmt.Errorf("a watch ended after %d of %d", len(seen), pods)
}

func name(i int) string { return fmt.Sprintf("bench-%05d", i) }

// pod is of the size that Pods of Deployments have, and is never scheduled.
func pod(i int) *corev1.Pod {
	automount := false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name(i),
			Labels:      map[string]string{"app": "bench", "pod-template-hash": "5d4f8c7b9"},
			Annotations: map[string]string{"example.com/revision": "1"},
		},
		Spec: corev1.PodSpec{
			SchedulerName: "nobody", AutomountServiceAccountToken: &automount,
			Containers: []corev1.Container{{
				Name: "main", Image: "registry.example.com/team/app:1.2.3",
				Env:   []corev1.EnvVar{{Name: "LOG_LEVEL", Value: "info"}, {Name: "PORT", Value: "8080"}},
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("64Mi")},
					Limits:   corev1.ResourceList{"memory": resource.MustParse("128Mi")},
				},
			}},
		},
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
