// Package templates owns the texts of messages to people: it finds the templates
// of a brand and a language, checks them when the program starts, and renders
// them. It does not know what a message is about or how it travels.
//
// A template is a file NAME.txt, or NAME.LANGUAGE.txt with a BCP 47 tag
// ("verification.de.txt"); a file of the same name ending in .html is its other
// half. Files are looked for in the brand's folder, in the operator's folder
// and among the built-in ones, in this order, language by language. A file
// without a language hides the files of later places in every language, so that
// nobody gets some mails in the operator's words and some in the built-in ones.
package templates

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/language"
	"golang.org/x/text/unicode/bidi"
)

// maxPreferences bounds a list of preferred languages, in bytes. More is read
// as none.
const maxPreferences = 256

// Source says where templates are.
type Source struct {
	// Builtin holds the templates that apply where Dir has none.
	Builtin fs.FS
	// Dir is the operator's folder, with a folder for each brand that has words of
	// its own; "" for none.
	Dir string
	// Language is the BCP 47 tag of files without one, and what people get whose
	// languages there are no words in.
	Language string
}

// Kind is one message to be worded.
type Kind struct {
	// Name begins the names of its files.
	Name string
	// Subject says that a text begins with a line "Subject: …" and an empty one.
	Subject bool
	// HTML says that a text may have another half in HTML.
	HTML bool
	// Samples are rendered with every template when it is loaded: structs of one
	// type. Together they fill each member, and leave empty each that may be.
	Samples []any
	// Shows names members, texts, that every half of the message must contain, such
	// as the code it is all about.
	Shows []string
}

// Set holds the templates of a program. It is safe for concurrent use.
type Set struct {
	choices map[choice]*selection
}

type choice struct{ kind, brand string }

// selection is one kind in the words of one brand.
type selection struct {
	matcher   language.Matcher
	templates []*Template // in the matcher's order, the default language first
}

// Load reads, parses and tries all templates. The error lists every fault. The
// warnings name what works but may not be meant.
func Load(src Source, kinds ...Kind) (set *Set, warnings []string, err error) {
	fallback, err := language.Parse(src.Language)
	if err != nil {
		return nil, nil, fmt.Errorf("default language: %q is not a BCP 47 tag, such as en or pt-BR", src.Language)
	}
	l := loader{dir: src.Dir, fallback: fallback, kinds: kinds, parsed: make(map[*file]*Template)}
	layers := []layer{l.read(src.Builtin, ".", "built-in ")}
	brands := map[string]layer{"": nil}
	if src.Dir != "" {
		dir := os.DirFS(src.Dir)
		layers = append([]layer{l.read(dir, ".", "")}, layers...)
		for _, name := range l.folders(dir) {
			brands[name] = l.read(dir, name, "")
		}
	}
	set = &Set{choices: make(map[choice]*selection)}
	for _, brand := range slices.Sorted(maps.Keys(brands)) {
		for _, k := range kinds {
			set.choices[choice{k.Name, brand}] = l.assemble(k, append([]layer{brands[brand]}, layers...))
		}
	}
	if err := errors.Join(l.faults...); err != nil {
		return nil, nil, err
	}
	return set, l.warnings, nil
}

// Choose returns the template of a kind for a brand, and for a person's
// languages: a BCP 47 tag or an Accept-Language list, or several on a line each
// (Prefer). The first line counts that there are words for. Brands without words of
// their own, and lists that are none, get the default ones. The kind must be one
// the set was loaded with.
func (s *Set) Choose(kind, brand, preferences string) *Template {
	sel := s.choices[choice{kind, brand}]
	if sel == nil {
		sel = s.choices[choice{kind, ""}]
	}
	for list := range strings.SplitSeq(preferences, "\n") {
		if i, ok := sel.match(list); ok {
			return sel.templates[i]
		}
	}
	return sel.templates[0]
}

// match returns the index of the template for a list of languages.
func (s *selection) match(list string) (int, bool) {
	if len(list) > maxPreferences {
		return 0, false
	}
	wanted, _, err := language.ParseAcceptLanguage(list)
	if err != nil {
		return 0, false
	}
	// The matcher would rather answer in some related script or language than in
	// the default one.
	_, i, confidence := s.matcher.Match(wanted...)
	return i, confidence >= language.High
}

// Prefer returns preferences for Choose with others behind them, for somebody who
// would rather read those than the default language. They are not one list: the
// matcher ranks tags of one language together.
func Prefer(preferences, fallback string) string {
	if preferences == "" || fallback == "" {
		return preferences + fallback
	}
	return preferences + "\n" + fallback
}

// Clean returns s as it may be shown inside a message: on one line, without
// characters that are invisible or change the direction of the text, and cut to
// limit characters.
func Clean(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return s
}

// Limits of strangers' words, in characters: there is room for a name and not for a
// message.
const (
	MaxInviter = 20
	MaxRoom    = 30
)

// telephone matches what telephones make a number to call of. Dates and years have
// fewer digits.
var telephone = regexp.MustCompile(`\+?\d(?:[\s().+/\x{2010}-\x{2015}-]*\d){8,}`)

// Name returns what strangers call themselves or a room as mails and pages show it.
// Programs make links of whatever looks like one, so that a name could lead
// anywhere: what it would take to look like one is taken apart, and a telephone
// number is left out.
func Name(s string, limit int) string {
	const joiner = "\u2060" // has no width, and no line is broken there
	s = telephone.ReplaceAllString(Clean(s, math.MaxInt), "…")
	s = Clean(strings.TrimSpace(s), limit)
	return isolate(strings.NewReplacer(".", "."+joiner, "/", "/"+joiner, ":", ":"+joiner, "@", "@"+joiner).Replace(s))
}

// UserID returns a Matrix ID as mails and pages show it: whole, with nothing inside,
// so that it can be copied.
func UserID(id string) string { return isolate(Clean(id, maxUserID)) }

// maxUserID is the longest Matrix ID.
const maxUserID = 255

// isolate sets s apart from the text around it if it has letters that are written
// from right to left, which would else move what stands beside it.
func isolate(s string) string {
	if !strings.ContainsFunc(s, fromRight) {
		return s
	}
	return "\u2068" + s + "\u2069"
}

func fromRight(r rune) bool {
	p, _ := bidi.LookupRune(r)
	class := p.Class()
	return class == bidi.R || class == bidi.AL || class == bidi.AN
}
