package load

import (
	"context"
	"fmt"
	"runtime/metrics"
	"time"

	"go.starlark.net/starlark"
)

// maxMemory bounds by how much the heap may grow while one file is evaluated. The interpreter counts steps and not bytes,
// so this is a net for accidents and for hostile files, not a fine measure: one step may double what there is before it
// is noticed.
const maxMemory = 1 << 30

// maxRange bounds range(), whose elements list() and its like make in a single step.
const maxRange = 10_000_000

// guard cancels t when ctx is done or the heap has grown by too much, until done is called.
func guard(ctx context.Context, t *starlark.Thread) (done func()) {
	ended := make(chan struct{})
	// Nearly all evaluations are over before the first look.
	timer := time.AfterFunc(20*time.Millisecond, func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for base := heap(); ; {
			select {
			case <-ended:
				return
			case <-ctx.Done():
				t.Cancel(ctx.Err().Error())
				return
			case <-tick.C:
			}
			if now := heap(); now > base+maxMemory {
				t.Cancel(fmt.Sprintf("it took more than %d MB of memory: move the work into a rule's command", maxMemory>>20))
				return
			}
		}
	})
	return func() {
		timer.Stop()
		close(ended)
	}
}

// heap returns how many bytes the heap's objects take, those included that no collection has freed yet.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func boundedRange(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	v, err := starlark.Call(thread, starlark.Universe["range"], args, kwargs)
	if err != nil {
		return nil, err
	}
	if n := starlark.Len(v); n > maxRange {
		return nil, fmt.Errorf("range: %d elements; %d is the most", n, maxRange)
	}
	return v, nil
}
