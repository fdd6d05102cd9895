// Package conftest compares what is written about options with the code, and
// writes the table of options.
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
		for _, path := range []string{o.Path, o.File} {
			if path != "" && !shows(tree, strings.Split(path, ".")) {
				t.Errorf("the example does not show %s", path)
			}
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
		if strings.Contains(o.Type, "secret") && o.File == "" {
			t.Errorf("%s is a secret, and there is no %[1]s_file", o.Path)
		}
	}
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
