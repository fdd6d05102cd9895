// Package conf reads a service's configuration: strict YAML over the defaults
// already in a struct, environment overrides, ${VAR} expansion, secrets kept
// in files of their own, and a watcher for those files. It owns the text form
// of an option (name, path, unit); the package that an option belongs to checks
// its value.
package conf
