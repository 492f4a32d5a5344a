package main

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

var maps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// next is the next event about the object called one: each namespace has a ConfigMap of the system, too.
func next(watcher watch.Interface) (watch.EventType, metav1.Object) {
	for event := range watcher.ResultChan() {
		object, ok := event.Object.(metav1.Object)
		if !ok || object.GetName() == "one" {
			return event.Type, object
		}
	}
	return "the watch ended", nil
}

func expectEvents(watcher watch.Interface, wanted ...watch.EventType) {
	for _, kind := range wanted {
		found, _ := next(watcher)
		expect("event", found, kind)
	}
}

func typed(ctx context.Context, config *rest.Config, namespace string) {
	config = rest.CopyConfig(config)
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps(namespace)
	watcher, err := client.Watch(ctx, metav1.ListOptions{LabelSelector: "app"})
	check(err)
	defer watcher.Stop()
	object := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "one", Labels: map[string]string{"app": "x"}},
		Data:       map[string]string{"a": "1"}, BinaryData: map[string][]byte{"b": {0, 255}},
	}
	created, err := client.Create(ctx, object, metav1.CreateOptions{})
	check(err)
	_, err = client.Create(ctx, object, metav1.CreateOptions{})
	expect("a second create is a conflict", apierrors.IsAlreadyExists(err), true)
	created.Data["a"] = "2"
	_, err = client.Update(ctx, created, metav1.UpdateOptions{})
	check(err)
	created.Data["a"] = "3"
	_, err = client.Update(ctx, created, metav1.UpdateOptions{})
	expect("an update of what has changed is a conflict", apierrors.IsConflict(err), true)
	for kind, patch := range map[types.PatchType]string{
		types.JSONPatchType:           `[{"op":"add","path":"/data/json","value":"y"}]`,
		types.MergePatchType:          `{"data":{"merge":"y"}}`,
		types.StrategicMergePatchType: `{"data":{"strategic":"y"}}`,
	} {
		_, err = client.Patch(ctx, "one", kind, []byte(patch), metav1.PatchOptions{})
		check(err)
	}
	apply := applycorev1.ConfigMap("one", namespace).WithData(map[string]string{"applied": "y"})
	_, err = client.Apply(ctx, apply, metav1.ApplyOptions{FieldManager: "clients"})
	check(err)
	found, err := client.Get(ctx, "one", metav1.GetOptions{})
	check(err)
	expect("what was written", len(found.Data), 5)
	expect("bytes", string(found.BinaryData["b"]), "\x00\xff")
	list, err := client.List(ctx, metav1.ListOptions{LabelSelector: "app=x", Limit: 10})
	check(err)
	expect("the list's length", len(list.Items), 1)
	check(client.Delete(ctx, "one", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &found.UID}}))
	_, err = client.Get(ctx, "one", metav1.GetOptions{})
	expect("it is gone", apierrors.IsNotFound(err), true)
	expectEvents(watcher, watch.Added, watch.Modified, watch.Modified, watch.Modified, watch.Modified, watch.Modified, watch.Deleted)
}

func dynamically(ctx context.Context, config *rest.Config, namespace string) {
	client := dynamic.NewForConfigOrDie(config).Resource(maps).Namespace(namespace)
	watcher, err := client.Watch(ctx, metav1.ListOptions{})
	check(err)
	defer watcher.Stop()
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "one"}, "data": map[string]any{"a": "1"},
	}}
	created, err := client.Create(ctx, object, metav1.CreateOptions{})
	check(err)
	check(unstructured.SetNestedField(created.Object, "2", "data", "a"))
	_, err = client.Update(ctx, created, metav1.UpdateOptions{})
	check(err)
	_, err = client.Patch(ctx, "one", types.MergePatchType, []byte(`{"data":{"b":"3"}}`), metav1.PatchOptions{})
	check(err)
	_, err = client.Apply(ctx, "one", object, metav1.ApplyOptions{FieldManager: "clients", Force: true})
	check(err)
	found, err := client.Get(ctx, "one", metav1.GetOptions{})
	check(err)
	value, _, err := unstructured.NestedString(found.Object, "data", "a")
	check(err)
	expect("what was applied", value, "1")
	list, err := client.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=one"})
	check(err)
	expect("the list's length", len(list.Items), 1)
	check(client.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name=one"}))
	expectEvents(watcher, watch.Added, watch.Modified, watch.Modified, watch.Modified, watch.Deleted)
}

func metadataOnly(ctx context.Context, config *rest.Config, namespace string) {
	one(ctx, config, namespace)
	client := metadata.NewForConfigOrDie(config).Resource(maps).Namespace(namespace)
	watcher, err := client.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=one"})
	check(err)
	defer watcher.Stop()
	patched, err := client.Patch(ctx, "one", types.MergePatchType, []byte(`{"metadata":{"labels":{"x":"y"}}}`), metav1.PatchOptions{})
	check(err)
	expect("the label", patched.Labels["x"], "y")
	list, err := client.List(ctx, metav1.ListOptions{LabelSelector: "x=y"})
	check(err)
	expect("the list's length", len(list.Items), 1)
	check(client.Delete(ctx, "one", metav1.DeleteOptions{}))
	expectEvents(watcher, watch.Added, watch.Modified, watch.Deleted)
}

func one(ctx context.Context, config *rest.Config, namespace string) {
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "one"}}
	_, err := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps(namespace).Create(ctx, object, metav1.CreateOptions{})
	check(err)
}

// informed starts an informer, which lists by a watch, and hears from it what happens.
func informed(ctx context.Context, config *rest.Config, namespace string) {
	client := kubernetes.NewForConfigOrDie(config)
	factory := informers.NewSharedInformerFactoryWithOptions(client, time.Hour, informers.WithNamespace(namespace))
	heard := make(chan string, 16)
	about := func(kind string, object any) {
		if named, ok := object.(*corev1.ConfigMap); ok && named.Name == "one" {
			heard <- kind
		}
	}
	informer := factory.Core().V1().ConfigMaps().Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { about("add", object) },
		UpdateFunc: func(_, object any) { about("update", object) },
		DeleteFunc: func(object any) { about("delete", object) },
	})
	check(err)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	factory.Start(ctx.Done())
	expect("the cache is filled", cache.WaitForCacheSync(ctx.Done(), informer.HasSynced), true)
	one(ctx, config, namespace)
	expect("heard", <-heard, "add")
	_, err = client.CoreV1().ConfigMaps(namespace).Patch(ctx, "one", types.MergePatchType, []byte(`{"data":{"a":"b"}}`), metav1.PatchOptions{})
	check(err)
	expect("heard", <-heard, "update")
	check(client.CoreV1().ConfigMaps(namespace).Delete(ctx, "one", metav1.DeleteOptions{}))
	expect("heard", <-heard, "delete")
}
