package p9srv

import (
	"testing"
	"time"
)

// SetPatience is for tests that start their server later.
func SetPatience(t *testing.T, d time.Duration) {
	was := patience
	t.Cleanup(func() { patience = was })
	patience = d
}
