//go:build live

package buildkit

// SetKeepSpace bounds what engines of this process keep.
func SetKeepSpace(most int64) { keepSpace.reserved, keepSpace.most = most/4, most }
