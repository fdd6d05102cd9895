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
	s, err := p.sessions.Validated(ctx, owner, sid, clientSecret)
	return proof(s), err
}

// Proven implements identity.Proofs.
func (p proofs) Proven(ctx context.Context, sid, clientSecret string) (identity.Proof, error) {
	s, err := p.sessions.Proven(ctx, sid, clientSecret)
	return proof(s), err
}

func proof(s validation.Session) identity.Proof {
	return identity.Proof{ID: s.ID, ValidatedAt: s.ValidatedAt, OriginalSpelling: s.OriginalSpelling}
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
	if errors.Is(err, identity.ErrUnreachable) {
		o.log.InfoContext(ctx, "homeserver did not answer", "server", name.String(), "err", reason(err))
	}
	return userID, err
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
		err = fmt.Errorf("%w: only homeservers in allow_networks may have a private address", err)
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
