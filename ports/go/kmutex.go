// Package kmutex is a keyed mutex: a mutex for each key, made on demand and gone when idle. The ids (KM-...) are the
// clauses of specs/contract.md.
package kmutex

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
)

// ErrUnheld is what Unlock returns, wrapped, for a key that nobody holds (KM-UNHELD).
var ErrUnheld = errors.New("unlock of a key that nobody holds")

// KeyedMutex is ready to use as it is declared. It must not be copied after its first use, and is not re-entrant: who
// locks a key it holds waits for itself.
//
// An entry is a queue of tickets. Its head holds the key, the others wait, and its length is the reference count, so
// there is no count that could differ from the queue (KM-REF), and to remove the head is to hand over (KM-HANDOFF).
type KeyedMutex struct {
	guard   sync.Mutex
	entries map[string]*list.List
	log     *StepLog // where it is recorded, see Record
}

// Counts is what one live key has at one moment.
type Counts struct {
	Refs    int `json:"refs"`    // the holder and the waiters
	Waiters int `json:"waiters"` // who waits
}

// Lock returns nil once the caller holds key (KM-EXCL), first come first served (KM-FIFO).
//
// It returns ctx.Err(), and the caller does not hold the key, if ctx is done before the call, also where the key is
// free; or in the wait (KM-CANCEL). A context that is done when the grant is seen wins: the grant goes on to the next
// waiter (KM-RACE, "pass").
func (m *KeyedMutex) Lock(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	granted, ticket := m.request(key)
	if ticket == nil {
		return nil
	}
	select {
	case <-granted:
		// select picks at random where both are ready, so it alone does not make the context win.
		if ctx.Err() == nil {
			return nil
		}
	case <-ctx.Done():
	}
	// Which of the two came first is for the queue to say: the ticket may have become its head in the meantime.
	m.withdraw(ctx, key, ticket)
	return ctx.Err()
}

// TryLock takes a free key; at a held one it returns false, at once and without a trace (KM-EXPIRED).
func (m *KeyedMutex) TryLock(key string) bool {
	m.guard.Lock()
	defer m.guard.Unlock()
	if m.entries[key] != nil {
		if m.log != nil {
			m.log.refused(key)
		}
		return false
	}
	m.open(key)
	return true
}

// Unlock releases key, whoever holds it: to the oldest waiter, or the entry goes (KM-HANDOFF, KM-IDLE). Where nobody
// holds it, the error wraps ErrUnheld and nothing has changed (KM-UNHELD, KM-ATOMIC).
func (m *KeyedMutex) Unlock(key string) error {
	m.guard.Lock()
	defer m.guard.Unlock()
	queue := m.entries[key]
	if queue == nil {
		if m.log != nil {
			m.log.unheld(key)
		}
		return fmt.Errorf("%w: %q", ErrUnheld, key)
	}
	holder := queue.Front()
	m.handOver(key, queue)
	if m.log != nil {
		m.log.leaves("release", key, holder, true, "")
	}
	return nil
}

// Snapshot has every live key; it is empty when all are idle (KM-IDLE).
func (m *KeyedMutex) Snapshot() map[string]Counts {
	m.guard.Lock()
	defer m.guard.Unlock()
	counts := make(map[string]Counts, len(m.entries))
	for key, queue := range m.entries {
		counts[key] = Counts{Refs: queue.Len(), Waiters: queue.Len() - 1}
	}
	return counts
}

// request asks and queues in one step under the guard: whoever unlocks next sees the waiter, so no wake-up can fall
// between the two. A nil ticket: the key was free and is held now. Else the ticket waits until granted is closed.
func (m *KeyedMutex) request(key string) (granted chan struct{}, ticket *list.Element) {
	m.guard.Lock()
	defer m.guard.Unlock()
	queue := m.entries[key]
	if queue == nil {
		m.open(key)
		return nil, nil
	}
	granted = make(chan struct{})
	ticket = queue.PushBack(granted)
	if m.log != nil {
		m.log.asks(key, ticket)
	}
	return granted, ticket
}

// open makes the entry of a free key, with its holder. Nobody waits on the holder's channel, so it has none. Under the
// guard.
func (m *KeyedMutex) open(key string) {
	if m.entries == nil {
		m.entries = make(map[string]*list.List)
	}
	queue := list.New()
	ticket := queue.PushBack((chan struct{})(nil))
	m.entries[key] = queue
	if m.log != nil {
		m.log.asks(key, ticket)
	}
}

// handOver removes the head; the next ticket holds from that step on. The channel is closed under the guard and
// never sent to, so telling a waiter that has given up does not block. Under the guard.
func (m *KeyedMutex) handOver(key string, queue *list.List) {
	queue.Remove(queue.Front())
	next := queue.Front()
	if next == nil {
		delete(m.entries, key)
		return
	}
	close(next.Value.(chan struct{}))
}

// withdraw undoes a request in whatever state it is: waiting, granted, or granted and ended already by an Unlock of
// the key from elsewhere. In the last case the ticket is in no queue and Remove does nothing.
func (m *KeyedMutex) withdraw(ctx context.Context, key string, ticket *list.Element) {
	m.guard.Lock()
	defer m.guard.Unlock()
	queue := m.entries[key]
	if queue == nil {
		return
	}
	held := queue.Front() == ticket
	if held {
		m.handOver(key, queue)
	} else {
		queue.Remove(ticket)
	}
	if m.log != nil {
		m.log.gaveUp(ctx, key, ticket, held)
	}
}
