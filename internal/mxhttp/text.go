package mxhttp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"unicode/utf8"
)

const (
	// maxDepth is how deep arrays and objects may nest, the outermost object
	// counting as one.
	maxDepth = 64
	// readAhead is the most memory a declared Content-Length reserves before
	// any of the body has arrived.
	readAhead = 4 << 10
)

// readText reads the body of r, which has at most limit bytes and is checked like
// checkText does. It looks at what has arrived before it reads on, so that a list
// with more than shape's most items, or an object with more members, takes no more
// memory than that.
func readText(w http.ResponseWriter, r *http.Request, limit int64, shape shape) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, errTooLarge(limit)
	}
	body := http.MaxBytesReader(w, r.Body, limit)
	data := make([]byte, 0, min(max(r.ContentLength, 0), readAhead)+bytes.MinRead)
	for {
		n, err := body.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if fault := shape.follow(data); fault != nil {
			return nil, fault
		}
		if err == io.EOF {
			return data, checkUTF8(data)
		}
		if err != nil {
			return nil, readFault(err, limit)
		}
		if len(data) == cap(data) {
			data = slices.Grow(data, len(data)+bytes.MinRead)
		}
	}
}

// readFault returns the answer to a body that cannot be read to its end.
func readFault(err error, limit int64) error {
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return errTooLarge(limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // the server's ReadTimeout, without an engine
		return errSlow()
	}
	return errNotJSON("The request body could not be read to its end")
}

// checkText refuses what a JSON decoder would accept or be slow to refuse:
// nesting beyond maxDepth, and bytes that are not UTF-8. It takes time linear in
// the size of data.
func checkText(data []byte) error {
	if err := new(shape).follow(data); err != nil {
		return err
	}
	return checkUTF8(data)
}

func checkUTF8(data []byte) error {
	if !utf8.Valid(data) {
		return errNotJSON("The request body is not valid UTF-8")
	}
	return nil
}

// shape follows the lists and objects of a JSON text while it arrives.
type shape struct {
	most int // items of a list or members of an object; 0 is any number
	// lenient makes what nests too deeply an empty string, in place. Brackets of
	// text that is no JSON may stay, for the decoder to refuse.
	lenient bool

	next   int  // where to go on
	text   int  // where the string begins that is open
	open   bool // whether one is
	depth  int
	commas [maxDepth]int // in what is open, by depth
	over   int           // lists and objects that are open beyond maxDepth
	start  int           // where the outermost of them begins
}

// follow goes on in data, which is the text as far as it has arrived. It returns
// the answer to a text that nests too deeply or holds too many items.
func (s *shape) follow(data []byte) error {
	for s.next < len(data) {
		if s.open {
			end := stringEnd(data, s.text, s.next)
			s.open, s.next = end < 0, end+1
			if s.open {
				s.next = len(data)
				return nil
			}
			continue
		}
		switch data[s.next] {
		case '"':
			s.open, s.text = true, s.next+1
		case '{', '[':
			if s.depth < maxDepth {
				s.commas[s.depth] = 0
				s.depth++
				break
			}
			if !s.lenient {
				return badJSON(fmt.Sprintf("The request body nests deeper than %d levels", maxDepth))
			}
			if s.over == 0 {
				s.start = s.next
			}
			s.over++
		case '}', ']':
			s.leave(data)
		case ',':
			if s.depth == 0 || s.over > 0 {
				break
			}
			if s.commas[s.depth-1]++; s.most > 0 && s.commas[s.depth-1] >= s.most {
				return errTooMany(s.most)
			}
		}
		s.next++
	}
	return nil
}

// leave ends a list or an object.
func (s *shape) leave(data []byte) {
	if s.over == 0 {
		s.depth = max(s.depth-1, 0)
		return
	}
	if s.over--; s.over > 0 {
		return
	}
	blank := data[s.start : s.next+1] // two bytes at least
	for i := range blank {
		blank[i] = ' '
	}
	blank[0], blank[1] = '"', '"'
}

// stringEnd returns where the closing quote of the string is whose text begins at
// start, looked for from next on: an odd number of backslashes before it would
// escape it. It returns -1 if there is none.
func stringEnd(data []byte, start, next int) int {
	for i := next; ; i++ {
		quote := bytes.IndexByte(data[i:], '"')
		if quote < 0 {
			return -1
		}
		i += quote
		slashes := 0
		for i-slashes > start && data[i-slashes-1] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
	}
}

func errTooMany(most int) error {
	return &Error{
		Status: http.StatusRequestEntityTooLarge, Code: codeTooLarge,
		Msg: fmt.Sprintf("The request body has a list of more than %d; send them in several requests", most),
	}
}
