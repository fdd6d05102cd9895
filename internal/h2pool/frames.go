package h2pool

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

const (
	frameHeaderLen = 9 // RFC 9113 section 4.1
	// maxControl bounds what is kept of a SETTINGS or GOAWAY payload; a larger
	// one is read as far as this.
	maxControl = 4 << 10
	// unlimitedStreams is what net/http allows itself on a connection whose
	// first SETTINGS names no limit.
	unlimitedStreams = 1000
)

// frameScanner follows the frames in what a server sends and collects the two
// kinds whose contents net/http does not pass on: SETTINGS and GOAWAY.
type frameScanner struct {
	header  [frameHeaderLen]byte
	have    int    // bytes of header seen
	left    int    // payload bytes of the current frame still to come
	payload []byte // start of the payload, of the two kinds only
}

// next consumes bytes up to the end of b or of one frame, and reports how many
// and whether they complete a SETTINGS or GOAWAY frame.
func (s *frameScanner) next(b []byte) (n int, done bool) {
	if s.have < frameHeaderLen {
		n = copy(s.header[s.have:], b)
		s.have += n
		if s.have < frameHeaderLen {
			return n, false
		}
		s.left = int(s.header[0])<<16 | int(s.header[1])<<8 | int(s.header[2])
		s.payload = s.payload[:0]
	}
	part := b[n:min(len(b), n+s.left)]
	n += len(part)
	s.left -= len(part)
	if s.wanted() {
		s.payload = append(s.payload, part[:min(len(part), maxControl-len(s.payload))]...)
	}
	if s.left > 0 {
		return n, false
	}
	s.have = 0
	return n, s.wanted()
}

func (s *frameScanner) kind() http2.FrameType { return http2.FrameType(s.header[3]) }

func (s *frameScanner) wanted() bool {
	switch s.kind() {
	case http2.FrameSettings:
		return http2.Flags(s.header[4])&http2.FlagSettingsAck == 0
	case http2.FrameGoAway:
		return true
	}
	return false
}

// maxStreams returns the SETTINGS_MAX_CONCURRENT_STREAMS of a SETTINGS frame.
func (s *frameScanner) maxStreams() (limit uint32, named bool) {
	for p := s.payload; len(p) >= 6; p = p[6:] {
		if http2.SettingID(binary.BigEndian.Uint16(p)) == http2.SettingMaxConcurrentStreams {
			limit, named = binary.BigEndian.Uint32(p[2:]), true
		}
	}
	return limit, named
}

// goAway returns the contents of a GOAWAY frame, or nil for one too short,
// which net/http answers by closing the connection.
func (s *frameScanner) goAway() *GoAwayError {
	if len(s.payload) < 8 {
		return nil
	}
	return &GoAwayError{
		LastStreamID: binary.BigEndian.Uint32(s.payload) & (1<<31 - 1),
		Code:         http2.ErrCode(binary.BigEndian.Uint32(s.payload[4:])),
		Debug:        string(s.payload[8:]),
	}
}
