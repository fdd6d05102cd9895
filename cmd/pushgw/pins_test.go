package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestWhatIsFetchedIsPinned looks at everything that a build or a deployment
// fetches by name: each name has a version of three parts, or the two of an
// image's own scheme, and never moves to another by itself.
//
// Conformance (attacks): another version of a module, image or action than was looked at | checksums in go.sum; images and actions by version
func TestWhatIsFetchedIsPinned(t *testing.T) {
	t.Parallel()
	const root = "../.."
	workflows, err := filepath.Glob(filepath.Join(root, ".github/workflows/*.yml"))
	if err != nil || len(workflows) == 0 {
		t.Fatalf("no workflows: %v", err)
	}
	pinned := regexp.MustCompile(`[@:]v?\d+\.\d+(\.\d+)?(-[\w.]+)?(@sha256:[0-9a-f]{64})?$`)
	for file, names := range map[string]*regexp.Regexp{
		"Dockerfile":         regexp.MustCompile(`(?m)^FROM (?:--\S+ )*(\S+[:/]\S+)`),
		"docker-compose.yml": regexp.MustCompile(`(?m)^\s+image: (\S+)$`),
		"Makefile":           regexp.MustCompile(`(?m)^\w+_VERSION\s*:=\s*(v\S+)$`),
	} {
		pins(t, filepath.Join(root, file), names, pinned)
	}
	for _, file := range workflows {
		pins(t, file, regexp.MustCompile(`(?m)^\s+(?:- )?uses: (\S+)$`), pinned)
	}
}

func pins(t *testing.T, file string, names, pinned *regexp.Regexp) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	found := names.FindAllSubmatch(text, -1)
	if len(found) == 0 {
		t.Errorf("%s names nothing", file)
	}
	own := regexp.MustCompile(`^herald-`) // built here
	for _, m := range found {
		if name := string(m[1]); !own.MatchString(name) && !pinned.MatchString(":"+name) {
			t.Errorf("%s: %s is not pinned", file, name)
		}
	}
}
