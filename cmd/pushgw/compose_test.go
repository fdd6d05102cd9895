package main

import "testing"

func TestTheConfigurationOfComposeWorks(t *testing.T) {
	t.Parallel()
	cfg, err := loadConfig("../../deploy/compose/pushgw.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !cfg.Redis.Enabled() || len(cfg.Apps) == 0 {
		t.Errorf("%+v", cfg)
	}
}
