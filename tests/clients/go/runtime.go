package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const finalizer = "clients.wherry.dev/seen"

// controllerRuntime runs a controller that marks each ConfigMap with a finalizer and a status of its own, and lets it go
// once it is deleted.
func controllerRuntime(ctx context.Context, config *rest.Config, namespace string) {
	log.SetLogger(zap.New())
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Metrics: server.Options{BindAddress: "0"},
		Cache:   cache.Options{DefaultNamespaces: map[string]cache.Config{namespace: {}}},
	})
	check(err)
	seen := make(chan string, 16)
	access := manager.GetClient()
	reconcile := func(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
		object := &corev1.ConfigMap{}
		if err := access.Get(ctx, request.NamespacedName, object); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
		if object.Name != "one" {
			return ctrl.Result{}, nil
		}
		if !object.DeletionTimestamp.IsZero() {
			if controllerutil.RemoveFinalizer(object, finalizer) {
				if err := access.Update(ctx, object); err != nil {
					return ctrl.Result{}, err
				}
				seen <- "deleted"
			}
			return ctrl.Result{}, nil
		}
		before := object.DeepCopy()
		if controllerutil.AddFinalizer(object, finalizer) {
			if err := access.Patch(ctx, object, client.MergeFrom(before)); err != nil {
				return ctrl.Result{}, err
			}
			seen <- "marked"
		}
		return ctrl.Result{}, nil
	}
	check(ctrl.NewControllerManagedBy(manager).For(&corev1.ConfigMap{}).Complete(reconciler(reconcile)))
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- manager.Start(ctx) }()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "one", Namespace: namespace}}
	check(access.Create(ctx, object))
	expect("the controller", <-seen, "marked")
	check(access.Delete(ctx, object))
	expect("the controller", <-seen, "deleted")
	cancel()
	check(<-ended)
}

type reconciler func(context.Context, ctrl.Request) (ctrl.Result, error)

func (r reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	return r(ctx, request)
}
