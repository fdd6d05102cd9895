package conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

const fileSuffix = "_file"

// maxSecretFile bounds what a Secret is filled with, in bytes. The longest we
// know are PEM bundles of a few KiB.
const maxSecretFile = 64 << 10

// Files returns the absolute paths of all files a loaded configuration refers
// to, that is of every string option whose name ends in _file and which is not
// empty, sorted and without duplicates. It only reads dst, a pointer to a
// struct.
func Files(dst any) []string {
	var list []string
	walkStructs(reflect.ValueOf(dst), "", func(v reflect.Value, _ string) bool {
		for _, f := range fieldsOf(v) {
			if path := v.FieldByIndex(f.index); isFileOption(f) && path.String() != "" {
				list = append(list, path.String())
			}
		}
		return false
	})
	slices.Sort(list)
	return slices.Compact(list)
}

func isFileOption(f field) bool {
	return f.typ.Kind() == reflect.String && f.typ != secretType && strings.HasSuffix(f.name, fileSuffix)
}

// resolveFiles makes paths absolute and reads the files of secrets.
func (l *loader) resolveFiles(root reflect.Value) {
	walkStructs(root, "", func(v reflect.Value, path string) (changed bool) {
		fields := fieldsOf(v)
		for _, f := range fields {
			name := v.FieldByIndex(f.index)
			if !isFileOption(f) || name.String() == "" {
				continue
			}
			changed = true
			written := name.String()
			name.SetString(l.absolute(written))
			secret, found := find(fields, strings.TrimSuffix(f.name, fileSuffix))
			if found && secret.typ == secretType {
				l.fillSecret(v.FieldByIndex(secret.index), written, name.String(), join(path, secret.name))
			}
		}
		return changed
	})
}

func (l *loader) absolute(name string) string {
	if !filepath.IsAbs(name) {
		name = filepath.Join(l.Dir, name)
	}
	if absolute, err := filepath.Abs(name); err == nil {
		return absolute
	}
	return name // there is no current directory; the relative path is the best left
}

func (l *loader) fillSecret(secret reflect.Value, written, file, option string) {
	if secret.String() != "" {
		l.problems.Add(option+" and "+option+fileSuffix, nil, "set one, not both")
		return
	}
	content, err := readSecretFile(file)
	if err != nil {
		l.problems.Add(option+fileSuffix, nil, shownFile(written)+err.Error())
		l.problems.unread[option] = true
		return
	}
	secret.SetString(content)
}

// fileEndings are those of files that hold secrets.
var fileEndings = []string{".json", ".key", ".p8", ".p12", ".pem", ".pass", ".secret", ".token", ".txt"}

// shownFile returns name as an error begins with it; "" if it may be the secret
// itself, which people have put in its place. What begins at a folder that exists,
// or ends as files do, is a name.
func shownFile(name string) string {
	if shown(name) != name {
		return ""
	}
	first, _, deeper := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	folder := false
	if deeper && filepath.IsAbs(name) {
		info, err := os.Stat("/" + first)
		folder = err == nil && info.IsDir()
	}
	if folder || slices.Contains(fileEndings, strings.ToLower(filepath.Ext(name))) {
		return name + ": "
	}
	return ""
}

// readSecretFile returns the content of the file. Its errors do not repeat the
// path: see shownFile.
func readSecretFile(name string) (string, error) {
	file, err := openRegular(name)
	if err != nil {
		return "", describe(err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxSecretFile+1))
	switch {
	case err != nil:
		return "", describe(err)
	case len(content) > maxSecretFile:
		return "", errors.New("the file is larger than 64 KiB")
	}
	text, ended := strings.CutSuffix(string(content), "\n")
	if ended {
		text = strings.TrimSuffix(text, "\r") // an editor on Windows
	}
	if text == "" {
		return "", errors.New("the file is empty: put the secret in it")
	}
	return text, nil
}

var errNotRegular = errors.New("is not a file but a directory or device")

// openRegular opens a file for reading. Opening a named pipe would wait for
// its writer, so only regular files are opened.
func openRegular(name string) (*os.File, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	return os.Open(name)
}

// describe says in words why a file cannot be read.
func describe(err error) error {
	switch {
	case errors.Is(err, errNotRegular):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such file; a relative path starts at the configuration file's directory")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("this user may not read the file: change its owner or mode")
	default:
		var cause *fs.PathError
		if errors.As(err, &cause) {
			return fmt.Errorf("the file cannot be read: %w", cause.Err)
		}
		return errors.New("the file cannot be read")
	}
}

// walkStructs calls visit for each struct in v. Values in a map cannot be
// changed in place: visit returns whether it changed its struct, which is then
// put back.
func walkStructs(v reflect.Value, path string, visit func(v reflect.Value, path string) bool) (changed bool) {
	switch t := v.Type(); {
	case isScalar(t):
	case t.Kind() == reflect.Pointer:
		return !v.IsNil() && walkStructs(v.Elem(), path, visit)
	case t.Kind() == reflect.Struct:
		changed = visit(v, path)
		for _, f := range fieldsOf(v) {
			changed = walkStructs(v.FieldByIndex(f.index), join(path, f.name), visit) || changed
		}
	case t.Kind() == reflect.Slice:
		for i := range v.Len() {
			changed = walkStructs(v.Index(i), fmt.Sprintf("%s[%d]", path, i), visit) || changed
		}
	case t.Kind() == reflect.Map:
		return walkMap(v, path, visit)
	}
	return changed
}

func walkMap(v reflect.Value, path string, visit func(v reflect.Value, path string) bool) (changed bool) {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(keyString(a), keyString(b)) })
	for _, key := range keys {
		value := reflect.New(v.Type().Elem()).Elem()
		value.Set(v.MapIndex(key))
		if walkStructs(value, index(path, keyString(key)), visit) {
			v.SetMapIndex(key, value)
			changed = true
		}
	}
	return changed
}

func keyString(key reflect.Value) string { return fmt.Sprint(key.Interface()) }
