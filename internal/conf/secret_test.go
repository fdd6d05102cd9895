package conf_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/matrix-herald/herald/internal/conf"
)

func TestSecretNeverShowsItsText(t *testing.T) {
	t.Parallel()
	const text = "hunter2"
	hex := fmt.Sprintf("%x", text)
	holder := struct{ Password conf.Secret }{text}

	shown := map[string]string{"String": conf.Secret(text).String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s"} {
		shown["value "+verb] = fmt.Sprintf(verb, conf.Secret(text))
		shown["field "+verb] = fmt.Sprintf(verb, holder)
	}
	for name, marshal := range map[string]func(any) ([]byte, error){
		"json": json.Marshal, "yaml": yaml.Marshal, "xml": xml.Marshal,
	} {
		out, err := marshal(holder.Password)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		shown[name] = string(out)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", holder.Password)
	shown["slog text"] = log.String()
	log.Reset()
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "holder", holder)
	shown["slog json"] = log.String()

	for how, out := range shown {
		if strings.Contains(out, text) || strings.Contains(strings.ToLower(out), hex) {
			t.Errorf("%s shows the secret: %s", how, out)
		}
		if !strings.Contains(out, "[redacted]") {
			t.Errorf("%s does not say [redacted]: %s", how, out)
		}
	}
	if got := holder.Password.Reveal(); got != text {
		t.Errorf("Reveal() = %q, want %q", got, text)
	}
}

func TestEmptySecretPrintsNothing(t *testing.T) {
	t.Parallel()
	if got := fmt.Sprintf("%v%s%#v", conf.Secret(""), conf.Secret(""), conf.Secret("")); got != "" {
		t.Errorf("empty secret prints %q, want nothing", got)
	}
	out, err := json.Marshal(conf.Secret(""))
	if err != nil || string(out) != `""` {
		t.Errorf(`json.Marshal(Secret("")) = %s, %v, want ""`, out, err)
	}
}
