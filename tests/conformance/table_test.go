package conformance

import (
	"fmt"
	"sort"
)

// print shows how many specs of each area passed, and which failed.
func print(found results) {
	areas := make([]string, 0, len(found.areas))
	for name := range found.areas {
		areas = append(areas, name)
	}
	sort.Strings(areas)
	total := counts{}
	fmt.Printf("\n%-24s %7s %7s %8s\n", "area", "passed", "failed", "skipped")
	for _, name := range areas {
		count := found.areas[name]
		fmt.Printf("%-24s %7d %7d %8d\n", name, count.passed, count.failed, count.skipped)
		total.passed += count.passed
		total.failed += count.failed
		total.skipped += count.skipped
	}
	fmt.Printf("%-24s %7d %7d %8d\n\n", "all", total.passed, total.failed, total.skipped)
	for _, spec := range found.specs {
		if spec.state != "passed" && spec.state != "skipped" {
			fmt.Printf("%s: %s\n  %s\n", spec.state, spec.name, spec.why)
		}
	}
}
