// Package conftest compares what is written about options with the code.
package conftest

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/matrix-herald/herald/internal/conf"
)

// commented matches an option that is commented out: a "#", a name and a colon.
// Names of maps have dots.
var commented = regexp.MustCompile(`(?m)^( *)# ( *[a-z_.]+:( .*)?)$`)

// Uncomment removes the "#" before the options of an example.
func Uncomment(example string) string { return commented.ReplaceAllString(example, "$1$2") }

// CheckExample reports the options that an example does not show, be it behind a
// "#", in the section they belong to.
func CheckExample(t testing.TB, example string, options []conf.Option) {
	t.Helper()
	var tree map[string]any
	if err := yaml.UnmarshalWithOptions([]byte(Uncomment(example)), &tree, yaml.AllowDuplicateMapKey()); err != nil {
		t.Fatal(err)
	}
	for _, o := range options {
		if !shows(tree, strings.Split(o.Path, ".")) {
			t.Errorf("the example does not show %s", o.Path)
		}
	}
}

// shows says whether a path leads somewhere in the tree; "*" is any key or item.
func shows(tree any, path []string) bool {
	if len(path) == 0 {
		return true
	}
	switch node := tree.(type) {
	case map[string]any:
		for key, value := range node {
			if (path[0] == "*" || path[0] == key) && shows(value, path[1:]) {
				return true
			}
		}
	case []any:
		return path[0] == "*" && slices.ContainsFunc(node, func(item any) bool { return shows(item, path[1:]) })
	}
	return false
}

// CheckSecrets reports the secrets that cannot stand in a file of their own.
func CheckSecrets(t testing.TB, options []conf.Option) {
	t.Helper()
	for _, o := range options {
		twin := func(other conf.Option) bool { return other.Path == o.Path+"_file" }
		if strings.Contains(o.Type, "secret") && !slices.ContainsFunc(options, twin) {
			t.Errorf("%s is a secret, and there is no %[1]s_file", o.Path)
		}
	}
}

// CheckRows compares the options with the rows of a page in Markdown, which begin
// with the option, in both directions.
func CheckRows(t testing.TB, page string, options []conf.Option) {
	t.Helper()
	known := make(map[string]bool)
	for _, o := range options {
		known[o.Path] = true
		if !strings.Contains(page, rowOf(o)) {
			t.Errorf("the page has no row for %s", o.Path)
		}
	}
	for _, row := range firstCell.FindAllStringSubmatch(page, -1) {
		if !known[row[1]] {
			t.Errorf("the page has a row for %s, which is no option", row[1])
		}
	}
}

var firstCell = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

func rowOf(o conf.Option) string { return "\n| `" + o.Path + "` |" }

// CheckPage does the same, and compares what follows in the rows: the environment
// variable and the default. Options whose default is in other words are named.
func CheckPage(t testing.TB, page string, options []conf.Option, inWords ...string) {
	t.Helper()
	CheckRows(t, page, options)
	for _, o := range options {
		_, row, _ := strings.Cut(page, rowOf(o))
		cells := strings.SplitN(row, "|", 3)
		if len(cells) < 3 {
			continue // CheckRows has said so
		}
		if got, want := strings.TrimSpace(cells[0]), code(o.Env); got != want {
			t.Errorf("%s is overridden by %q, not %q", o.Path, want, got)
		}
		if got, want := strings.TrimSpace(cells[1]), code(o.Default); got != want && !slices.Contains(inWords, o.Path) {
			t.Errorf("%s is %q by default, not %q", o.Path, want, got)
		}
	}
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
