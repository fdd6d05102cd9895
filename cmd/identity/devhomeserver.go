package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/internal/mxhttp"
)

const (
	// issueToken and userInfo are what a homeserver has to do with OpenID tokens
	// (Client-Server API and Server-Server API, "OpenID").
	issueToken = "POST /_matrix/client/v3/user/{userId}/openid/request_token"
	userInfo   = "GET /_matrix/federation/v1/openid/userinfo"
	// onBind tells of an address that was bound. The specification's PUT is
	// nobody's.
	onBind = "POST /_matrix/federation/v1/3pid/onbind"

	devTokenLife = time.Hour
	devMaxTokens = 1000
)

// devHomeserver is a homeserver for development: it issues OpenID tokens to
// anybody for any of its users, and tells over federation whose they are.
type devHomeserver struct {
	name     string // its server name
	listener net.Listener
	root     *x509.Certificate

	mu     sync.Mutex
	tokens map[string]devToken
	oldest []string // the tokens in the order of issue
}

type devToken struct {
	userID  string
	expires time.Time
}

// openDevHomeserver listens on the port after the API's, which the example in
// the README names, or on any other.
func openDevHomeserver(api string) (*devHomeserver, error) {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	var next uint16
	if a, err := netip.ParseAddrPort(api); err == nil {
		next = a.Port() + 1
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(loopback, next)))
	if err != nil {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	}
	if err != nil {
		return nil, fmt.Errorf("homeserver for development: %w", err)
	}
	certificate, root, err := devCertificate()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("homeserver for development: %w", err), l.Close())
	}
	return &devHomeserver{
		name: l.Addr().String(), root: root, tokens: make(map[string]devToken),
		listener: tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}),
	}, nil
}

// devCertificate makes a certificate authority, whose key is forgotten at once,
// and a certificate for 127.0.0.1.
func devCertificate() (certificate tls.Certificate, root *x509.Certificate, err error) {
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		}
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return certificate, nil, err
	}
	root = template("Herald development CA")
	root.IsCA, root.KeyUsage = true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		return certificate, nil, err
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		return certificate, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return certificate, nil, err
	}
	leaf := template("Herald development homeserver")
	leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), rootKey)
	return tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: key}, root, err
}

// trust returns roots, nil for the system's, and the homeserver's own.
func (h *devHomeserver) trust(roots *x509.CertPool) *x509.CertPool {
	if roots == nil {
		var err error
		if roots, err = x509.SystemCertPool(); err != nil {
			roots = x509.NewCertPool()
		}
	}
	roots.AddCert(h.root)
	return roots
}

// close gives up the address of a homeserver that may not have run.
func (h *devHomeserver) close() { _ = h.listener.Close() }

// run serves until ctx ends.
func (h *devHomeserver) run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc(issueToken, h.issue)
	mux.HandleFunc(userInfo, h.userInfo)
	mux.HandleFunc(onBind, h.onBind)
	server := &http.Server{
		Handler: loopbackOnly(mux), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0), // handshakes of curl without -k
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(h.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("homeserver for development: %w", err)
	}
	return nil
}

// issue answers with an OpenID token of the user in the path.
func (h *devHomeserver) issue(w http.ResponseWriter, r *http.Request) {
	user, err := homeserver.ParseUserID(r.PathValue("userId"))
	if err != nil || user.Server().String() != h.name {
		h.refuse(w, http.StatusForbidden, "M_FORBIDDEN", "The users of this homeserver are called @name:"+h.name)
		return
	}
	token := rand.Text()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.oldest) == devMaxTokens {
		delete(h.tokens, h.oldest[0])
		h.oldest = h.oldest[1:]
	}
	h.oldest = append(h.oldest, token)
	h.tokens[token] = devToken{user.String(), time.Now().Add(devTokenLife)}
	_ = mxhttp.WriteJSON(w, http.StatusOK, map[string]any{
		"access_token": token, "token_type": "Bearer", "matrix_server_name": h.name, "expires_in": int(devTokenLife.Seconds()),
	})
}

// userInfo tells whose a token is.
func (h *devHomeserver) userInfo(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	token, ok := h.tokens[r.URL.Query().Get("access_token")]
	if !ok || time.Now().After(token.expires) {
		h.refuse(w, http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "The token is not known, or not any more")
		return
	}
	_ = mxhttp.WriteJSON(w, http.StatusOK, map[string]string{"sub": token.userID})
}

// onBind hears which addresses users have bound, and forgets it.
func (h *devHomeserver) onBind(w http.ResponseWriter, _ *http.Request) {
	_ = mxhttp.WriteJSON(w, http.StatusOK, struct{}{})
}

func (h *devHomeserver) refuse(w http.ResponseWriter, status int, code, msg string) {
	_ = mxhttp.WriteError(w, &mxhttp.Error{Status: status, Code: code, Msg: msg})
}
