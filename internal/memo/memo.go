// Package memo remembers what was read of objects that are asked for again and again.
package memo

import "sync"

// Memo remembers values by keys that name one state of an object, like its UID and its version. The zero value is empty; several
// goroutines may use it. Nobody may change what it returns.
type Memo[K comparable, V any] struct {
	mu     sync.Mutex
	values map[K]V
}

// Get is the value of a key, made where it is not known; an error is not remembered. A memo of that many values, limit, starts anew, so
// that those of objects that are gone don't fill it.
func (m *Memo[K, V]) Get(key K, limit int, read func() (V, error)) (V, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if value, known := m.values[key]; known {
		return value, nil
	}
	value, err := read()
	if err != nil {
		return value, err
	}
	if m.values == nil || len(m.values) >= limit {
		m.values = map[K]V{}
	}
	m.values[key] = value
	return value, nil
}

// Len is how many values are known.
func (m *Memo[K, V]) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.values)
}
