package main

import "testing"

func TestPercentOf(t *testing.T) {
	const mib = 1 << 20
	for _, tc := range []struct {
		name string
		live uint64
		want int
	}{
		{"nothing is known yet", 0, 1000},
		{"next to nothing", 1, 1000},
		{"a small heap", 10 * mib, 200},
		{"one of the size of the least garbage", 20 * mib, 100},
		{"where both bounds meet", 80 * mib, 25},
		{"a large heap", 400 * mib, 25},
	} {
		if got := percentOf(tc.live); got != tc.want {
			t.Errorf("%s: GOGC is %d, not %d", tc.name, got, tc.want)
		}
	}
}
