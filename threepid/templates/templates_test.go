package templates_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/threepid/templates"
)

type letter struct{ Name, Code string }

// kinds are a mail with HTML and a short message without.
func kinds() []templates.Kind {
	samples, shows := []any{letter{"Zoë", "12&34"}, letter{"", "5678"}}, []string{"Code"}
	return []templates.Kind{
		{Name: "letter", Subject: true, HTML: true, Samples: samples, Shows: shows},
		{Name: "note", Samples: samples, Shows: shows},
	}
}

func builtin() fstest.MapFS {
	return fstest.MapFS{
		"letter.en.txt":  {Data: []byte("Subject: Hello {{.Name}}\n\nin English {{.Code}}\n")},
		"letter.en.html": {Data: []byte(`<a href="/{{.Name}}">{{.Code}}</a>`)},
		"letter.de.txt":  {Data: []byte("Subject: Hallo\n\nauf Deutsch {{.Code}}\n")},
		"letter.de.html": {Data: []byte(`<p>{{.Code}}</p>`)},
		"note.en.txt":    {Data: []byte("{{.Code}} in English\n")},
		"note.de.txt":    {Data: []byte("{{.Code}} auf Deutsch\n")},
	}
}

// folder writes files, given by their paths.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func load(t *testing.T, dir, fallback string) (*templates.Set, []string) {
	t.Helper()
	set, warnings, err := templates.Load(templates.Source{Builtin: builtin(), Dir: dir, Language: fallback}, kinds()...)
	if err != nil {
		t.Fatal(err)
	}
	return set, warnings
}

