package sygnal

import (
	"fmt"
	"regexp"
)

// section is a mapping of the file that is read. It remembers which of its
// members were asked for, so that the others can be reported.
type section struct {
	path  string
	obj   *object
	asked map[string]bool
	warn  func(path, text string)
}

// has reports whether there is a member that is not null.
func (s *section) has(name string) bool {
	s.asked[name] = true
	return s.obj.values[name] != nil
}

// text returns a member that is a text, "" when there is none.
func (s *section) text(name string) string {
	if !s.has(name) {
		return ""
	}
	v, ok := text(s.obj.values[name])
	if !ok {
		s.warn(join(s.path, name), "is not a text; left out")
	}
	return v
}

// bool returns a member that is a boolean, and whether there is one.
func (s *section) bool(name string) (value, there bool) {
	if !s.has(name) {
		return false, false
	}
	value, there = s.obj.values[name].(bool)
	if !there {
		s.warn(join(s.path, name), "is neither true nor false; left out")
	}
	return value, there
}

// integer returns a member that is a whole number from low to high, and whether
// there is one.
func (s *section) integer(name string, low, high int64) (value int64, there bool) {
	if !s.has(name) {
		return 0, false
	}
	value, ok := integer(s.obj.values[name])
	if !ok || value < low || value > high {
		s.warn(join(s.path, name), fmt.Sprintf("is not a whole number from %d to %d; left out", low, high))
		return 0, false
	}
	return value, true
}

// section returns a member that is a mapping, an empty one when there is none.
func (s *section) section(name string) *section {
	sub := &section{path: join(s.path, name), obj: new(object), asked: make(map[string]bool), warn: s.warn}
	if !s.has(name) {
		return sub
	}
	if o, ok := s.obj.values[name].(*object); ok {
		sub.obj = o
	} else {
		s.warn(sub.path, "is not a mapping; left out")
	}
	return sub
}

// ignore says that members mean nothing to Herald.
func (s *section) ignore(names ...string) {
	for _, name := range names {
		s.asked[name] = true
	}
}

// done reports the members nobody asked for.
func (s *section) done() {
	for _, name := range s.obj.keys {
		if !s.asked[name] {
			s.warn(join(s.path, name), "is no option of Sygnal's; left out")
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return shown(name)
	}
	return path + "." + shown(name)
}

var nameLike = regexp.MustCompile(`^[A-Za-z0-9._:*?-]{1,64}$`)

// shown is a name of the file as a message may show it: with a colon out of
// place a secret becomes a name.
func shown(name string) string {
	if !nameLike.MatchString(name) {
		return "(a name)"
	}
	return name
}
