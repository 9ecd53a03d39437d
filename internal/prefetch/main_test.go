package prefetch_test

import (
	"flag"
	"os"
	"testing"
)

// A failed property prints its seed and what it drew; files of them would only lie around.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.nofailfile": "true", "rapid.shrinktime": "5s"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	flag.Parse()
	os.Exit(m.Run())
}
