package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
)

// open opens all listeners. Those already open when it fails stay in
// r.listeners.
func (r *runner) open(ctx context.Context) error {
	c := r.o.Config
	var tlsConfig *tls.Config
	if c.TLS.CertFile != "" {
		pair, err := openKeyPair(c.TLS, r.o.Logger)
		if err != nil {
			return err
		}
		if r.o.Registerer != nil {
			if err := r.o.Registerer.Register(pair.good); err != nil {
				return fmt.Errorf("register the metric of the certificate: %w", err)
			}
		}
		tlsConfig = pair.config()
	}
	room := newBound(c.connections(), r.o.Logger)
	api := room.watch(apiHandler(r.o, r.health))
	for _, address := range c.Listen {
		l, err := listen(ctx, address, c.SocketMode)
		if err != nil {
			return err
		}
		l = &boundedListener{Listener: l, b: room}
		server := r.server(api)
		server.ConnContext = room.connContext
		server.WriteTimeout = c.WriteTimeout.Std()
		_, isUnix := unixPath(address)
		speaksTLS := tlsConfig != nil && !isUnix
		if speaksTLS {
			server.TLSConfig = tlsConfig
		}
		r.listeners = append(r.listeners, &listener{Listener: l, address: address, tls: speaksTLS, server: server})
	}
	if c.AdminListen == "" {
		return nil
	}
	l, err := listen(ctx, c.AdminListen, c.SocketMode)
	if err != nil {
		return err
	}
	// No write timeout: a CPU profile takes as long as it is asked to.
	r.listeners = append(r.listeners, &listener{
		Listener: l,
		address:  c.AdminListen,
		admin:    true,
		server:   r.server(adminHandler(r.o, r.health)),
	})
	return nil
}

// server returns a server with the bounds that all listeners share.
func (r *runner) server(h http.Handler) *http.Server {
	c := r.o.Config
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: c.ReadHeaderTimeout.Std(),
		ReadTimeout:       c.ReadTimeout.Std(),
		IdleTimeout:       c.IdleTimeout.Std(),
		MaxHeaderBytes:    c.MaxHeaderBytes,
		ErrorLog:          slogErrors(r.o.Logger),
		// Its answer to "OPTIONS *" is no JSON.
		DisableGeneralOptionsHandler: true,
	}
}

// closeListeners closes what open has opened.
func (r *runner) closeListeners() error {
	var errs []error
	for _, l := range r.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, fmt.Errorf("close %s: %w", l.address, err))
		}
	}
	return errors.Join(errs...)
}