func TestRender(t *testing.T) {
	t.Parallel()
	set, warnings := load(t, "", "en")
	if len(warnings) != 0 {
		t.Errorf("warnings %q", warnings)
	}
	got, err := set.Choose("letter", "", "").Render(letter{Name: `"><script>`, Code: "<b>"})
	want := templates.Message{
		Subject: `Hello "><script>`, Text: "in English <b>", HTML: `<a href="/%22%3e%3cscript%3e">&lt;b&gt;</a>`,
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	got, err = set.Choose("note", "", "").Render(letter{Code: "1"})
	if d := cmp.Diff(templates.Message{Text: "1 in English"}, got); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

func TestRenderingWithUnfitDataTellsNothingOfIt(t *testing.T) {
	t.Parallel()
	set, _ := load(t, "", "en")
	for name, data := range map[string]any{
		"a subject of two lines":  letter{Name: "secret\r\nBcc: x@example.org", Code: "1"},
		"a subject without end":   letter{Name: strings.Repeat("secret", 1000), Code: "1"},
		"data of another message": struct{ Secret string }{"secret"},
	} {
		_, err := set.Choose("letter", "", "").Render(data)
		if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "letter.en") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestChooseFollowsWhatAPersonReads(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ fallback, preferences, want string }{
		"no preference":                        {"en", "", "en"},
		"the other language":                   {"en", "de", "de"},
		"a regional form of it":                {"en", "de-AT", "de"},
		"a list in the order of its weights":   {"en", "en;q=0.3, de;q=0.9", "de"},
		"a list with something unknown first":  {"en", "fr, de;q=0.5", "de"},
		"only languages there are no words in": {"en", "fr, ja", "en"},
		"another default":                      {"de", "fr", "de"},
		"another default, and English":         {"de", "en-GB", "en"},
		"anything at all":                      {"de", "*", "de"},
		"nonsense":                             {"de", "!!,;q=", "de"},
		"a list without end":                   {"de", "en" + strings.Repeat(",fr", 100), "de"},
	} {
		set, _ := load(t, "", tc.fallback)
		if got := set.Choose("letter", "", tc.preferences).Language(); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestARelatedScriptIsNoSubstitute(t *testing.T) {
	t.Parallel()
	files := builtin()
	files["note.zh-Hant.txt"] = &fstest.MapFile{Data: []byte("{{.Code}} 繁體")}
	set, _, err := templates.Load(templates.Source{Builtin: files, Language: "en"}, kinds()...)
	if err != nil {
		t.Fatal(err)
	}
	for preferences, want := range map[string]string{"zh-TW": "zh-Hant", "zh-CN": "en"} {
		if got := set.Choose("note", "", preferences).Language(); got != want {
			t.Errorf("%s: %s, want %s", preferences, got, want)
		}
	}
}

func TestTheOperatorsWordsComeFirst(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		files              map[string]string
		brand, preferences string
		want               templates.Message
		warnings           []string
	}{
		"without any": {
			want: templates.Message{Text: "1 in English"},
		},
		"a file without a language hides all built-in languages": {
			files:       map[string]string{"note.txt": "own {{.Code}}"},
			preferences: "de", want: templates.Message{Text: "own 1"},
		},
		"a file with a language leaves the others": {
			files:       map[string]string{"note.en.txt": "own {{.Code}}"},
			preferences: "de", want: templates.Message{Text: "1 auf Deutsch"},
		},
		"a file with a language replaces that one": {
			files: map[string]string{"note.en.txt": "own {{.Code}}"},
			want:  templates.Message{Text: "own 1"},
		},
		"a new language": {
			files:       map[string]string{"note.fr.txt": "en français {{.Code}}"},
			preferences: "fr-CH", want: templates.Message{Text: "en français 1"},
		},
		"a brand's own": {
			files: map[string]string{"note.txt": "own {{.Code}}", "acme/note.txt": "Acme {{.Code}}"},
			brand: "acme", want: templates.Message{Text: "Acme 1"},
		},
		"a brand's own is not for others": {
			files: map[string]string{"note.txt": "own {{.Code}}", "acme/note.txt": "Acme {{.Code}}"},
			brand: "other", want: templates.Message{Text: "own 1"},
		},
		"a brand without words for this message": {
			files: map[string]string{"note.txt": "own {{.Code}}", "acme/letter.txt": "Subject: x\n\n{{.Code}}"},
			brand: "acme", want: templates.Message{Text: "own 1"},
			warnings: []string{"template acme/letter.txt has no .html beside it: this message is text only"},
		},
		"a brand's language beside the operator's": {
			files: map[string]string{"note.txt": "own {{.Code}}", "acme/note.de.txt": "Acme {{.Code}}"},
			brand: "acme", preferences: "de", want: templates.Message{Text: "Acme 1"},
		},
		"the name of a parent folder is no brand": {
			files: map[string]string{"acme/note.txt": "Acme {{.Code}}"},
			brand: "../acme", want: templates.Message{Text: "1 in English"},
		},
		"lines that end as in Windows": {
			files: map[string]string{"note.txt": "one\r\n{{.Code}}\r\n"},
			want:  templates.Message{Text: "one\n1"},
		},
		"files of tools and notes are left alone": {
			files: map[string]string{"README.md": "x", "..data/note.txt": "x", ".note.txt": "x"},
			want:  templates.Message{Text: "1 in English"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set, warnings := load(t, folder(t, tc.files), "en")
			got, err := set.Choose("note", tc.brand, tc.preferences).Render(letter{Code: "1"})
			if d := cmp.Diff(tc.want, got); err != nil || d != "" {
				t.Errorf("%v (-want +got):\n%s", err, d)
			}
			if d := cmp.Diff(tc.warnings, warnings); d != "" {
				t.Errorf("warnings (-want +got):\n%s", d)
			}
		})
	}
}

func TestATextWithoutHTMLIsTextOnly(t *testing.T) {
	t.Parallel()
	set, _ := load(t, folder(t, map[string]string{"letter.txt": "Subject: own\n\n{{.Code}}"}), "en")
	got, err := set.Choose("letter", "", "").Render(letter{Code: "1"})
	if d := cmp.Diff(templates.Message{Subject: "own", Text: "1"}, got); err != nil || d != "" {
		t.Errorf("%v: the built-in HTML says something else (-want +got):\n%s", err, d)
	}
}

func TestLoadNamesEveryFault(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		files    map[string]string
		fallback string
		want     []string
	}{
		"a file that belongs to no message": {
			files: map[string]string{"leter.txt": "x"}, want: []string{"leter.txt: no message has this name; there are: letter, note"},
		},
		"a file that belongs to no language": {
			files: map[string]string{"note.german.old.txt": "x"}, want: []string{`note.german.old.txt: "german.old" is not a BCP 47 tag`},
		},
		"two files for one language": {
			files: map[string]string{"note.txt": "{{.Code}}", "note.en.txt": "{{.Code}}"}, want: []string{"is for the same language"},
		},
		"HTML for a message that has none": {
			files: map[string]string{"note.html": "{{.Code}}"}, want: []string{"note.html: this message has no HTML"},
		},
		"HTML without its text": {
			files: map[string]string{"letter.de.html": "{{.Code}}"}, want: []string{"letter.de.html has no letter.de.txt beside it"},
		},
		"a text without a subject": {
			files: map[string]string{"letter.txt": "Hello\n\n{{.Code}}"}, want: []string{`letter.txt: must begin with a line "Subject: …"`},
		},
		"a subject without an empty line after it": {
			files: map[string]string{"letter.txt": "Subject: x\n{{.Code}}"}, want: []string{`letter.txt: must begin with a line "Subject: …"`},
		},
		"an empty subject": {
			files: map[string]string{"letter.txt": "Subject: {{.Name}}\n\n{{.Code}}"}, want: []string{"the subject must be one line"},
		},
		"a template that cannot be parsed": {
			files: map[string]string{"note.txt": "{{.Code}"}, want: []string{"template: note.txt:1: bad character"},
		},
		"a subject that cannot be parsed": {
			files: map[string]string{"letter.txt": "Subject: {{\n\n{{.Code}}"}, want: []string{"letter.txt (subject):1"},
		},
		"HTML that cannot be escaped": {
			files: map[string]string{"letter.txt": "Subject: x\n\n{{.Code}}", "letter.html": "<a href='{{.Code}}"}, want: []string{"letter.html"},
		},
		"a field there is not, in a branch of one sample": {
			files: map[string]string{"note.txt": "{{.Code}}{{if .Name}}{{.Nmae}}{{end}}"}, want: []string{"note.txt: there is no {{.Nmae}}, but {{.Name}} {{.Code}}"},
		},
		"a text that does not show the code": {
			files: map[string]string{"note.txt": "hello"}, want: []string{"note.txt: must show {{.Code}}"},
		},
		"HTML that does not show the code": {
			files: map[string]string{"letter.txt": "Subject: x\n\n{{.Code}}", "letter.html": "hello"}, want: []string{"letter.html: must show {{.Code}}"},
		},
		"a file that is too large": {
			files: map[string]string{"note.txt": "{{.Code}}" + strings.Repeat("x", 100<<10)}, want: []string{"note.txt: is larger than 102400 bytes"},
		},
		"a file that is not UTF-8": {
			files: map[string]string{"note.txt": "{{.Code}}\xff"}, want: []string{"note.txt: is not UTF-8"},
		},
		"a brand that nobody can ask for": {
			files: map[string]string{"a b/note.txt": "{{.Code}}"}, want: []string{`folder "a b": a brand's name`},
		},
		"several faults, of files and within one": {
			files: map[string]string{
				"note.txt": "hello", "acme/note.txt": "{{", "letter.de.txt": "Subject: {{.Nmae}}\n\n{{.Code}} {{if .Cod}}{{end}}",
				"letter.txt": "Subject: x\n\nhello", "letter.html": "<p>hello",
			},
			want: []string{
				"template note.txt: must show {{.Code}}", "acme/note.txt:1", "letter.de.txt: there is no {{.Nmae}}", "letter.de.txt: there is no {{.Cod}}",
				"letter.txt: must show {{.Code}}", "letter.html: must show {{.Code}}",
			},
		},
		"a default language nobody knows":       {fallback: "english please", want: []string{`"english please" is not a BCP 47 tag`}},
		"a default language without a template": {fallback: "fr", want: []string{"letter.txt is missing, in the default language fr", "note.txt is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.fallback == "" {
				tc.fallback = "en"
			}
			_, _, err := templates.Load(templates.Source{Builtin: builtin(), Dir: folder(t, tc.files), Language: tc.fallback}, kinds()...)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tc.want {
				if strings.Count(err.Error(), want) != 1 {
					t.Errorf("not once %q in: %v", want, err)
				}
			}
		})
	}
}

func TestAFolderThatIsNotThere(t *testing.T) {
	t.Parallel()
	_, _, err := templates.Load(templates.Source{Builtin: builtin(), Dir: filepath.Join(t.TempDir(), "x"), Language: "en"}, kinds()...)
	if err == nil {
		t.Error("no error")
	}
}

// Conformance (homeservers): language: the first of `Accept-Language` that there are words in, then the homeserver's, then the default | in mails and text messages (also TestHomeserversAreToldApart)
func TestPrefer(t *testing.T) {
	t.Parallel()
	set, _ := load(t, "", "en")
	for name, c := range map[string]struct{ preferences, fallback, want string }{
		"nobody prefers anything":               {"", "", "en"},
		"a fallback alone":                      {"", "de", "de"},
		"a preference that there is":            {"en", "de", "en"},
		"a preference that there is, by little": {"fr, en;q=0.002", "de", "en"},
		"a preference that there is not":        {"fr", "de", "de"},
		"several that there are not":            {"fr-CA, nl;q=0.5", "de", "de"},
		"anything":                              {"*", "de", "de"},
		"a preference before the fallback's":    {"en-GB, de;q=0.1", "de", "en"},
		"a kind of the fallback":                {"de-AT, en;q=0.1", "de", "de"},
		"a preference without a fallback":       {"de", "", "de"},
		"a fallback that there is not":          {"fr", "nl", "en"},
		"preferences that are no list":          {"english please;;", "de", "de"},
		"preferences without end":               {strings.Repeat("fr, ", 80) + "en", "de", "de"},
		"preferences with hardly an end":        {strings.Repeat("fr, ", 61) + "en", "de", "en"},
	} {
		if got := set.Choose("note", "", templates.Prefer(c.preferences, c.fallback)).Language(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ in, want string }{
		"plain text":                            {"Zoë 1", "Zoë 1"},
		"line breaks":                           {"a\r\nb\u2028c\u0085d", "abcd"},
		"a change of direction":                 {"a\u202eb\u2066c", "abc"},
		"invisible characters":                  {"a\u200bb\ufeffc\x00\x7f", "abc"},
		"bytes that are no text":                {"a\xffb", "a\uFFFDb"},
		"text of the full length":               {"1234567890", "1234567890"},
		"text that is too long":                 {"12345678901", "123456789…"},
		"text that is too long, beyond English": {strings.Repeat("é", 11), strings.Repeat("é", 9) + "…"},
	} {
		if got := templates.Clean(tc.in, 10); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// Conformance (invites): names of rooms and people in mails, on pages and in links to clients | one cleaning: short, no invisible characters, nothing that turns text round, nothing that becomes a link; a telephone number is left out (also TestStrangersWordsInInvitations, TestStrangersWordsOnThePageOfAnInvite)
// Conformance (attacks): a room called "Security alert … call +1 900 …", or with text that turns round, in an invite | one cleaning for mails, pages and links to clients (also TestStrangersWordsInInvitations, TestStrangersWordsOnThePageOfAnInvite)
func TestName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"  Zoë & Bob ":                      "Zoë & Bob",
		"St. Mary":                          "St.\u2060 Mary",
		"a.example/b:c@d":                   "a.\u2060example/\u2060b:\u2060c@\u2060d",
		"Call +1 900 555-0199!":             "Call …!",
		"0900/5 123 456 or else":            "… or else",
		"(0900) 5123456":                    "(…",
		"Season 2025/2026":                  "Season 2025/\u20602026",
		"Trip 2026-10-12":                   "Trip 2026-10-12",
		"1\u202e9005550199":                 "…",
		"123456789012345678901234567890123": "…",
	} {
		if got := templates.Name(in, templates.MaxRoom); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := templates.Name("Security alert: your account is locked", templates.MaxRoom); got != "Security alert:\u2060 your account …" {
		t.Errorf("%q", got)
	}
	for in, want := range map[string]string{
		"שלום!":         "\u2068שלום!\u2069",
		"سلام 1":        "\u2068سلام 1\u2069",
		"שלום\u2069 x":  "\u2068שלום x\u2069",
		"\u00a0 \u2009": "",
	} {
		if got := templates.Name(in, templates.MaxRoom); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\r\nBcc: x\u202e\xff", 5)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = limit&0xff + 1
		got := templates.Clean(s, limit)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > limit || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("%q", got)
		}
	})
}

func FuzzChoose(f *testing.F) {
	set, _, err := templates.Load(templates.Source{Builtin: builtin(), Language: "en"}, kinds()...)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", "de", "de-AT, en;q=0.1", "*", "x-klingon", "i-default", "de-u-co-phonebk;q=1.0000"} {
		f.Add("", s)
		f.Add("../acme", s)
	}
	f.Fuzz(func(t *testing.T, brand, preferences string) {
		if _, err := set.Choose("letter", brand, preferences).Render(letter{Code: "1"}); err != nil {
			t.Error(err)
		}
		// Whatever somebody prefers, the fallback goes before the default language.
		if set.Choose("letter", brand, preferences).Language() == "de" && set.Choose("letter", brand, templates.Prefer(preferences, "de")).Language() != "de" {
			t.Errorf("%q with a fallback is not in German", preferences)
		}
	})
}
