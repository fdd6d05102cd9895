package main

import (
	"time"

	"github.com/matrix-herald/herald/push/pushtest"
)

// scenarios are all faults. Each fleet meets its own; fleets run side by side.
func scenarios() []scenario {
	return []scenario{
		{
			name:   "what happens to connections loses nothing and doubles only what is uncertain",
			fleet:  fleetOptions{replicas: 2, redis: true, attemptTimeout: time.Second, requestTimeout: 4 * time.Second},
			faults: []fault{{name: "none"}, cutConnections(), droppedConnections(), goAway()},
		},
		{
			name:   "what hangs loses nothing and doubles only what is uncertain",
			fleet:  fleetOptions{replicas: 2, redis: true, attemptTimeout: time.Second, requestTimeout: 4 * time.Second},
			faults: []fault{hungStreams(), slowTLS()},
		},
		{
			name:   "what push services answer loses and doubles nothing",
			fleet:  fleetOptions{replicas: 2, redis: true},
			faults: []fault{wrongSettings(), errorClasses()},
			exact:  true,
		},
		{
			name:  "without Redis each process goes on by itself",
			fleet: fleetOptions{replicas: 2, redis: true, budget: 2 * time.Second},
			faults: []fault{
				{name: "Redis: connections cut", play: cutRedis},
				{name: "Redis: kill -9, back empty", play: killRedis},
				{name: "Redis: hangs", play: hangRedis},
			},
		},
		{
			name:   "SIGTERM under load loses nothing and doubles nothing",
			fleet:  fleetOptions{replicas: 2, redis: true},
			faults: []fault{{name: "SIGTERM, one replica after the other", play: terminateReplicas}},
			exact:  true,
		},
		{
			name:   "kill -9 under load loses nothing and doubles at most what was in flight",
			fleet:  fleetOptions{replicas: 2, redis: true, requestTimeout: 2 * time.Second},
			faults: []fault{{name: "kill -9 of a replica, then SIGTERM to the other", play: killReplica}},
		},
		{
			name:  "one process without Redis loses nothing",
			fleet: fleetOptions{replicas: 1, attemptTimeout: time.Second, requestTimeout: 4 * time.Second},
			faults: []fault{
				rename("no Redis: ", cutConnections()), rename("no Redis: ", goAway()),
				{name: "no Redis: kill -9", play: killAlone},
			},
		},
	}
}

func rename(prefix string, f fault) fault {
	f.name = prefix + f.name
	return f
}

// wrongSettings is an app whose platform, topic or project is wrong at first:
// all its devices look dead.
func wrongSettings() fault {
	wrong := 40 // verdicts
	return fault{name: "wrong settings until corrected", answer: func(e *event) reply {
		if wrong == 0 {
			return reply{takes: true}
		}
		wrong--
		return reply{apns: pushtest.APNsAnswer{Status: 400, Reason: "BadDeviceToken"}, fcm: pushtest.FCMBadToken(),
			web: pushtest.FCMAnswer{Status: 403, Body: `{"reason":"VapidPkHashMismatch"}`}, hms: pushtest.HMSCode("80300007", "All the tokens are invalid")}
	}}
}

// failures is how many pushes of an event fail: half of those that are tried again
// within a request fail for that request.
func (e *event) failures() int { return 1 + int(e.lot>>5&1) }

// cutConnections ends connections with one push in the middle, which the push
// service has taken or not, and with whatever else is on them.
func cutConnections() fault {
	return fault{name: "connections cut in the middle", play: func(r *round) { r.progress(60) }, answer: func(e *event) reply {
		if e.arrivals > e.failures() || e.lot%16 > 1 {
			return reply{takes: true}
		}
		return reply{takes: e.lot%16 == 1, apns: pushtest.APNsAnswer{Cut: true}, fcm: pushtest.FCMAnswer{Cut: true}, web: pushtest.FCMAnswer{Cut: true}}
	}}
}

func droppedConnections() fault {
	return fault{name: "all connections cut at once", play: func(r *round) {
		for range 3 {
			r.closeConnections()
			r.progress(20)
		}
	}}
}

func goAway() fault {
	return fault{name: "GOAWAY", play: func(r *round) { r.progress(60) }, answer: func(e *event) reply {
		leave := e.lot%4 == 0
		return reply{takes: true, apns: pushtest.APNsAnswer{GoAway: leave}, fcm: pushtest.FCMAnswer{GoAway: leave}, web: pushtest.FCMAnswer{GoAway: leave}}
	}}
}

