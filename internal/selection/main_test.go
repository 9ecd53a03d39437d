package selection_test

import (
	"flag"
	"os"
	"testing"
)

// A failed property prints its seed and what it drew; files of them would only lie around. A
// property has 200 cases, or as many as -rapid.checks says.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.nofailfile": "true", "rapid.checks": "200", "rapid.shrinktime": "5s"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	flag.Parse()
	os.Exit(m.Run())
}
