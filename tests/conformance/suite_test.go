// Package conformance builds the official Kubernetes suite as a program of its own: the specs of k8s.io/kubernetes/test/e2e,
// chosen by name, and a table of what came of them. ./run.sh starts it.
package conformance

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-base/logs"
	conformancetestdata "k8s.io/kubernetes/test/conformance/testdata"
	"k8s.io/kubernetes/test/e2e/common"
	"k8s.io/kubernetes/test/e2e/framework"
	"k8s.io/kubernetes/test/e2e/framework/config"
	e2enode "k8s.io/kubernetes/test/e2e/framework/node"
	"k8s.io/kubernetes/test/e2e/framework/testfiles"
	e2etestingmanifests "k8s.io/kubernetes/test/e2e/testing-manifests"
	testfixtures "k8s.io/kubernetes/test/fixtures"

	// The specs.
	_ "k8s.io/kubernetes/test/e2e/apimachinery"
	_ "k8s.io/kubernetes/test/e2e/apps"
	_ "k8s.io/kubernetes/test/e2e/architecture"
	_ "k8s.io/kubernetes/test/e2e/auth"
	_ "k8s.io/kubernetes/test/e2e/instrumentation"
	_ "k8s.io/kubernetes/test/e2e/kubectl"
	_ "k8s.io/kubernetes/test/e2e/network"
	_ "k8s.io/kubernetes/test/e2e/node"
	_ "k8s.io/kubernetes/test/e2e/scheduling"
	_ "k8s.io/kubernetes/test/e2e/storage"

	// What they expect to be set up.
	_ "k8s.io/component-base/logs/testinit"
	_ "k8s.io/kubernetes/test/e2e/feature"
	_ "k8s.io/kubernetes/test/e2e/framework/debug/init"
	_ "k8s.io/kubernetes/test/e2e/framework/metrics/init"
	_ "k8s.io/kubernetes/test/e2e/framework/node/init"
	_ "k8s.io/kubernetes/test/utils/format"
)

var (
	names = flag.String("names", "", "a file of spec names, one a line; none is all conformance specs")
	table = flag.String("table", "", "where to write the results: a line a spec")
)

func TestMain(m *testing.M) {
	config.CopyFlags(config.Flags, flag.CommandLine)
	framework.RegisterCommonFlags(flag.CommandLine)
	framework.RegisterClusterFlags(flag.CommandLine)
	flag.Parse()
	testfiles.AddFileSource(e2etestingmanifests.GetE2ETestingManifestsFS())
	testfiles.AddFileSource(testfixtures.GetTestFixturesFS())
	testfiles.AddFileSource(conformancetestdata.GetConformanceTestdataFS())
	framework.AfterReadingAllFlags(&framework.TestContext)
	os.Exit(m.Run())
}

func TestConformance(t *testing.T) {
	logs.InitLogs()
	defer logs.FlushLogs()
	gomega.RegisterFailHandler(framework.Fail)
	suite, reporter := framework.CreateGinkgoConfig()
	focus, err := chosen(*names)
	if err != nil {
		t.Fatal(err)
	}
	suite.FocusStrings = append(suite.FocusStrings, focus...)
	ginkgo.RunSpecs(t, "conformance", suite, reporter)
}

// chosen makes a pattern of each name in the file, which matches this spec and no other.
func chosen(file string) ([]string, error) {
	if file == "" {
		return []string{`\[Conformance\]`}, nil
	}
	opened, err := os.Open(filepath.Clean(file))
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	var focus []string
	for lines := bufio.NewScanner(opened); lines.Scan(); {
		if name := strings.TrimSpace(lines.Text()); name != "" {
			focus = append(focus, regexp.QuoteMeta(name)+"$")
		}
	}
	if len(focus) == 0 {
		return nil, fmt.Errorf("%s names no spec", file)
	}
	return focus, nil
}

var _ = ginkgo.SynchronizedBeforeSuite(func(ctx context.Context) []byte {
	common.CurrentSuite = common.E2E
	client, err := framework.LoadClientset()
	framework.ExpectNoError(err)
	timeouts := framework.NewTimeoutContext()
	framework.ExpectNoError(e2enode.WaitForAllNodesSchedulable(ctx, client, timeouts.NodeSchedulable))
	return nil
}, func(ctx context.Context, _ []byte) {
	client, err := framework.LoadClientset()
	framework.ExpectNoError(err)
	framework.TestContext.IPFamily = family(ctx, client)
	nodes, err := e2enode.GetReadySchedulableNodes(ctx, client)
	framework.ExpectNoError(err)
	framework.TestContext.CloudConfig.NumNodes = len(nodes.Items)
})

// family is that of the cluster's own Service.
func family(ctx context.Context, client kubernetes.Interface) string {
	service, err := client.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
	framework.ExpectNoError(err)
	if strings.Contains(service.Spec.ClusterIP, ":") {
		return "ipv6"
	}
	return "ipv4"
}

var _ = ginkgo.ReportAfterSuite("table", func(report ginkgo.Report) {
	// The framework looks through all specs once before it runs any.
	if report.SuiteConfig.DryRun {
		return
	}
	results := collect(report)
	print(results)
	if *table == "" {
		return
	}
	var lines strings.Builder
	for _, result := range results.specs {
		fmt.Fprintf(&lines, "%s\t%s\t%.1fs\t%s\n", result.state, result.name, result.seconds, result.why)
	}
	if err := os.WriteFile(*table, []byte(lines.String()), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
})

type spec struct {
	state   string
	name    string
	seconds float64
	why     string
}

type counts struct{ passed, failed, skipped int }

type results struct {
	specs []spec
	areas map[string]*counts
}

var area = regexp.MustCompile(`^\[(sig-[a-z-]+)\]`)

// collect sorts what ran by area; a spec that was not chosen is not in it, one that skipped itself is.
func collect(report ginkgo.Report) results {
	found := results{areas: map[string]*counts{}}
	for _, ran := range report.SpecReports {
		if ran.LeafNodeType != types.NodeTypeIt || ran.State == types.SpecStateSkipped && ran.Failure.Message == "" {
			continue
		}
		name := "other"
		if match := area.FindStringSubmatch(ran.FullText()); match != nil {
			name = match[1]
		}
		if found.areas[name] == nil {
			found.areas[name] = &counts{}
		}
		count := found.areas[name]
		switch {
		case ran.State == types.SpecStatePassed:
			count.passed++
		case ran.State == types.SpecStateSkipped || ran.State == types.SpecStatePending:
			count.skipped++
		default:
			count.failed++
		}
		why, _, _ := strings.Cut(strings.TrimSpace(ran.Failure.Message), "\n")
		found.specs = append(found.specs, spec{ran.State.String(), ran.FullText(), ran.RunTime.Seconds(), why})
	}
	return found
}
