package layers_test

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/layers"
)

const herald = "github.com/matrix-herald/herald/"

// TestModule is the check itself: the real files of this module.
func TestModule(t *testing.T) {
	t.Parallel()
	faults, err := layers.Check(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Error(f)
	}
}

// TestModuleIsFound guards TestModule against looking at an empty folder.
func TestModuleIsFound(t *testing.T) {
	t.Parallel()
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "module " + strings.TrimSuffix(herald, "/") + "\n"; !strings.HasPrefix(string(mod), want) {
		t.Errorf("../../go.mod does not begin with %q", want)
	}
}

// source returns a file of the package that imports what is named.
func source(imports ...string) string {
	var b strings.Builder
	b.WriteString("package p\n\nimport (\n")
	for _, i := range imports {
		b.WriteString("\t_ \"" + i + "\"\n")
	}
	b.WriteString(")\n")
	return b.String()
}

func TestCheck(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		file string
		src  string
		want string // the fault; empty for none
	}{
		{
			name: "a domain imports another domain it is built on",
			file: "identity/directory.go", src: source(herald+"threepid", herald+"identity/signing"),
		},
		{
			name: "a domain imports a neighbour it must not know",
			file: "identity/directory.go", src: source(herald + "threepid/validation"),
			want: "identity/directory.go: identity must not import threepid/validation",
		},
		{
			name: "a domain imports the other service",
			file: "identity/directory.go", src: source(herald + "push"),
			want: "identity/directory.go: identity must not import push",
		},
		{
			name: "a domain imports its adapter",
			file: "push/gateway.go", src: source(herald + "push/apns"),
			want: "push/gateway.go: push must not import push/apns",
		},
		{
			name: "a domain imports an internal leaf",
			file: "push/gateway.go", src: source(herald + "internal/conf"),
			want: "push/gateway.go: push must not import internal/conf",
		},
		{
			name: "a domain imports gin",
			file: "threepid/email.go", src: source("github.com/gin-gonic/gin"),
			want: "threepid/email.go: imports github.com/gin-gonic/gin: gin belongs to internal/mxhttp, push/httpapi, identity/httpapi",
		},
		{
			name: "a domain imports database/sql",
			file: "identity/store.go", src: source("database/sql"),
			want: "identity/store.go: imports database/sql: SQL belongs to identity/sqlstore, identity/sydent",
		},
		{
			name: "a domain imports YAML",
			file: "push/apps.go", src: source("github.com/goccy/go-yaml"),
			want: "push/apps.go: imports github.com/goccy/go-yaml: YAML belongs to internal/conf, push/sygnal",
		},
		{
			name: "a domain imports an SDK",
			file: "push/provider.go", src: source("firebase.google.com/go/v4/messaging"),
			want: "push/provider.go: imports firebase.google.com/go/v4/messaging: Google's SDK belongs to push/fcm",
		},
		{
			name: "a domain imports a library nobody has judged",
			file: "push/provider.go", src: source("example.com/sdk"),
			want: "push/provider.go: imports example.com/sdk: a domain package knows no library that is not in the table of internal/layers",
		},
		{
			name: "a domain imports the Prometheus client and the standard library",
			file: "push/metrics.go", src: source("github.com/prometheus/client_golang/prometheus", "net/url"),
		},
		{
			name: "an adapter imports its domain and the leaves for connections",
			file: "push/apns/apns.go",
			src:  source(herald+"push", herald+"internal/conf", herald+"internal/safehttp", herald+"internal/h2pool", "github.com/sideshow/apns2"),
		},
		{
			name: "an adapter imports another adapter",
			file: "push/apns/apns.go", src: source(herald + "push/fcm"),
			want: "push/apns/apns.go: push/apns must not import push/fcm",
		},
		{
			name: "an adapter imports another adapter's technology",
			file: "push/fcm/fcm.go", src: source("github.com/sideshow/apns2/token"),
			want: "push/fcm/fcm.go: imports github.com/sideshow/apns2/token: the APNs client belongs to push/apns",
		},
		{
			name: "an adapter imports the HTTP conventions",
			file: "push/fcm/fcm.go", src: source(herald + "internal/mxhttp"),
			want: "push/fcm/fcm.go: push/fcm must not import internal/mxhttp",
		},
		{
			name: "the mail adapter names the validation it serves",
			file: "threepid/email/smtp.go", src: source(herald + "threepid/validation"),
			want: "threepid/email/smtp.go: threepid/email must not import threepid/validation",
		},
		{
			name: "an adapter makes a client of its own",
			file: "identity/homeserver/client.go", src: "package p\n\nimport web \"net/http\"\n\nvar c = &web.Client{}\n",
			want: "identity/homeserver/client.go: uses net/http.Client: connections to addresses that others choose go through internal/safehttp, " +
				"others through the exits of internal/layers",
		},
		{
			name: "a command dials",
			file: "cmd/identity/run.go", src: "package p\n\nimport \"net\"\n\nvar d net.Dialer\n",
			want: "cmd/identity/run.go: uses net.Dialer: connections to addresses that others choose go through internal/safehttp, " +
				"others through the exits of internal/layers",
		},
		{
			name: "the guard dials",
			file: "internal/safehttp/safehttp.go", src: "package p\n\nimport \"net\"\n\nvar d net.Dialer\n",
		},
		{
			name: "a test dials",
			file: "identity/homeserver/client_test.go", src: "package p\n\nimport \"net\"\n\nvar d net.Dialer\n",
		},
		{
			name: "the HTTP layer imports gin, its domain and the conventions",
			file: "push/httpapi/api.go",
			src:  source("github.com/gin-gonic/gin", herald+"push", herald+"internal/mxhttp", herald+"internal/ratelimit"),
		},
		{
			name: "the HTTP layer imports the store",
			file: "identity/httpapi/api.go", src: source(herald + "identity/sqlstore"),
			want: "identity/httpapi/api.go: identity/httpapi must not import identity/sqlstore",
		},
		{
			name: "a leaf imports another leaf",
			file: "internal/telemetry/log.go", src: source(herald + "internal/conf"),
		},
		{
			name: "a leaf imports a domain",
			file: "internal/mxhttp/engine.go", src: source(herald + "push"),
			want: "internal/mxhttp/engine.go: internal/mxhttp must not import push",
		},
		{
			name: "a leaf's test imports a domain",
			file: "internal/mxhttp/engine_test.go", src: source(herald + "push"),
			want: "internal/mxhttp/engine_test.go: internal/mxhttp must not import push",
		},
		{
			name: "a leaf with no business there imports gin",
			file: "internal/serve/run.go", src: source("github.com/gin-gonic/gin"),
			want: "internal/serve/run.go: imports github.com/gin-gonic/gin: gin belongs to internal/mxhttp, push/httpapi, identity/httpapi",
		},
		{
			name: "a command imports adapters and drivers",
			file: "cmd/pushgw/run.go", src: source(herald+"push/apns", herald+"push/redisstore", "github.com/redis/go-redis/v9"),
		},
		{
			name: "a command imports the other command",
			file: "cmd/pushgw/run.go", src: source(herald + "cmd/identity"),
			want: "cmd/pushgw/run.go: imports cmd/identity: nothing imports a command",
		},
		{
			name: "a command imports gin",
			file: "cmd/pushgw/run.go", src: source("github.com/gin-gonic/gin"),
			want: "cmd/pushgw/run.go: imports github.com/gin-gonic/gin: gin belongs to internal/mxhttp, push/httpapi, identity/httpapi",
		},
		{
			name: "a command imports a test-only package",
			file: "cmd/pushgw/dev.go", src: source(herald + "push/pushtest"),
			want: "cmd/pushgw/dev.go: imports push/pushtest, which only tests may import",
		},
		{
			name: "a command's test imports a test-only package",
			file: "cmd/pushgw/run_test.go", src: source(herald+"push/pushtest", "testing"),
		},
		{
			name: "an adapter imports a test-only package outside its tests",
			file: "identity/sqlstore/open.go", src: source(herald + "identity/storetest"),
			want: "identity/sqlstore/open.go: imports identity/storetest, which only tests may import",
		},
		{
			name: "a test-only package imports testing and its domain",
			file: "push/pushtest/apns.go", src: source("testing", "net/http/httptest", herald+"push"),
		},
		{
			name: "a test-only package imports an adapter",
			file: "push/pushtest/apns.go", src: source(herald + "push/apns"),
			want: "push/pushtest/apns.go: push/pushtest must not import push/apns",
		},
		{
			name: "code outside tests imports a test server",
			file: "cmd/identity/dev.go", src: source("net/http/httptest"),
			want: "cmd/identity/dev.go: imports net/http/httptest, which only tests may import",
		},
		{
			name: "a test imports its own package, neighbours of its service and a database",
			file: "identity/directory_test.go",
			src:  source(herald+"identity", herald+"identity/sqlstore", herald+"threepid/validation", "database/sql", "testing"),
		},
		{
			name: "a test imports the other service",
			file: "identity/directory_test.go", src: source(herald + "push/pushtest"),
			want: "identity/directory_test.go: identity must not import push/pushtest",
		},
		{
			name: "a test imports gin",
			file: "push/gateway_test.go", src: source("github.com/gin-gonic/gin"),
			want: "push/gateway_test.go: imports github.com/gin-gonic/gin: gin belongs to internal/mxhttp, push/httpapi, identity/httpapi",
		},
		{
			name: "a package that is not in the table",
			file: "internal/util/util.go", src: "package util\n",
			want: "internal/util/util.go: package internal/util is not in the table of internal/layers",
		},
		{
			name: "a Go file at the root of the module",
			file: "herald.go", src: "package herald\n",
			want: "herald.go: package . is not in the table of internal/layers",
		},
		{
			name: "an import of a package that is not in the table",
			file: "cmd/pushgw/run.go", src: source(herald + "internal/util"),
			want: "cmd/pushgw/run.go: imports internal/util, which is not in the table of internal/layers",
		},
		{
			name: "a wrong arrow behind a build constraint",
			file: "push/gateway_plan9.go", src: "//go:build ignore\n\n" + source(herald+"push/fcm"),
			want: "push/gateway_plan9.go: push must not import push/fcm",
		},
		{
			name: "folders the go command passes over",
			file: "push/testdata/wrong.go", src: source(herald + "push/fcm"),
		},
		{
			name: "a tool's folder with a leading dot",
			file: ".tools/mod/x.go", src: source(herald + "push/fcm"),
		},
		{
			name: "a source file at the limit",
			file: "push/gateway.go", src: "package push\n" + strings.Repeat("\n", 449),
		},
		{
			name: "a source file past the limit",
			file: "push/gateway.go", src: "package push\n" + strings.Repeat("\n", 450),
			want: "push/gateway.go: has 451 lines; 450 is the limit",
		},
		{
			name: "a test file past the limit",
			file: "push/gateway_test.go", src: "package push\n" + strings.Repeat("\n", 450),
		},
		{
			name: "a sleeping function",
			file: "push/gateway.go", src: "package push\n\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n",
			want: "push/gateway.go: uses time.Sleep: wait for an event, or select on a timer and ctx.Done()",
		},
		{
			name: "a sleeping test under another name of the package",
			file: "push/gateway_test.go", src: "package push\n\nimport clock \"time\"\n\nvar nap = clock.Sleep\n",
			want: "push/gateway_test.go: uses time.Sleep: wait for an event, or select on a timer and ctx.Done()",
		},
		{
			name: "a Sleep of something else",
			file: "push/gateway.go", src: "package push\n\nfunc f(time interface{ Sleep(int) }) { time.Sleep(1) }\n",
		},
		{
			name: "an init function",
			file: "push/gateway.go", src: "package push\n\nfunc init() {}\n",
			want: "push/gateway.go: declares an init function: call it from main, or build the value where it is used",
		},
		{
			name: "a method called init",
			file: "push/gateway.go", src: "package push\n\ntype T struct{}\n\nfunc (T) init() {}\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := layers.Check(fstest.MapFS{tt.file: {Data: []byte(tt.src)}})
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			if tt.want != "" {
				want = []string{tt.want}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheckReportsEveryFaultInFileOrder(t *testing.T) {
	t.Parallel()
	got, err := layers.Check(fstest.MapFS{
		"push/b.go":     {Data: []byte(source(herald+"push/fcm", herald+"push/apns"))},
		"push/a.go":     {Data: []byte(source(herald + "identity"))},
		"README.md":     {Data: []byte("not Go")},
		"cmd/x/main.go": {Data: []byte("package main\n\nfunc init() {}\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"cmd/x/main.go: declares an init function: call it from main, or build the value where it is used",
		"cmd/x/main.go: package cmd/x is not in the table of internal/layers",
		"push/a.go: push must not import identity",
		"push/b.go: push must not import push/fcm",
		"push/b.go: push must not import push/apns",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestCheckRefusesAFileThatDoesNotParse(t *testing.T) {
	t.Parallel()
	_, err := layers.Check(fstest.MapFS{"push/a.go": {Data: []byte("package push\n\nfunc {\n")}})
	if err == nil || !strings.Contains(err.Error(), "push/a.go") {
		t.Errorf("got error %v, want one that names push/a.go", err)
	}
}
