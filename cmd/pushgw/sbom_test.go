package main

import (
	"debug/buildinfo"
	"encoding/json"
	"os/exec"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/harness"
)

// Conformance (attacks): a known fault in what is linked | a bill of materials for each binary; the vulnerability database
func TestTheBillOfMaterialsNamesEveryModule(t *testing.T) {
	t.Parallel()
	name := harness.Binary(t)
	out, err := exec.Command("../../scripts/sbom", name, "v1.2.3").Output()
	if err != nil {
		t.Fatal(err)
	}
	var bill struct {
		Format     string `json:"bomFormat"`
		Components []struct{ Name, Version, PURL string }
		Metadata   struct {
			Component struct{ Name, Version string }
		}
	}
	if err := json.Unmarshal(out, &bill); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if c := bill.Metadata.Component; bill.Format != "CycloneDX" || c.Name != "pushgw" || c.Version != "v1.2.3" {
		t.Errorf("%s of %+v", bill.Format, c)
	}
	info, err := buildinfo.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"stdlib " + info.GoVersion[len("go"):]}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		want = append(want, module.Path+" "+module.Version)
	}
	var got []string
	for _, c := range bill.Components {
		got = append(got, c.Name+" "+c.Version)
		if c.PURL != "pkg:golang/"+c.Name+"@"+c.Version {
			t.Errorf("%s: %s", c.Name, c.PURL)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
}
