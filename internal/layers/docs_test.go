package layers_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentsNameTestsThatExist keeps the pages honest that say which test
// shows what.
func TestDocumentsNameTestsThatExist(t *testing.T) {
	t.Parallel()
	const root = "../.."
	there := make(map[string]bool)
	declaration := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range declaration.FindAllSubmatch(source, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]int)
	name := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)\\w+)`")
	for _, path := range pages {
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range name.FindAllSubmatch(page, -1) {
			named[filepath.Base(path)]++
			if !there[string(m[1])] {
				t.Errorf("%s names %s, which does not exist", path, m[1])
			}
		}
	}
	for _, page := range []string{"conformance.md", "operations.md", "threat-model.md"} {
		if named[page] == 0 {
			t.Errorf("docs/%s names no test", page)
		}
	}
}

// TestConformanceHasNoOpenRow wants each row of each table to name a test.
func TestConformanceHasNoOpenRow(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(?:Test|Fuzz|Benchmark)\\w+`[^|]*\\|$")
	rows := 0
	lines := strings.Split(string(page), "\n")
	for i, line := range lines {
		head := i+1 < len(lines) && strings.HasPrefix(lines[i+1], "|---")
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || head {
			continue
		}
		rows++
		if !named.MatchString(line) {
			t.Errorf("no test shows it: %s", line)
		}
	}
	if rows == 0 {
		t.Error("there are no rows")
	}
}

// TestTheLayoutIsWhatIsThere compares the layout on the architecture page with the
// folders that hold Go files; helpers of tests need no line.
func TestTheLayoutIsWhatIsThere(t *testing.T) {
	t.Parallel()
	const root = "../.."
	page, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	folder := regexp.MustCompile(`(?:[a-z0-9]+/)+`)
	goFile := regexp.MustCompile(`\b[a-z_]+\.go\b`)
	named := make(map[string]bool)
	for line := range strings.Lines(string(page)) {
		at := folder.FindStringIndex(line)
		if at == nil || at[0] != 0 {
			continue
		}
		dir := line[:at[1]]
		for _, other := range folder.FindAllString(line, -1) {
			named[strings.TrimSuffix(other, "/")] = true
		}
		for _, file := range goFile.FindAllString(line, -1) {
			if _, err := os.Stat(filepath.Join(root, dir, file)); err != nil {
				t.Errorf("docs/architecture.md: there is no %s%s", dir, file)
			}
		}
	}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err == nil && !named[filepath.ToSlash(dir)] && !strings.HasSuffix(dir, "test") {
			t.Errorf("docs/architecture.md does not name %s", dir)
			named[filepath.ToSlash(dir)] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
