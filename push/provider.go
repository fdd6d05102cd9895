package push

import (
	"context"
	"reflect"
	"sync"
)

// Provider delivers notifications to one push service with the settings of one
// app. It is safe for concurrent use.
type Provider interface {
	// Send makes one attempt to deliver d within ctx and says what came of it.
	// It never blocks beyond ctx's deadline and never retries by itself.
	Send(ctx context.Context, d Delivery) Outcome
	// Destination names what is asked about the device, as far as others ask it
	// too: the push service's host with the app's credential, a project. What is
	// known about a destination's health counts for all that share it. It is ""
	// where the pusher's owner chose the host: then nothing is remembered.
	// A provider of several also has Destinations() []string, which names all.
	Destination(d *Device) string
	// Address is what the push service knows the device by, written in one way:
	// pushkeys can be written in many. It is "" where there is no such device.
	Address(d *Device) string
}

// Delivery is one notification on its way to one device.
type Delivery struct {
	Notification *Notification
	Device       *Device
	// ID names this delivery to the push service: a lower-case UUID that stays
	// the same when the delivery is attempted again.
	ID string
	// Common keeps what is the same for all devices of the request. It may
	// be nil.
	Common *Common
}

// WithoutFurther returns d without the further members of the notification, for a
// payload that has no room for them. It is still more than counts.
func (d Delivery) WithoutFurther() Delivery {
	if d.Notification.Further != nil {
		n := *d.Notification
		n.Further = map[string]any{}
		d.Notification = &n
	}
	return d
}

// Common keeps parts of payloads that are the same for all devices of a
// request, so that a hundred devices do not cost a hundred times the work on
// one event. It is safe for concurrent use; the zero Common is empty.
type Common struct {
	mu    sync.Mutex
	parts map[reflect.Type]any
}

// Once returns what build returns, which is called once for each Common and
// type T. Nobody may change the result. What build returns must depend on the
// notification alone, not on the device or the app. With a nil Common it is
// built each time.
func Once[T any](c *Common, build func() T) T {
	if c == nil {
		return build()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := reflect.TypeFor[T]()
	if part, ok := c.parts[key]; ok {
		return part.(T) //nolint:forcetypeassert // it was stored under its type
	}
	part := build()
	if c.parts == nil {
		c.parts = make(map[reflect.Type]any, 1)
	}
	c.parts[key] = part
	return part
}
