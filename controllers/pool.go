package controllers

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unique"
)

// shared is the same string, which is kept once however many objects have it.
func shared[S ~string](s S) S { return unique.Make(s).Value() }

// poolSize is how many values a pool remembers at least: siblings mostly come soon after one another.
const poolSize = 2000

// pool lets equal values be kept once. Who takes a value from it must not change it. It is safe for
// concurrent use.
type pool[T any] struct {
	mu            sync.Mutex
	recent, older map[string]T
}

// share is the first value that came with the key, or else this one. An empty key is that of an empty
// value, which is not kept.
func (p *pool[T]) share(key string, value T) T {
	if key == "" {
		return value
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if first, known := p.recent[key]; known {
		return first
	}
	if first, known := p.older[key]; known {
		value = first
	}
	if p.recent == nil || len(p.recent) >= poolSize {
		p.recent, p.older = map[string]T{}, p.recent
	}
	p.recent[key] = value
	return value
}

// keyOf names the content of a list. What can't be encoded has no name, and is not shared.
func keyOf[T any](list []T, encode func(*T) ([]byte, error)) string {
	var key []byte
	for i := range list {
		data, err := encode(&list[i])
		if err != nil {
			return ""
		}
		key = append(strconv.AppendInt(key, int64(len(data)), 10), ' ')
		key = append(key, data...)
	}
	return string(key)
}

// keyOfMap names the content of a map of labels.
func keyOfMap(m map[string]string) string {
	var key strings.Builder
	for _, name := range slices.Sorted(maps.Keys(m)) {
		key.WriteString(name + "=" + m[name] + ",") // neither is in a label
	}
	return key.String()
}
