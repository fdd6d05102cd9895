package main

import (
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
)

// sydentSeed is the secret half of sydentPublic.
const (
	sydentSeed   = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"
	sydentPublic = "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI"
	sydentPepper = "kX9aQ"
)

// mailedSeed is the secret half of mailedPublic, the key in an invite's mail.
const (
	mailedSeed   = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	mailedPublic = "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik"
)

// newSydent makes a folder with what a Sydent leaves behind, and a configuration
// of ours beside it.
func newSydent(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	writeFile(t, filepath.Join(dir, "sydent.conf"),
		"[general]\nserver.name = id.example.org\n\n[crypto]\ned25519.signingkey = ed25519 0 "+sydentSeed+"\n")
	writeFile(t, filepath.Join(dir, "identity.yaml"),
		"server_name: id.example.org\npublic_base_url: https://id.example.org\ndata_dir: data\n")
	schema, err := os.ReadFile("../../identity/sydent/testdata/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "sydent.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	made := time.Now().Add(-time.Hour).UnixMilli()
	for _, statement := range []string{
		string(schema),
		`INSERT INTO hashing_metadata (id, lookup_pepper) VALUES (0, '` + sydentPepper + `')`,
		fmt.Sprintf(`INSERT INTO global_threepid_associations
			(medium, address, mxid, ts, notBefore, notAfter, originServer, originId, sgAssoc)
			VALUES ('email', 'Alice@example.com', '@alice:example.org', %d, %d, %d, 'id.example.org', 1, '')`, made, made, 2*made),
		fmt.Sprintf(`INSERT INTO accounts (user_id, created_ts) VALUES ('@alice:example.org', %d)`, made),
		`INSERT INTO tokens (token, user_id) VALUES ('aliceToken', '@alice:example.org')`,
		fmt.Sprintf(`INSERT INTO invite_tokens (medium, address, room_id, sender, token, received_ts) VALUES
			('email', 'bob@example.com', '!r:example.org', '@alice:example.org', 'x', %d)`, made/1000),
		fmt.Sprintf(`INSERT INTO ephemeral_public_keys (public_key, persistence_ts) VALUES ('%s', %d)`, mailedPublic, made/1000),
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// importSydent runs the command in a folder of newSydent's.
func importSydent(t *testing.T, dir string, more ...string) (code int, stdout, stderr string) {
	t.Helper()
	return command(t, nil, append([]string{
		"-config", filepath.Join(dir, "identity.yaml"), "import-sydent",
		"-db", filepath.Join(dir, "sydent.db"), "-conf", filepath.Join(dir, "sydent.conf"),
	}, more...)...)
}

// Conformance (invites): invites that Sydent mailed | their links and keys go on, by version 1; they have no page here, because any key of Sydent's would open it (also TestImportedInviteIsAcceptedAndDelivered, TestLinksOfFormerServers)
func TestUsersOfASydentNoticeNothing(t *testing.T) {
	t.Parallel()
	dir := newSydent(t)
	code, stdout, stderr := importSydent(t, dir, "-dry-run")
	if code != 0 || !strings.HasPrefix(stdout, "Nothing is changed. ") || !strings.Contains(stdout, "bindings                 1 read, 1 brought over\n") {
		t.Errorf("dry run: exit status %d, %q, %s", code, stdout, stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Error("the dry run made a data folder")
	}
	code, stdout, stderr = importSydent(t, dir)
	if code != 0 || stderr != "" {
		t.Fatalf("exit status %d, %s", code, stderr)
	}
	for _, want := range []string{
		"signing key              ed25519:0\n", "lookup pepper            1 read, 1 brought over\n",
		"bindings                 1 read, 1 brought over\n", "access tokens            1 read, 1 brought over\n",
		"pending invites          1 read, 1 brought over\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the report lacks %q:\n%s", want, stdout)
		}
	}
	if strings.Contains(stdout, "alice") || strings.Contains(stdout, "example.com") {
		t.Errorf("the report shows who was imported:\n%s", stdout)
	}

	s := startHere(t, ephemeral("IDENTITY_HTTP_TEST_DRAIN_DELAY=0s"), "-config", filepath.Join(dir, "identity.yaml"))
	c := client{base: s.API, token: "aliceToken"}
	if got := c.get(t, "/account")["user_id"]; got != "@alice:example.org" {
		t.Errorf("the token is %v's", got)
	}
	if got := c.get(t, "/hash_details")["lookup_pepper"]; got != sydentPepper {
		t.Errorf("the pepper is %v", got)
	}
	if hashed, plain := c.lookup(t, "alice@example.com"); hashed != "@alice:example.org" || plain != "@alice:example.org" {
		t.Errorf("the address is %v's and %v's", hashed, plain)
	}
	if got := c.get(t, "/pubkey/ed25519:0")["public_key"]; got != sydentPublic {
		t.Errorf("the key is %v", got)
	}
	// What the room holds, and where the client posts to that the mail led to.
	const v1 = "/_matrix/identity/api/v1/"
	for _, path := range []string{
		"pubkey/isvalid?public_key=" + sydentPublic, "pubkey/ephemeral/isvalid?public_key=" + mailedPublic,
	} {
		if status, answer := fetch(t, s.API+v1+path); answer != `{"valid":true}` {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	signURL := s.API + v1 + "sign-ed25519?token=x&private_key=" + mailedSeed + "&mxid=%40bob%3Aexample.org"
	if status, signed := send(t, http.MethodPost, signURL, "", ""); status != http.StatusOK || member(t, signed, "sender") != "@alice:example.org" {
		t.Errorf("signurl: %d %s", status, signed)
	}
	s.Stop()

	if code, stdout, stderr = importSydent(t, dir); code != 0 || !strings.Contains(stdout, "came to its end before") {
		t.Errorf("a second import: exit status %d, %s%s", code, stdout, stderr)
	}
}

func TestImportOfASydentThatIsRefusedLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(t *testing.T, dir string)
		args   []string
		code   int
		want   string
	}{
		"dry without database":  {args: []string{"-db", "", "-dry-run"}, code: 2, want: "usage: identity -config FILE import-sydent"},
		"without its settings":  {args: []string{"-conf", ""}, code: 2, want: "usage: identity -config FILE import-sydent"},
		"with a word too many":  {args: []string{"now"}, code: 2, want: "usage: identity -config FILE import-sydent"},
		"with an unknown flag":  {args: []string{"-x"}, code: 2, want: "usage: identity -config FILE import-sydent"},
		"asked for its flags":   {args: []string{"-help"}, want: "-dry-run"},
		"from a missing file":   {args: []string{"-db", "nowhere.db"}, code: 1, want: "nowhere.db: no such file"},
		"with missing settings": {args: []string{"-conf", "nowhere.conf"}, code: 1, want: "nowhere.conf: no such file"},
		"with a faulty file":    {args: []string{"-db", "importsydent_test.go"}, code: 1, want: "it is damaged, or not a SQLite database"},
		"with faulty settings":  {args: []string{"-conf", "importsydent_test.go"}, code: 1, want: "line 1: an option before the first section"},
		"into another's service": {
			change: func(t *testing.T, dir string) {
				writeFile(t, filepath.Join(dir, "identity.yaml"),
					"server_name: other.example.org\npublic_base_url: https://other.example.org\ndata_dir: data\n")
			},
			code: 1, want: `general.server.name is "id.example.org" and not "other.example.org"`,
		},
		"with a faulty configuration": {
			change: func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, "identity.yaml"), "no_option: 1\n") },
			code:   1, want: "no_option",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newSydent(t)
			if tt.change != nil {
				tt.change(t, dir)
			}
			code, stdout, stderr := importSydent(t, dir, tt.args...)
			if code != tt.code || stdout != "" || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit status %d, want %d; standard output %q; standard error lacks %q:\n%s", code, tt.code, stdout, tt.want, stderr)
			}
			if strings.Contains(stderr, sydentSeed) {
				t.Error("standard error shows the key")
			}
			if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
				t.Error("a data folder was made")
			}
		})
	}
}

