package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
)

// A dialer of its own keeps client-go from sharing connections between clients.
func dialer() func(context.Context, string, string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext
}

// report prints both servers' figures beside each other and appends them to a file. A ratio above 1 is in our favour.
func report(ours, peer []Figure, out string) error {
	fmt.Printf("%-22s %12s %12s %7s %16s %16s %18s %7s\n", "", "ours", "peer", "ratio", "p50/p99 ms", "peer", "cpu us/op (peer)", "ratio")
	for i, our := range ours {
		their := peer[i]
		if our.Memory > 0 {
			fmt.Printf("%-22s %8.0f MiB %8.0f MiB %6.1fx\n", our.What, our.Memory, their.Memory, their.Memory/our.Memory)
			continue
		}
		fmt.Printf("%-22s %10.0f/s %10.0f/s %6.1fx %7.1f /%7.1f %7.1f /%7.1f %9.1f /%8.1f %5.1fx\n", our.What, our.Rate, their.Rate,
			our.Rate/their.Rate, our.P50, our.P99, their.P50, their.P99, our.CPU, their.CPU, their.CPU/our.CPU)
	}
	if out == "" {
		return nil
	}
	file, err := os.OpenFile(out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	encoder := json.NewEncoder(file)
	for _, figures := range [][]Figure{ours, peer} {
		for _, figure := range figures {
			if err := encoder.Encode(figure); err != nil {
				return err
			}
		}
	}
	return nil
}
