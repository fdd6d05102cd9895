package sydent

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/matrix-herald/herald/identity/signing"
)

// ErrServerName means that a Sydent signs under another name than the service.
var ErrServerName = errors.New("not the configuration of this service")

// defaultSection is the section whose options count for all others. Sydent used
// to keep everything there.
const defaultSection = "DEFAULT"

// SigningKey reads from conf, the text of a sydent.conf, the key with which the
// service called serverName signs. It returns ErrServerName if the file is
// another service's. Errors quote nothing of the file but that name, since it
// holds the key and passwords.
func SigningKey(conf []byte, serverName string) (signing.Key, error) {
	file, err := parseINI(string(conf))
	if err != nil {
		return signing.Key{}, err
	}
	name, err := file.get("general", "server.name")
	switch {
	case err != nil:
		return signing.Key{}, err
	case name == "":
		return signing.Key{}, errors.New("general.server.name is not set, so that Sydent uses SYDENT_SERVER_NAME or the " +
			"name of its machine: write the name that it uses into the file")
	case name != serverName:
		return signing.Key{}, fmt.Errorf("%w: general.server.name is %q and not %q", ErrServerName, name, serverName)
	}
	line, err := file.get("crypto", "ed25519.signingkey")
	switch {
	case err != nil:
		return signing.Key{}, err
	case line == "":
		return signing.Key{}, errors.New("crypto.ed25519.signingkey is not set: Sydent writes its key there when it starts, " +
			"if it may write to the file")
	}
	key, err := parseKey(line)
	if err != nil {
		return signing.Key{}, fmt.Errorf("crypto.ed25519.signingkey: %w", err)
	}
	return key, nil
}

// parseKey reads a signing key in today's form, "ed25519 0 <base64>", or in the
// one before it, the seed in hexadecimal digits, whose version is 0.
func parseKey(line string) (signing.Key, error) {
	if seed, err := hex.DecodeString(line); err == nil {
		return signing.NewKey("ed25519:0", base64.RawStdEncoding.EncodeToString(seed))
	}
	return signing.ParseKey(line)
}

// ini is a file as Python's configparser reads it: options by section, their
// names in lower case.
type ini map[string]map[string]string

// get returns an option, "" if it is not set.
func (f ini) get(section, option string) (string, error) {
	value, there := f[section][option]
	if !there {
		value = f[defaultSection][option]
	}
	if strings.Contains(value, "%") {
		return "", fmt.Errorf("%s.%s refers to another option with %%: write its value out", section, option)
	}
	return value, nil
}

// parseINI reads the text of a file.
func parseINI(text string) (ini, error) {
	p := iniParser{file: make(ini)}
	for i, line := range strings.Split(text, "\n") {
		if err := p.line(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return p.file, nil
}

// iniParser knows where in a file it is.
type iniParser struct {
	file    ini
	section map[string]string // nil before the first one
	option  string            // the last one, "" if a line cannot continue it
	indent  int               // of the last option's line
}

func (p *iniParser) line(line string) error {
	text := strings.TrimSpace(line)
	if text == "" || text[0] == '#' || text[0] == ';' {
		return nil
	}
	indent := len(line) - len(strings.TrimLeft(line, " \t"))
	if p.option != "" && indent > p.indent { // a value goes on in lines that are indented further
		p.section[p.option] += "\n" + text
		return nil
	}
	p.indent = indent
	if text[0] == '[' {
		return p.header(text)
	}
	if p.section == nil {
		return errors.New("an option before the first section")
	}
	i := strings.IndexAny(text, "=:")
	if i < 0 {
		return errors.New("neither a section nor an option with a value")
	}
	option := strings.ToLower(strings.TrimSpace(text[:i]))
	if _, twice := p.section[option]; twice || option == "" {
		return errors.New("an option without a name, or for the second time in its section")
	}
	p.option = option
	p.section[option] = strings.TrimSpace(text[i+1:])
	return nil
}

// header begins a section.
func (p *iniParser) header(text string) error {
	name, _, closed := strings.Cut(text[1:], "]")
	if !closed || name == "" {
		return errors.New("not the name of a section")
	}
	if _, twice := p.file[name]; twice && name != defaultSection {
		return errors.New("a section for the second time")
	}
	if p.file[name] == nil {
		p.file[name] = make(map[string]string)
	}
	p.section, p.option = p.file[name], ""
	return nil
}