// TestTheConfigurationOfASydentIsConverted prints it, and checks it as it is.
func TestTheConfigurationOfASydentIsConverted(t *testing.T) {
	t.Parallel()
	code, made, warnings := command(t, nil, "import-sydent", "-conf", "../../identity/sydent/testdata/convert/full.conf")
	if code != 0 || !strings.Contains(warnings, "warning: terms.path: ") || strings.Contains(warnings, "needs to be corrected") {
		t.Errorf("exit status %d:\n%s", code, warnings)
	}
	file := writeFile(t, filepath.Join(t.TempDir(), "identity.yaml"), made)
	if code, out, errs := command(t, nil, "-config", file, "-check"); code != 0 || !strings.Contains(out, "The configuration is good: id.example.org at https://id.example.org.") {
		t.Errorf("exit status %d:\n%s%s", code, out, errs)
	}
	code, _, warnings = command(t, nil, "import-sydent", "-conf", "../../identity/sydent/testdata/convert/least.conf")
	if code != 0 || !strings.Contains(warnings, "needs to be corrected") || !strings.Contains(warnings, "email.from") {
		t.Errorf("without a sender: exit status %d:\n%s", code, warnings)
	}
}

// A service that was started under the same name has made a key of its own.
func TestImportMakesSydentsKeyTheOneThatSigns(t *testing.T) {
	t.Parallel()
	dir := newSydent(t)
	config := filepath.Join(dir, "identity.yaml")
	s := startHere(t, ephemeral("IDENTITY_HTTP_TEST_DRAIN_DELAY=0s"), "-config", config)
	if status, _ := fetch(t, s.API+"/_matrix/identity/v2/pubkey/isvalid?public_key="+sydentPublic); status != http.StatusOK {
		t.Errorf("isvalid: %d", status)
	}
	s.Stop()
	if code, _, stderr := importSydent(t, dir); code != 0 {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	keys, err := os.ReadFile(filepath.Join(dir, "data", "signing.keys"))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(keys); !strings.Contains(text, "\nactive ed25519 0 "+sydentSeed[:42]) || strings.Count(text, "\nretired ") != 1 {
		t.Error("the keys are not Sydent's, active, and one that is retired")
	}
	s = startHere(t, ephemeral("IDENTITY_HTTP_TEST_DRAIN_DELAY=0s"), "-config", config)
	if _, body := fetch(t, s.API+"/_matrix/identity/v2/pubkey/isvalid?public_key="+sydentPublic); !strings.Contains(body, "true") {
		t.Errorf("Sydent's key: %s", body)
	}
}

// TestMigrationPageNamesOptionsThatExist looks at the last column of the page's
// tables, which is about identity.
func TestMigrationPageNamesOptionsThatExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/migrating-from-sydent.md")
	if err != nil {
		t.Fatal(err)
	}
	options, sections := make(map[string]bool), make(map[string]bool)
	for _, o := range conf.Options(defaultConfig(), envPrefix) {
		options[o.File] = true
		for path := o.Path; path != ""; path = path[:max(0, strings.LastIndexByte(path, '.'))] {
			options[path] = true
		}
		section, _, _ := strings.Cut(o.Path, ".")
		sections[section] = true
	}
	named := 0
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 4 {
			continue
		}
		for _, name := range regexp.MustCompile("`([a-z_]+(?:\\.[a-z_]+)+)`").FindAllStringSubmatch(cells[len(cells)-2], -1) {
			if section, _, _ := strings.Cut(name[1], "."); !sections[section] {
				continue
			}
			if named++; !options[name[1]] {
				t.Errorf("the page names %s, which is no option", name[1])
			}
		}
	}
	if named < 15 {
		t.Errorf("only %d options were found on the page", named)
	}
}
