package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// headroom is by how much the heap may grow between two garbage collections. By default it is as much as is live, so a
// process that lives for a second collects a dozen times while its heap is small, and has hundreds of megabytes to
// spare when it is large.
const headroom = 96 << 20

// minHeap is what the runtime collects at with 100 %.
const minHeap = 4 << 20

// tuneMemory keeps the headroom from now on.
func tuneMemory() {
	debug.SetGCPercent(headroom / minHeap * 100)
	afterCollection()
}

// afterCollection sets the next goal now and after each collection.
func afterCollection() {
	type sentinel struct{ _ [16]byte }
	var again func(*sentinel)
	again = func(*sentinel) {
		sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(sample)
		if live := sample[0].Value.Uint64(); live > minHeap {
			debug.SetGCPercent(int(max(headroom*100/live, 25)))
		}
		runtime.SetFinalizer(&sentinel{}, again)
	}
	runtime.SetFinalizer(&sentinel{}, again)
}
