package threepid_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/threepid"
)

func TestInvitationShowsNothingByAccident(t *testing.T) {
	t.Parallel()
	i := threepid.Invitation{
		ID: threepid.ID{Medium: threepid.MediumEmail, Address: "alice@example.org"}, To: "alice@example.org",
		Token: "the-token", PrivateKey: "the-key", Sender: "@the-sender:example.org", SenderName: "the-name", RoomName: "the-room",
	}
	var logged strings.Builder
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "invitation", i, "inside", struct{ I threepid.Invitation }{i})
	marshalled, err := json.Marshal(map[string]any{"i": i})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]string{
		"%v": fmt.Sprintf("%v", i), "%+v": fmt.Sprintf("%+v", i), "%#v": fmt.Sprintf("%#v", i), "%q": fmt.Sprintf("%q", i),
		"a pointer": fmt.Sprintf("%+v", &i), "inside a structure": fmt.Sprintf("%+v", struct{ I threepid.Invitation }{i}),
		"slog": logged.String(), "JSON": string(marshalled),
	} {
		if strings.Contains(s, "alice") || strings.Contains(s, "the-") {
			t.Errorf("%s shows %s", name, s)
		}
		if !strings.Contains(s, i.ID.String()) {
			t.Errorf("%s does not name the redacted ID: %s", name, s)
		}
	}
}
