package webpush

// Strays is how many origins have deliveries under way that nobody names.
func (p *Provider) Strays() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.strays)
}
