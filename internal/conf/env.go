package conf

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// envName returns the variable that overrides option name below prefix.
func envName(prefix, name string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// overrideFields applies the environment to a struct and reports whether any
// variable was set.
func (l *loader) overrideFields(v reflect.Value, prefix, path string) (set bool) {
	for _, f := range fieldsOf(v) {
		if !f.expand && !f.inFile && l.override(v.FieldByIndex(f.index), envName(prefix, f.name), join(path, f.name)) {
			set = true
		}
	}
	return set
}

func (l *loader) override(v reflect.Value, name, path string) (set bool) {
	switch t := v.Type(); {
	case t.Kind() == reflect.Pointer && v.IsNil():
		// An optional section comes into being when a variable sets a part of it.
		fresh := reflect.New(t.Elem())
		if set = l.override(fresh.Elem(), name, path); set {
			v.Set(fresh)
		}
		return set
	case t.Kind() == reflect.Pointer:
		return l.override(v.Elem(), name, path)
	case isScalar(t):
		return l.overrideValue(v, name, path, setText)
	case isScalarList(t):
		return l.overrideValue(v, name, path, setList)
	case t.Kind() == reflect.Struct:
		return l.overrideFields(v, name+"_", path)
	default:
		return false
	}
}

func (l *loader) overrideValue(v reflect.Value, name, path string, setter func(reflect.Value, string) string) (set bool) {
	l.known[name] = true
	text, set := l.LookupEnv(name)
	if !set {
		return false
	}
	l.problems.where[path] = name
	if remedy := setter(v, text); remedy != "" {
		l.problems.Add(name, nil, remedy)
	}
	return true
}

// serviceLink matches what follows the prefix in variables that Kubernetes sets
// for a Service of the program's name, such as PUSHGW_SERVICE_HOST and
// PUSHGW_PORT_5000_TCP_ADDR. https://kubernetes.io/docs/concepts/containers/container-environment/
var serviceLink = regexp.MustCompile(`^(SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// checkEnviron reports variables that look like overrides and are none.
func (l *loader) checkEnviron() {
	var foreign []string
	for _, entry := range slices.Sorted(slices.Values(l.Environ)) {
		name, _, _ := strings.Cut(entry, "=")
		rest, prefixed := strings.CutPrefix(name, l.EnvPrefix)
		if !prefixed || l.known[name] || serviceLink.MatchString(rest) {
			continue
		}
		if what := l.goneVariable(name); what != "" {
			l.problems.Add(name, nil, what)
		} else if near := l.nearest(name); near != "" {
			l.problems.Add(name, nil, "names no option: did you mean "+near+"? Correct the variable's name or unset it")
		} else {
			foreign = append(foreign, name)
		}
	}
	if len(foreign) > 0 && l.Warn != nil {
		l.Warn("environment variables that begin with " + l.EnvPrefix + " and name no option are ignored: " + strings.Join(foreign, ", "))
	}
}

// goneVariable says what became of the option that a variable sets.
func (l *loader) goneVariable(name string) string {
	for path, what := range l.Gone {
		gone := envName(l.EnvPrefix, strings.ReplaceAll(strings.TrimSuffix(path, ".*"), ".", "_"))
		if name == gone || strings.HasPrefix(name, gone+"_") {
			return what
		}
	}
	return ""
}

// nearest returns the variable of an option that name is a misspelling of: up to
// one letter in five is wrong, or the last word is cut short.
func (l *loader) nearest(name string) string {
	best, distance := "", len(name)
	for _, known := range slices.Sorted(maps.Keys(l.known)) {
		if !strings.HasPrefix(known, l.EnvPrefix) {
			continue
		}
		d := editDistance(name, known)
		if cut, short := strings.CutPrefix(known, name); short && !strings.Contains(cut, "_") {
			d = 1
		}
		if most := min((len(name)-len(l.EnvPrefix))/5, 3); d <= max(most, 1) && d < distance {
			best, distance = known, d
		}
	}
	return best
}

// editDistance counts the letters to add, remove or change to make b of a.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// expandVariables replaces ${NAME} in text and turns $${ into ${. It returns a
// remedy for each variable that is not set.
func (l *loader) expandVariables(text string) (expanded string, faults []string) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "${")
		if !found {
			b.WriteString(text)
			return b.String(), faults
		}
		if escaped, ok := strings.CutSuffix(before, "$"); ok {
			b.WriteString(escaped + "${")
			text = after
			continue
		}
		name, rest, closed := strings.Cut(after, "}")
		if !closed || !isVariable(name) {
			return "", append(faults, `"${" begins the name of an environment variable, as in ${NAME}: correct it, or write "$${" for the characters themselves`)
		}
		l.known[name] = true // it may begin with the prefix and yet be no option
		value, set := l.LookupEnv(name)
		if !set {
			faults = append(faults, "the environment variable "+name+" is not set")
		}
		b.WriteString(before + value)
		text = rest
	}
}

// isVariable says whether name is one a shell could set.
func isVariable(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
