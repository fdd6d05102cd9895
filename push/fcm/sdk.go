package fcm

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"firebase.google.com/go/v4/messaging"
	"google.golang.org/api/option"
)

// newClient returns the SDK's messaging client of one project that talks to
// base ("https://host") through rt, which has to authorise the requests.
//
// The documented way is firebase.NewApp(…).Messaging(ctx). It is not taken
// because the root package links Firestore, Cloud Storage and gRPC into the
// program, which doubles its size. messaging.NewClient is exported, but
// its parameter's type is internal to the SDK, so configOf names that type by
// inference. Should an SDK release change it, this file stops compiling.
func newClient(ctx context.Context, projectID, base string, rt http.RoundTripper) (*messaging.Client, error) {
	cfg := configOf(messaging.NewClient)
	cfg.ProjectID = projectID
	cfg.Version = "4.19.0" // the SDK's, for its x-goog-api-client header
	cfg.Opts = []option.ClientOption{
		option.WithHTTPClient(&http.Client{Transport: rt}),
		option.WithEndpoint(base + "/v1"),
	}
	return messaging.NewClient(ctx, cfg)
}

func configOf[C any](func(context.Context, *C) (*messaging.Client, error)) *C { return new(C) }

// checkMessage returns what the SDK itself finds wrong with a message. It does
// so only in Send, hence the send to nowhere.
func checkMessage(ctx context.Context, msg messaging.Message) error {
	client, err := newClient(ctx, "check", "https://check.invalid", acceptAll{})
	if err != nil {
		return err
	}
	msg.Token = "check"
	_, err = client.Send(ctx, &msg)
	return err
}

// acceptAll answers like FCM does to a message it accepted.
type acceptAll struct{}

func (acceptAll) RoundTrip(req *http.Request) (*http.Response, error) {
	_ = req.Body.Close() // it is a buffer
	return newResponse(req, http.StatusOK, []byte(`{"name":"accepted"}`)), nil
}

func newResponse(req *http.Request, status int, body []byte) *http.Response {
	return &http.Response{
		StatusCode: status,
		Proto:      "HTTP/2.0",
		ProtoMajor: 2,
		Header:     http.Header{},
		Body:       io.NopCloser(bytes.NewReader(body)),
		Request:    req,
	}
}
