// local-ingress is a networking layer for Knative Serving that is only good for tests: one process, plain HTTP/1.1 on
// one port for internal and public hosts alike, no TLS, no gRPC, nothing kept over a restart. It does what Serving's
// controller needs: it routes the hosts of every Ingress of its class to the Kubernetes Services that Serving names
// (the activator while a revision has no pod), with the headers by which the activator knows the revision, and says so
// in the Ingress' status. Kourier, Istio and Contour do the same with Envoy.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"knative.dev/networking/pkg/apis/networking"
	"knative.dev/networking/pkg/apis/networking/v1alpha1"
	clientset "knative.dev/networking/pkg/client/clientset/versioned"
	"knative.dev/networking/pkg/client/informers/externalversions"
	listers "knative.dev/networking/pkg/client/listers/networking/v1alpha1"
)

const (
	class  = "local.ingress.networking.knative.dev"
	resync = 5 * time.Second
)

// routes are the paths of each host.
type routes map[string][]v1alpha1.HTTPIngressPath

type ingress struct {
	client  clientset.Interface
	lister  listers.IngressLister
	address string
	routes  atomic.Pointer[routes]
	changed chan struct{}
}

func main() {
	configuration, err := rest.InClusterConfig()
	if err != nil {
		log.Fatal(err)
	}
	client := clientset.NewForConfigOrDie(configuration)
	factory := externalversions.NewSharedInformerFactory(client, resync)
	informer := factory.Networking().V1alpha1().Ingresses()
	it := &ingress{
		client:  client,
		lister:  informer.Lister(),
		address: os.Getenv("ADDRESS"),
		changed: make(chan struct{}, 1),
	}
	informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { it.wake() },
		UpdateFunc: func(any, any) { it.wake() },
		DeleteFunc: func(any) { it.wake() },
	})
	factory.Start(context.Background().Done())
	factory.WaitForCacheSync(context.Background().Done())
	it.publish()
	go it.keepUp()
	log.Fatal(http.ListenAndServe(":8080", it.handler()))
}

func (it *ingress) wake() {
	select {
	case it.changed <- struct{}{}:
	default: // one that is waiting already sees this change too
	}
}

func (it *ingress) keepUp() {
	for range it.changed {
		it.publish()
	}
}

// publish takes a new table of routes into use, then says in the status of each Ingress that it is in use.
func (it *ingress) publish() {
	found, err := it.lister.List(labels.Everything())
	if err != nil {
		log.Print(err)
		return
	}
	table := routes{}
	mine := slices.DeleteFunc(found, func(each *v1alpha1.Ingress) bool {
		return each.Annotations[networking.IngressClassAnnotationKey] != class || each.DeletionTimestamp != nil
	})
	for _, each := range mine {
		for _, rule := range each.Spec.Rules {
			for _, host := range rule.Hosts {
				table[host] = append(table[host], rule.HTTP.Paths...)
			}
		}
	}
	for _, paths := range table { // the most specific first
		slices.SortStableFunc(paths, func(a, b v1alpha1.HTTPIngressPath) int {
			return cmp.Or(cmp.Compare(len(b.Path), len(a.Path)), cmp.Compare(len(b.Headers), len(a.Headers)))
		})
	}
	it.routes.Store(&table)
	for _, each := range mine {
		if each.Status.ObservedGeneration != each.Generation || !each.IsReady() {
			it.markReady(each.DeepCopy())
		}
	}
}

func (it *ingress) markReady(each *v1alpha1.Ingress) {
	here := []v1alpha1.LoadBalancerIngressStatus{{DomainInternal: it.address}}
	each.Status.InitializeConditions()
	each.Status.MarkNetworkConfigured()
	each.Status.MarkLoadBalancerReady(here, here)
	each.Status.ObservedGeneration = each.Generation
	ctx, cancel := context.WithTimeout(context.Background(), resync)
	defer cancel()
	_, err := it.client.NetworkingV1alpha1().Ingresses(each.Namespace).UpdateStatus(ctx, each, metav1.UpdateOptions{})
	if err != nil { // most often a conflict; the resync brings it here again
		log.Printf("%s/%s: %v", each.Namespace, each.Name, err)
	}
}

func (it *ingress) handler() http.Handler {
	// A connection that is kept would stay with the pod that a Service chose first: with the activator for ever.
	transport := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: resync}).DialContext}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, found := it.path(r)
		if !found {
			http.Error(w, "no Knative route has host "+r.Host, http.StatusNotFound)
			return
		}
		proxy := httputil.ReverseProxy{
			Transport:     transport,
			FlushInterval: -1,
			Rewrite:       func(out *httputil.ProxyRequest) { rewrite(out, path) },
		}
		proxy.ServeHTTP(w, r)
	})
}

func (it *ingress) path(r *http.Request) (v1alpha1.HTTPIngressPath, bool) {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	for _, path := range (*it.routes.Load())[strings.ToLower(host)] {
		matches := strings.HasPrefix(r.URL.Path, path.Path)
		for name, header := range path.Headers {
			matches = matches && r.Header.Get(name) == header.Exact
		}
		if matches {
			return path, true
		}
	}
	return v1alpha1.HTTPIngressPath{}, false
}

func rewrite(out *httputil.ProxyRequest, path v1alpha1.HTTPIngressPath) {
	split := choose(path.Splits)
	out.SetURL(&url.URL{
		Scheme: "http",
		Host:   fmt.Sprintf("%s.%s.svc:%s", split.ServiceName, split.ServiceNamespace, split.ServicePort.String()),
	})
	out.SetXForwarded()
	out.Out.Host = cmp.Or(path.RewriteHost, out.In.Host)
	for _, headers := range []map[string]string{path.AppendHeaders, split.AppendHeaders} {
		for name, value := range headers {
			out.Out.Header.Set(name, value)
		}
	}
}

// choose takes one of the backends by its share in percent.
func choose(splits []v1alpha1.IngressBackendSplit) v1alpha1.IngressBackendSplit {
	point := rand.IntN(100)
	for _, split := range splits {
		if point -= split.Percent; point < 0 {
			return split
		}
	}
	return splits[0]
}
