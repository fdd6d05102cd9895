package mxhttp

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/gin-gonic/gin"
)

// answer writes what the client hears about err.
func (e *edge) answer(c *gin.Context, x *exchange, err error) {
	if c.Writer.Written() {
		x.add(slog.String("err_after_start", err.Error()))
		return
	}
	e.respond(c, x, e.errorFor(c.Request.Context(), x, err))
}

// respond writes an answer, or a plain one if that cannot be encoded.
func (e *edge) respond(c *gin.Context, x *exchange, answer *Error) {
	x.add(slog.String("errcode", answer.Code), slog.String("error", answer.Msg))
	err := WriteError(c.Writer, answer)
	if err != nil && !c.Writer.Written() {
		x.failed(slog.String("fault", err.Error()))
		err = WriteError(c.Writer, errInternal())
	}
	if err != nil {
		x.add(slog.String("write_error", err.Error()))
	}
}

// errorFor finds the answer to err. What no one expects stands in the log.
func (e *edge) errorFor(ctx context.Context, x *exchange, err error) *Error {
	if x.refusal != nil { // which the handler may have taken for a broken body
		return x.refusal
	}
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	if e.classify != nil {
		if known := e.classify(err); known != nil {
			if known.Status == http.StatusServiceUnavailable { // not the client's fault
				x.add(slog.String("reason", err.Error()))
			}
			return known
		}
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		x.add(slog.Bool("client_gone", true))
		return &Error{Status: statusClientGone, Code: codeUnknown, Msg: "The client closed the request"}
	case errors.Is(err, context.DeadlineExceeded):
		x.add(slog.String("timeout", err.Error()))
		return errTimeout()
	}
	x.failed(slog.String("fault", err.Error()))
	return errInternal()
}

func errTimeout() *Error {
	return &Error{Status: http.StatusServiceUnavailable, Code: codeUnknown, Msg: "The request took too long; try again later"}
}

func errInternal() *Error {
	return &Error{Status: http.StatusInternalServerError, Code: codeUnknown, Msg: "Internal server error"}
}
