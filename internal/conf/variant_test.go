package conf_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/conf"
)

// shapes has entries whose options depend on their type.
type shapes struct {
	Shapes map[string]shape `yaml:"shapes" conf:"expand"`
}

type shape struct {
	Type   string  `yaml:"type"`
	Circle *circle `yaml:",inline" conf:"type=circle"`
	Square *square `yaml:",inline" conf:"type=square"`
}

type circle struct {
	Radius  int         `yaml:"radius"`
	Key     conf.Secret `yaml:"key"`
	KeyFile string      `yaml:"key_file"`
}

type square struct {
	Side int         `yaml:"side"`
	Key  conf.Secret `yaml:"key"`
}

func TestTypeChoosesTheVariant(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "key"), "hunter2")
	got := shapes{Shapes: map[string]shape{"was.circle": {Type: "circle", Circle: &circle{Radius: 1}}}}
	err := conf.Load(conf.LoadOptions{Dir: dir, Environ: []string{"KIND=square"}, Data: []byte(`
shapes:
  a: {radius: 2, type: circle, key_file: key}
  b: {type: "${KIND}", side: 3, key: x}
  was.circle: {type: square}
`)}, &got)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, got, shapes{Shapes: map[string]shape{
		"a":          {Type: "circle", Circle: &circle{Radius: 2, Key: "hunter2", KeyFile: filepath.Join(dir, "key")}},
		"b":          {Type: "square", Square: &square{Side: 3, Key: "x"}},
		"was.circle": {Type: "square", Square: &square{}},
	}})
	if d := cmp.Diff([]string{filepath.Join(dir, "key")}, conf.Files(&got)); d != "" {
		t.Errorf("files: -want +got:\n%s", d)
	}
}

func TestVariantFaults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"an option of another variant": {"{type: circle, side: 1}", []string{`test.yaml:1: shapes["a"].side: unknown option: correct its name or remove it; known here: type, radius, key, key_file`}},
		"a type that does not exist":   {"{type: line, side: 1}", []string{`test.yaml:1: shapes["a"].type: write one of circle, square`}},
		"no type":                      {"{side: 1}", []string{`test.yaml:1: shapes["a"].type: write one of circle, square`}},
		"a type that is a list":        {"{type: [circle]}", []string{`test.yaml:1: shapes["a"].type: is a single value`}},
	} {
		var c shapes
		err := conf.Load(conf.LoadOptions{Name: "test.yaml", Data: []byte("shapes: {a: " + test.text + "}")}, &c)
		checkFaults(t, name, err, test.want)
	}
}

func TestOptionsListsTheVariantsOptionsOnce(t *testing.T) {
	t.Parallel()
	want := []conf.Option{
		{Path: "shapes.*.type", Type: "text", Source: "shape.Type"},
		{Path: "shapes.*.radius", Type: "integer", Default: "0", Source: "circle.Radius", Kinds: []string{"circle"}},
		{Path: "shapes.*.key", Type: "secret", File: "shapes.*.key_file", Source: "circle.Key", Kinds: []string{"circle", "square"}},
		{Path: "shapes.*.side", Type: "integer", Default: "0", Source: "square.Side", Kinds: []string{"square"}},
	}
	got := conf.Options(&shapes{}, "TEST_")
	for i := range got {
		got[i].Source = strings.TrimPrefix(got[i].Source, "github.com/matrix-herald/herald/internal/conf_test.")
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
