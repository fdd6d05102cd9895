package redisstore_test

import (
	"testing"

	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/redisstore"
)

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	cfg := redisconn.DefaultConfig("test:")
	if _, err := redisstore.New(cfg, push.DefaultTerms()); err == nil {
		t.Error("no addresses: no error")
	}
	cfg.Addresses = []string{"127.0.0.1:1"}
	if _, err := redisstore.New(cfg, push.Terms{}); err == nil {
		t.Error("no terms: no error")
	}
}
