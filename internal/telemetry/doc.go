// Package telemetry makes what the services report about themselves: the
// logger, the metrics registry and the traces.
//
// It decides how these are written and sent, not what is logged, counted or
// traced; and it sets no global of slog, Prometheus or OpenTelemetry.
package telemetry