// hungStreams never answers some pushes, which the push service has taken or
// not.
func hungStreams() fault {
	return fault{name: "hung streams", play: func(r *round) { r.progress(40) }, answer: func(e *event) reply {
		if e.arrivals > e.failures() || e.lot%32 > 1 {
			return reply{takes: true}
		}
		return reply{takes: e.lot%32 == 1, apns: pushtest.APNsAnswer{Hang: true}, fcm: pushtest.FCMAnswer{Hang: true}, web: pushtest.FCMAnswer{Hang: true}}
	}}
}

// slowTLS lets no connection be made until pushes have failed for it.
func slowTLS() fault {
	return fault{name: "TLS handshakes that do not end", play: func(r *round) {
		release := []func(){r.apns.HoldHandshakes(), r.fcm.HoldHandshakes(), r.web.HoldHandshakes(), r.hms.HoldHandshakes()}
		r.closeConnections()
		r.failures(2 * pushersOfEach)
		for _, f := range release {
			f()
		}
	}}
}

// errorClasses answers with each error that the push services know, once each, except
// those that call the device dead: others do that throughout.
func errorClasses() fault {
	var left map[string][]reply // by app
	return fault{name: "every error of a push service", answer: func(e *event) reply {
		errors := left[e.pusher.app]
		// Refusals of credentials in a row would open the app's breaker, which is
		// tested elsewhere and takes long.
		if e.arrivals > 1 || e.lot%2 == 0 || len(errors) == 0 {
			return reply{takes: true}
		}
		left[e.pusher.app] = errors[1:]
		return errors[0]
	}, play: func(r *round) {
		r.account.mu.Lock()
		left = map[string][]reply{
			iosApp: apnsErrors(), androidApp: fcmErrors(), "org.example.web": webErrors(), "org.example.unified": webErrors(), "org.example.huawei": hmsErrors(),
		}
		r.account.mu.Unlock()
		none := func() bool {
			for _, errors := range left {
				if len(errors) > 0 {
					return false
				}
			}
			return true
		}
		if err := r.account.await(r.ctx, none); err != nil {
			r.Fatalf("errors are still to be answered with: %v", left)
		}
	}}
}

func webErrors() []reply {
	all := []reply{
		{refuses: true, web: pushtest.FCMAnswer{Status: 400, Body: `{"reason":"BadWebPushRequest"}`}},
		{web: pushtest.FCMAnswer{Status: 413}}, // taken, smaller, within the request
		{web: pushtest.FCMAnswer{Status: 429, RetryAfter: "1"}},
		{web: pushtest.FCMAnswer{Status: 503, RetryAfter: "1"}},
		{web: pushtest.FCMAnswer{Status: 502, Body: `{"code":502,"errno":901}`}},
	}
	for _, status := range []int{301, 401, 403, 405, 406, 418, 500, 502, 503, 507} {
		all = append(all, reply{web: pushtest.FCMAnswer{Status: status, Body: "<html>", Location: "https://127.0.0.1/"}})
	}
	return all
}

func hmsErrors() []reply {
	var all []reply
	for _, code := range []string{
		"80100001", "80100003", "80100016", "80300008", "80300011", "80100004", "80200001", "80200003", "80300002", "80300037", "81000001", "89999999",
	} {
		refuses := code == "80100001" || code == "80100003" || code == "80100016" // the others may be taken the next time
		all = append(all, reply{refuses: refuses, hms: pushtest.HMSCode(code, "refused")})
	}
	for _, status := range []int{301, 400, 401, 404, 429, 500, 502, 503} {
		all = append(all, reply{hms: pushtest.FCMAnswer{Status: status, Body: "<html>", Location: "https://127.0.0.1/"}})
	}
	return all
}

