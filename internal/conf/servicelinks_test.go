package conf_test

import (
	"strings"
	"testing"

	"github.com/matrix-herald/herald/internal/conf"
)

func TestVariablesOfKubernetesServicesAreNoOptions(t *testing.T) {
	t.Parallel()
	var c struct {
		Name string `yaml:"name"`
	}
	err := conf.Load(conf.LoadOptions{EnvPrefix: "PUSHGW_", Environ: []string{
		"PUSHGW_SERVICE_HOST=10.0.0.1", "PUSHGW_SERVICE_PORT=5000", "PUSHGW_SERVICE_PORT_HTTP=5000", "PUSHGW_PORT=tcp://10.0.0.1:5000",
		"PUSHGW_PORT_5000_TCP=tcp://10.0.0.1:5000", "PUSHGW_PORT_5000_TCP_PROTO=tcp", "PUSHGW_PORT_5000_TCP_PORT=5000", "PUSHGW_PORT_5000_TCP_ADDR=10.0.0.1",
	}}, &c)
	if err != nil {
		t.Error(err)
	}
	err = conf.Load(conf.LoadOptions{EnvPrefix: "PUSHGW_", Environ: []string{"PUSHGW_PORTS=1", "PUSHGW_SERVICE_NAME=x"}}, &c)
	if err == nil || strings.Count(err.Error(), "names no option") != 2 {
		t.Errorf("error %v", err)
	}
}
