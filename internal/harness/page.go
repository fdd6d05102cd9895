package harness

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// CheckPage compares a table that `make docs` writes into a page, between the lines
// "<!-- NAME, by make docs -->" and "<!-- end -->", with what it should be. With
// update it writes the table.
func CheckPage(t testing.TB, page, name, table string, update bool) {
	t.Helper()
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	begin := "<!-- " + name + ", by make docs -->\n"
	before, rest, found := strings.Cut(string(data), begin)
	got, after, closed := strings.Cut(rest, "<!-- end -->\n")
	switch {
	case !found || !closed:
		t.Fatalf("%s has no lines %q and \"<!-- end -->\"", page, strings.TrimSpace(begin))
	case got == table:
	case !update:
		t.Errorf("%s is not what the code says: run make docs", page)
	default:
		if err := os.WriteFile(page, []byte(before+begin+table+"<!-- end -->\n"+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

var desc = regexp.MustCompile(`fqName: ("[^"]*"), help: ("(?:[^"\\]|\\.)*"), (?:unit: "[^"]*", )?constLabels: .*, variableLabels: \{([^}]*)\}`)

// MetricsTable returns the metrics of a registry whose names begin with one of the
// prefixes as a table in Markdown.
func MetricsTable(t testing.TB, registry *prometheus.Registry, prefixes ...string) string {
	t.Helper()
	descs := make(chan *prometheus.Desc)
	go func() { defer close(descs); registry.Describe(descs) }()
	var rows []string
	for d := range descs {
		var name, help string
		found := desc.FindStringSubmatch(d.String())
		if found == nil {
			t.Fatalf("not understood: %s", d)
		}
		if _, err := fmt.Sscanf(found[1]+" "+found[2], "%q %q", &name, &help); err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			rows = append(rows, fmt.Sprintf("|`%s`|%s|%s|\n", name, strings.ReplaceAll(found[3], ",", ", "), strings.TrimSuffix(help, ".")))
		}
	}
	slices.Sort(rows)
	return "|metric|labels|meaning|\n|---|---|---|\n" + strings.Join(slices.Compact(rows), "")
}
