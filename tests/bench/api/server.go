package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Server is a running API server and its database.
type Server struct {
	Name      string
	Config    *rest.Config
	processes []*exec.Cmd
}

// Stop ends all its processes.
func (s *Server) Stop() {
	for i := len(s.processes) - 1; i >= 0; i-- {
		_ = s.processes[i].Process.Signal(syscall.SIGTERM)
		_ = s.processes[i].Wait()
	}
}

func (s *Server) start(dir, binary string, arguments ...string) error {
	name := filepath.Base(binary)
	output, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return err
	}
	command := exec.Command(binary, arguments...)
	command.Stdout, command.Stderr = output, output
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	s.processes = append(s.processes, command)
	return nil
}

// ready waits until the server takes writes.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var last error
	for ctx.Err() == nil {
		var client *kubernetes.Clientset
		if client, last = kubernetes.NewForConfig(s.Config); last == nil {
			if _, last = client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{}); last == nil {
				return nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("%s is not ready: %w", s.Name, last)
}

// cpu is the processor time that all its processes have used.
func (s *Server) cpu() (time.Duration, error) {
	var ticks int
	for _, process := range s.processes {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process.Process.Pid))
		if err != nil {
			return 0, err
		}
		// Fields 14 and 15, in hundredths of a second, counted from behind the command's name.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		for _, field := range fields[11:13] {
			n, err := strconv.Atoi(field)
			if err != nil {
				return 0, err
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// resident is the memory of all its processes, in MiB.
func (s *Server) resident() (float64, error) {
	var kib int
	for _, process := range s.processes {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process.Process.Pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(status), "VmRSS:")
		n, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			return 0, err
		}
		kib += n
	}
	return float64(kib) / 1024, nil
}

func startWherry(ctx context.Context, dir, binary string) (*Server, error) {
	s := &Server{Name: "wherry"}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	if err := s.start(dir, binary, "up", "--data-dir", data, "--kubeconfig", kubeconfig, "--api-port", port); err != nil {
		return nil, err
	}
	for ctx.Err() == nil {
		if s.Config, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return s, s.ready(ctx)
}

func startKubernetes(ctx context.Context, dir, apiserver, etcd string) (*Server, error) {
	s := &Server{Name: "kube-apiserver + etcd"}
	ports := make([]string, 3)
	for i := range ports {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		ports[i] = port
	}
	clients, peers := "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1]
	err := s.start(dir, etcd, "--data-dir", filepath.Join(dir, "etcd"), "--log-level", "error",
		"--listen-client-urls", clients, "--advertise-client-urls", clients,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default="+peers)
	if err != nil {
		return nil, err
	}
	key, tokens := filepath.Join(dir, "key.pem"), filepath.Join(dir, "tokens.csv")
	if err := writeKey(key); err != nil {
		return nil, err
	}
	if err := os.WriteFile(tokens, []byte("bench,bench,bench,system:masters\n"), 0o600); err != nil {
		return nil, err
	}
	// Without a controller manager no namespace gets its default ServiceAccount.
	err = s.start(dir, apiserver, "--etcd-servers", clients, "--secure-port", ports[2], "--bind-address", "127.0.0.1",
		"--cert-dir", filepath.Join(dir, "certs"), "--authorization-mode", "Node,RBAC", "--token-auth-file", tokens,
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", key,
		"--service-account-signing-key-file", key, "--service-cluster-ip-range", "10.96.0.0/12",
		"--disable-admission-plugins", "ServiceAccount")
	if err != nil {
		return nil, err
	}
	s.Config = &rest.Config{
		Host: "https://127.0.0.1:" + ports[2], BearerToken: "bench", TLSClientConfig: rest.TLSClientConfig{Insecure: true},
	}
	return s, s.ready(ctx)
}

func writeKey(path string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return os.WriteFile(path, pem.EncodeToMemory(block), 0o600)
}

func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, err
}
