package threepid_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/threepid"
)

func TestChallengeShowsNothingByAccident(t *testing.T) {
	t.Parallel()
	c := threepid.Challenge{
		ID: threepid.ID{Medium: threepid.MediumEmail, Address: "alice@example.org"}, To: "alice@example.org",
		Token: "the-token", SID: "the-sid", ClientSecret: "the-secret", NextLink: "https://example.org/the-link",
	}
	var logged strings.Builder
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "challenge", c, "inside", struct{ C threepid.Challenge }{c})
	marshalled, err := json.Marshal(map[string]any{"c": c})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]string{
		"%v": fmt.Sprintf("%v", c), "%+v": fmt.Sprintf("%+v", c), "%#v": fmt.Sprintf("%#v", c), "%q": fmt.Sprintf("%q", c),
		"a pointer": fmt.Sprintf("%+v", &c), "inside a structure": fmt.Sprintf("%+v", struct{ C threepid.Challenge }{c}),
		"slog": logged.String(), "JSON": string(marshalled),
	} {
		if strings.Contains(s, "alice") || strings.Contains(s, "the-") {
			t.Errorf("%s shows %s", name, s)
		}
		if !strings.Contains(s, c.ID.String()) {
			t.Errorf("%s does not name the redacted ID: %s", name, s)
		}
	}
}

func TestBusyErrorIsErrBusy(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("send mail: %w", &threepid.BusyError{RetryAfter: 5 * time.Second})
	var busy *threepid.BusyError
	if !errors.Is(err, threepid.ErrBusy) || !errors.As(err, &busy) || busy.RetryAfter != 5*time.Second {
		t.Errorf("got %v", err)
	}
	if errors.Is(err, threepid.ErrSend) {
		t.Error("a busy sender is not a failed one")
	}
}
