package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/internal/safehttp"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/validation"
)

// proofs makes validation sessions what the directory asks for.
type proofs struct{ sessions *validation.Sessions }

// Validated implements identity.Proofs.
func (p proofs) Validated(ctx context.Context, owner, sid, clientSecret string) (identity.Proof, error) {
	return proof(p.sessions.Validated(ctx, owner, sid, clientSecret))
}

// Proven implements identity.Proofs.
func (p proofs) Proven(ctx context.Context, sid, clientSecret string) (identity.Proof, error) {
	return proof(p.sessions.Proven(ctx, sid, clientSecret))
}

// proof is what a session proves. A sid or client secret that could be nobody's is
// an error of its own there.
func proof(s validation.Session, err error) (identity.Proof, error) {
	if err != nil {
		return identity.Proof{}, translate(err, []translation{
			{validation.ErrNoSession, identity.ErrNoSession},
			{validation.ErrNotValidated, identity.ErrNotValidated},
			{validation.ErrExpired, identity.ErrSessionExpired},
		})
	}
	return identity.Proof{ID: s.ID, ValidatedAt: s.ValidatedAt, Given: s.Given}, nil
}

// openID makes the homeserver client what accounts ask for.
type openID struct {
	client *homeserver.Client
	tracer trace.Tracer
	log    *slog.Logger
}

// UserInfo implements identity.OpenID. Why a homeserver could not be reached
// stands in the log alone: whoever names one must not explore networks with it.
func (o openID) UserInfo(ctx context.Context, serverName, token string) (userID string, err error) {
	name, err := homeserver.ParseServerName(serverName)
	if err != nil {
		return "", identity.ErrInvalidServerName
	}
	ctx, end := span(ctx, o.tracer, "homeserver openid/userinfo")
	userID, err = o.client.UserInfo(ctx, name, token)
	end(err)
	if err == nil {
		return userID, nil
	}
	if errors.Is(err, homeserver.ErrUnreachable) {
		o.log.InfoContext(ctx, "homeserver did not answer", "server", name.String(), "err", reason(err))
	}
	return "", translate(err, []translation{
		{homeserver.ErrTokenRefused, identity.ErrOpenIDRefused},
		{homeserver.ErrSubMismatch, identity.ErrOpenIDMismatch},
		{homeserver.ErrUnreachable, identity.ErrUnreachable},
		{homeserver.ErrBusy, identity.ErrBusy},
	})
}

// reason returns what stands behind errors of package homeserver that always say
// the same, for the log.
func reason(err error) error {
	if hidden, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err); ok {
		err = errors.Join(hidden.Unwrap()[1:]...)
	}
	if errors.Is(err, safehttp.ErrBlocked) {
		err = fmt.Errorf("%w: only homeservers in homeservers.allow_networks may have a private address", err)
	}
	return err
}

// translation is one error in the words of two packages.
type translation struct{ from, to error }

// translate puts err into the words of another package.
func translate(err error, table []translation) error {
	for _, t := range table {
		if errors.Is(err, t.from) {
			return fmt.Errorf("%w: %w", t.to, err)
		}
	}
	return err
}

// traced makes a span of each message that is sent.
type traced struct {
	validation.Messenger
	tracer trace.Tracer
	name   string
}

// Send implements validation.Messenger.
func (t traced) Send(ctx context.Context, c threepid.Challenge) error {
	ctx, end := span(ctx, t.tracer, t.name)
	err := t.Messenger.Send(ctx, c)
	end(err)
	return err
}

// span begins a span of something that is asked of another server.
func span(ctx context.Context, tracer trace.Tracer, name string) (context.Context, func(error)) {
	ctx, s := tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient))
	return ctx, func(err error) {
		if err != nil {
			s.SetStatus(codes.Error, err.Error())
		}
		s.End()
	}
}
