package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/matrix-herald/herald/push/pushtest"
)

// TestDoctor has the doctor look at surroundings that are well, and then at ones
// of which nothing works.
//
// Conformance (pushgw): `doctor`: what is around the service, asked without delivering anything (also TestRunSaysWhatItSaw)
func TestDoctor(t *testing.T) {
	t.Parallel()
	well := true
	s := startServices(t, pushtest.APNsOptions{Answer: func(pushtest.APNsRequest) pushtest.APNsAnswer {
		return pushtest.APNsAnswer{Status: 400, Reason: "BadDeviceToken"}
	}}, pushtest.FCMOptions{Answer: func(r pushtest.FCMRequest) pushtest.FCMAnswer {
		switch {
		case !bytes.Contains(r.Body, []byte(`"validate_only":true`)):
			t.Errorf("a message that is delivered: %s", r.Body)
		case !well:
			return pushtest.FCMError(http.StatusForbidden, "PERMISSION_DENIED", "", "Permission 'cloudmessaging.messages.create' denied")
		}
		return pushtest.FCMBadToken()
	}})
	public := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusMethodNotAllowed)
		if well && r.URL.Path == notifyPath {
			_, _ = io.WriteString(w, `{"errcode":"M_UNRECOGNIZED"}`)
		}
	}))
	defer public.Close()
	look := func(redis string) (int, string, string) {
		return command(t, []string{"PUSHGW_REDIS_URL=redis://" + redis}, "-config", s.config, "doctor", public.URL)
	}
	check := func(out string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("the output lacks %q:\n%s", want, out)
			}
		}
	}

	code, out, errs := look(miniredis.RunT(t).Addr())
	if code != 0 {
		t.Errorf("exit status %d\n%s%s", code, out, errs)
	}
	check(out, ": answers\n",
		"app org.example.ios (apns): answers 400 BadDeviceToken to a made-up device, so it takes the credentials",
		"app org.example.android* (fcm): answers 400 INVALID_ARGUMENT to a made-up device", public.URL+notifyPath+": pushgw answers")

	well = false
	s.configure(t, "ANOTHERKEY", "TEAM567890", "  org.example.web: {type: hold}\n")
	code, out, errs = look("127.0.0.1:1")
	if code != 1 {
		t.Errorf("exit status %d", code)
	}
	check(errs, "4 of 5 checks failed")
	check(out, "redis 127.0.0.1:1: dial tcp", "app org.example.ios (apns): answers 403 InvalidProviderToken (credentials)",
		"app org.example.android* (fcm): answers 403 PERMISSION_DENIED", "app org.example.web (hold): there is nothing to ask",
		public.URL+notifyPath+": something else answers 405", "test-push shows the whole answer")
	if code, _, errs := command(t, nil, "-config", s.config, "doctor", "x", "y"); code != 2 || !strings.Contains(errs, "usage:") {
		t.Errorf("wrong arguments: exit status %d\n%s", code, errs)
	}
}