func apnsErrors() []reply {
	var all []reply
	add := func(status int, reasons ...string) {
		for _, reason := range reasons {
			all = append(all, reply{refuses: reason == "PayloadEmpty" || status == 413, apns: pushtest.APNsAnswer{Status: status, Reason: reason}})
		}
	}
	add(400, "TopicDisallowed", "BadTopic", "MissingTopic", "PayloadEmpty", "IdleTimeout")
	add(500, "InternalServerError")
	add(400, "BadCertificate", "BadCertificateEnvironment", "BadExpirationDate", "BadPriority", "PayloadEmpty")
	add(503, "ServiceUnavailable", "Shutdown")
	add(400, "BadCollapseId", "BadMessageId", "DuplicateHeaders", "InvalidPushType", "MissingDeviceToken")
	add(413, "PayloadTooLarge")
	add(403, "BadCertificate", "BadCertificateEnvironment", "ExpiredProviderToken", "InvalidProviderToken")
	add(404, "BadPath")
	add(413, "PayloadTooLarge")
	add(403, "MissingProviderToken", "Forbidden", "UnrelatedKeyIdInToken", "BadEnvironmentKeyIdInToken")
	add(405, "MethodNotAllowed")
	return append(all,
		reply{apns: pushtest.APNsAnswer{Status: 410, Reason: "Unregistered", Timestamp: (pushKeyTS - 1) * 1000}},
		reply{apns: pushtest.APNsAnswer{Status: 429, Reason: "TooManyRequests", RetryAfter: "1"}},
		reply{apns: pushtest.APNsAnswer{Status: 429, Reason: "TooManyProviderTokenUpdates", RetryAfter: "1"}},
		reply{apns: pushtest.APNsAnswer{Status: 503, Reason: "ServiceUnavailable", RetryAfter: "1"}},
		reply{apns: pushtest.APNsAnswer{Status: 502, Body: "<html>Bad Gateway</html>"}},
	)
}

func fcmErrors() []reply {
	late := func(answer pushtest.FCMAnswer) reply {
		answer.RetryAfter = "1"
		return reply{fcm: answer}
	}
	return []reply{
		{fcm: pushtest.FCMError(401, "UNAUTHENTICATED", "", "invalid credentials")},
		{refuses: true, fcm: pushtest.FCMError(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "Invalid value")},
		{fcm: pushtest.FCMError(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", "Auth error from APNS or Web Push Service")},
		late(pushtest.FCMError(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "Quota exceeded")),
		{fcm: pushtest.FCMError(403, "PERMISSION_DENIED", "", "Permission denied")},
		{refuses: true, fcm: pushtest.FCMAnswer{Status: 413, Body: "<html>Request Entity Too Large</html>"}},
		{fcm: pushtest.FCMError(404, "NOT_FOUND", "", "Project not found")},
		late(pushtest.FCMError(500, "INTERNAL", "INTERNAL", "Internal error")),
		late(pushtest.FCMError(503, "UNAVAILABLE", "UNAVAILABLE", "Unavailable")),
		{fcm: pushtest.FCMAnswer{Status: 418, Body: "<html>I'm a teapot</html>"}},
		late(pushtest.FCMAnswer{Status: 502, Body: "<html>Bad Gateway</html>"}),
	}
}

func cutRedis(r *round) {
	together := r.apart()
	for range 3 {
		r.redis.cut()
		r.progress(20)
	}
	r.await(r.ctx, r.T, "herald_push_store_away", 0)
	together()
}

func killRedis(r *round) {
	together := r.apart()
	r.redis.kill()
	r.await(r.ctx, r.T, "herald_push_store_away", 1)
	r.progress(40)
	r.redis.start(r.T)
	r.await(r.ctx, r.T, "herald_push_store_away", 0)
	together()
}

func hangRedis(r *round) {
	together := r.apart()
	goOn := r.redis.stop(r.T)
	r.await(r.ctx, r.T, "herald_push_store_away", 1)
	r.progress(40)
	goOn()
	r.await(r.ctx, r.T, "herald_push_store_away", 0)
	together()
}

// terminateReplicas updates a fleet as one does.
func terminateReplicas(r *round) {
	for _, replica := range r.replicas {
		replica.terminate(r.T)
		r.progress(20)
		replica.start(r.T)
		r.progress(20)
	}
}

// killReplica kills a replica, and updates the other before what the first one
// had claimed may be delivered.
func killReplica(r *round) {
	r.account.kill(r.replicas[0].kill(r.T))
	r.progress(20)
	r.replicas[0].start(r.T)
	r.progress(10)
	r.replicas[1].terminate(r.T)
	r.replicas[1].start(r.T)
}

// killAlone kills the only process, which has nobody to tell what it knew.
func killAlone(r *round) {
	together := r.apart()
	r.account.kill(r.replicas[0].kill(r.T))
	r.replicas[0].start(r.T)
	together()
}
