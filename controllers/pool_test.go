package controllers

import (
	"strconv"
	"testing"
	"unsafe"
)

func TestAPoolKeepsEqualValuesOnce(t *testing.T) {
	p := pool[[]int]{}
	first := p.share("a", []int{1})
	if again := p.share("a", []int{1}); unsafe.SliceData(first) != unsafe.SliceData(again) {
		t.Error("two slices are kept")
	}
	if other := p.share("b", []int{2}); other[0] != 2 {
		t.Errorf("got %v for another key", other)
	}
	if empty := p.share("", []int{}); len(empty) != 0 || len(p.recent) != 2 {
		t.Errorf("an empty value gave %v, and %d values are kept", empty, len(p.recent))
	}
}

func TestAPoolForgetsWhatNobodyHasAnyMore(t *testing.T) {
	p := pool[int]{}
	for i := range 10 * poolSize {
		p.share(strconv.Itoa(i), i)
		if got := p.share("used all the time", -1-i); got != -1 {
			t.Fatalf("after %d others, what is used all the time was forgotten", i)
		}
	}
	if kept := len(p.recent) + len(p.older); kept > 2*poolSize {
		t.Errorf("%d values are kept, want at most %d", kept, 2*poolSize)
	}
}

func TestKeysDifferWithTheContent(t *testing.T) {
	raw := func(b *[]byte) ([]byte, error) { return *b, nil }
	lists := [][][]byte{{}, {nil}, {[]byte("a")}, {[]byte("ab")}, {[]byte("a"), []byte("b")}, {[]byte("b"), []byte("a")}}
	seen := map[string]int{}
	for i, list := range lists {
		key := keyOf(list, raw)
		if other, known := seen[key]; known {
			t.Errorf("lists %d and %d have the key %q", i, other, key)
		}
		seen[key] = i
	}
	if a, b := keyOfMap(map[string]string{"a": "1", "b": "2"}), keyOfMap(map[string]string{"a": "1", "b": "3"}); a == b || a == "" {
		t.Errorf("the keys of two maps are %q and %q", a, b)
	}
}
