package serve_test

import (
	"net/http"
	"testing"

	dto "github.com/prometheus/client_model/go"
)

// gather is a prometheus.Gatherer.
type gather func() ([]*dto.MetricFamily, error)

func (g gather) Gather() ([]*dto.MetricFamily, error) { return g() }

// TestScrapesAreBounded has four requests for metrics wait while a fifth comes.
func TestScrapesAreBounded(t *testing.T) {
	t.Parallel()
	gathering, goOn := make(chan struct{}), make(chan struct{})
	o := options(func(http.ResponseWriter, *http.Request) {})
	o.Gatherer = gather(func() ([]*dto.MetricFamily, error) {
		gathering <- struct{}{}
		<-goOn
		return nil, nil
	})
	s := start(t, o)
	statuses := make(chan int, 4)
	scrape := func() {
		res, err := request(t, client(t), http.MethodGet, s.adminURL("/metrics"))
		if err != nil {
			t.Error(err)
			statuses <- 0
			return
		}
		statuses <- res.StatusCode
	}
	for range 4 {
		go scrape()
		<-gathering
	}
	scrape()
	if got := <-statuses; got != http.StatusServiceUnavailable {
		t.Errorf("the fifth: %d, want 503", got)
	}
	close(goOn)
	for range 4 {
		<-statuses
	}
}
