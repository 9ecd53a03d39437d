package rollout_test

import (
	"flag"
	"os"
	"testing"
)

// A failed property prints its seed and what it drew; files of them would only lie around. A
// property has 20 cases, or as many as -rapid.checks says.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.nofailfile": "true", "rapid.checks": "20", "rapid.shrinktime": "5s"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	flag.Parse()
	os.Exit(m.Run())
}
