package conf

import (
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
func (l *loader) overrideFields(v reflect.Value, prefix string) (set bool) {
	for _, f := range fieldsOf(v) {
		if !f.expand && l.override(v.FieldByIndex(f.index), envName(prefix, f.name)) {
			set = true
		}
	}
	return set
}

func (l *loader) override(v reflect.Value, name string) (set bool) {
	switch t := v.Type(); {
	case t.Kind() == reflect.Pointer && v.IsNil():
		// An optional section comes into being when a variable sets a part of it.
		fresh := reflect.New(t.Elem())
		if set = l.override(fresh.Elem(), name); set {
			v.Set(fresh)
		}
		return set
	case t.Kind() == reflect.Pointer:
		return l.override(v.Elem(), name)
	case isScalar(t):
		return l.overrideValue(v, name, setText)
	case isScalarList(t):
		return l.overrideValue(v, name, setList)
	case t.Kind() == reflect.Struct:
		return l.overrideFields(v, name+"_")
	default:
		return false
	}
}

func (l *loader) overrideValue(v reflect.Value, name string, setter func(reflect.Value, string) string) (set bool) {
	l.known[name] = true
	text, set := l.LookupEnv(name)
	if !set {
		return false
	}
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
	for _, entry := range slices.Sorted(slices.Values(l.Environ)) {
		name, _, _ := strings.Cut(entry, "=")
		rest, prefixed := strings.CutPrefix(name, l.EnvPrefix)
		if prefixed && !l.known[name] && !serviceLink.MatchString(rest) && !slices.Contains(l.IgnoreEnv, name) {
			l.problems.Add(name, nil, "names no option: correct the variable's name or unset it")
		}
	}
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
