package sydent_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/sydent"
)

var update = flag.Bool("update", false, "write the golden files")

// TestConvert compares what testdata/convert/*.conf become with the files beside
// them.
//
// Conformance (identity): sydent.conf | becomes an identity.yaml, with a warning for what cannot be carried (also TestTheConfigurationOfASydentIsConverted)
func TestConvert(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/convert/*.conf")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		made, err := sydent.Convert(text)
		if err != nil {
			t.Fatal(err)
		}
		got := string(made.Config) + "---\n" + strings.Join(made.Warnings, "\n") + "\n"
		golden := strings.TrimSuffix(name, ".conf") + ".golden"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func FuzzConvert(f *testing.F) {
	f.Add("[general]\nserver.name = id.example.org\n[email]\nemail.from = a: b # c\n")
	f.Add("[DEFAULT]\nserver.name = \"x\\\"\nhomeserver_allow_list = a, ,b\nprometheus_port = -1\n")
	f.Fuzz(func(t *testing.T, text string) {
		made, err := sydent.Convert([]byte(text))
		if err == nil && !strings.HasPrefix(string(made.Config), "# Made from") {
			t.Errorf("made %q", made.Config)
		}
	})
}
