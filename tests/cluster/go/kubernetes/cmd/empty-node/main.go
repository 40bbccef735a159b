// empty-node SOCKET: removes all pods of the container runtime, with their networks, without grace.
package main

import (
	"context"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func main() {
	log.SetFlags(0)
	connection, err := grpc.NewClient("unix://"+os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	runtime := cri.NewRuntimeServiceClient(connection)

	containers, err := runtime.ListContainers(ctx, &cri.ListContainersRequest{})
	check(err)
	for _, container := range containers.Containers {
		// Stopping its pod below kills what is left of it.
		if _, err := runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: container.Id}); err != nil {
			log.Print(err)
		}
	}
	pods, err := runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	check(err)
	for _, pod := range pods.Items {
		_, err := runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod.Id})
		check(err)
		_, err = runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod.Id})
		check(err)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
