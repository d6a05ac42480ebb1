package main

import (
	"context"
	"sync"
	"time"

	"kmutex"
)

// mistakes are lockers that are wrong in one way each. clauses: any of them is a right name for it, the first is the
// best.
var mistakes = []mistake{
	{"evicts-with-waiters", "KM-REF,KM-EXCL,KM-UNHELD", func() locker { return evictsWithWaiters{newSound()} }},
	{"cancel-keeps-ref", "KM-REF,KM-CANCEL,KM-IDLE", func() locker { return cancelKeepsRef{newSound()} }},
	{"cancelled-stays-queued", "KM-CANCEL,KM-REF,KM-LIVE,KM-RACE", func() locker { return cancelledStaysQueued{newSound()} }},
	{"drops-the-grant", "KM-RACE,KM-LIVE", func() locker { return dropsTheGrant{newSound()} }},
	{"lifo", "KM-FIFO,KM-HANDOFF", func() locker { return lifo{newSound()} }},
	{"barging", "KM-HANDOFF,KM-FIFO", func() locker { return barging{newSound()} }},
	{"stray-unlock-accepted", "KM-UNHELD", func() locker { return strayUnlockAccepted{newSound()} }},
	{"stray-unlock-admits-two", "KM-ATOMIC,KM-EXCL,KM-IDLE", func() locker { return strayUnlockAdmitsTwo{newSound()} }},
	{"never-evicts", "KM-IDLE", func() locker { return neverEvicts{newSound()} }},
	{"done-before-keeps-ref", "KM-CANCEL,KM-REF,KM-IDLE", func() locker { return doneBeforeKeepsRef{newSound()} }},
	{"failed-try-keeps-ref", "KM-EXPIRED,KM-REF,KM-ATOMIC,KM-IDLE", func() locker { return failedTryKeepsRef{newSound()} }},
}

type mistake struct {
	name, clauses string
	build         func() locker
}

// base has no mistake, and conforms: else one could be found for what is wrong with the locker that it is made in.
var base = mistake{"none", "", func() locker { return newSound() }}

func find(name string) (mistake, bool) {
	for _, m := range append(mistakes, base) {
		if m.name == name {
			return m, true
		}
	}
	return mistake{}, false
}

// sound is what the mistakes are made in: the usual shape, with a count beside a queue. Each type below writes one
// method again.
type sound struct {
	guard   sync.Mutex
	entries map[string]*entry
}

type entry struct {
	refs    int
	holders int
	queue   []chan struct{}
}

func newSound() *sound { return &sound{entries: make(map[string]*entry)} }

func (s *sound) Lock(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.lock(ctx, key, func(e *entry, queued bool) {
		if queued {
			s.drop(key, e)
		} else {
			s.pass(key, e)
		}
	})
}

// lock takes the key, or waits for it. Where ctx ends the wait, the call is in the queue no more, and giveUp has the
// guard: queued is false for one that had been granted the key.
func (s *sound) lock(ctx context.Context, key string, giveUp func(e *entry, queued bool)) error {
	e, granted := s.request(key)
	if granted == nil {
		return nil
	}
	select {
	case <-granted:
		if ctx.Err() == nil {
			return nil
		}
	case <-ctx.Done():
	}
	s.guard.Lock()
	defer s.guard.Unlock()
	giveUp(e, e.leave(granted))
	return ctx.Err()
}

func (s *sound) TryLock(key string) bool {
	s.guard.Lock()
	defer s.guard.Unlock()
	if s.entries[key] != nil && s.entries[key].holders > 0 {
		return false
	}
	s.take(s.entry(key))
	return true
}

func (s *sound) Unlock(key string) error { return s.unlock(key, s.pass) }

// unlock has the key of a holder handed on.
func (s *sound) unlock(key string, handOn func(key string, e *entry)) error {
	s.guard.Lock()
	defer s.guard.Unlock()
	e := s.entries[key]
	if e == nil || e.holders == 0 {
		return kmutex.ErrUnheld
	}
	handOn(key, e)
	return nil
}

func (s *sound) Snapshot() map[string]kmutex.Counts {
	s.guard.Lock()
	defer s.guard.Unlock()
	counts := make(map[string]kmutex.Counts)
	for key, e := range s.entries {
		counts[key] = kmutex.Counts{Refs: e.refs, Waiters: len(e.queue)}
	}
	return counts
}

// request takes a free key, or queues; nil: taken.
func (s *sound) request(key string) (*entry, chan struct{}) {
	s.guard.Lock()
	defer s.guard.Unlock()
	e := s.entry(key)
	if e.holders < 1 {
		s.take(e)
		return e, nil
	}
	e.refs++
	granted := make(chan struct{})
	e.queue = append(e.queue, granted)
	return e, granted
}

func (s *sound) entry(key string) *entry {
	if s.entries[key] == nil {
		s.entries[key] = &entry{}
	}
	return s.entries[key]
}

func (s *sound) take(e *entry) {
	e.refs++
	e.holders++
}

// pass gives the key of a holder who leaves to the oldest waiter.
func (s *sound) pass(key string, e *entry) {
	if len(e.queue) == 0 {
		e.holders--
	} else {
		close(e.queue[0])
		e.queue = e.queue[1:]
	}
	s.drop(key, e)
}

func (s *sound) drop(key string, e *entry) {
	e.refs--
	if e.refs == 0 {
		delete(s.entries, key)
	}
}

// leave takes a waiter out of the queue; false: it is not there, so it was granted.
func (e *entry) leave(granted chan struct{}) bool {
	for i, waiter := range e.queue {
		if waiter == granted {
			e.queue = append(e.queue[:i:i], e.queue[i+1:]...)
			return true
		}
	}
	return false
}

// evictsWithWaiters deletes the entry at each unlock: whoever waits goes on with one that nobody finds any more.
type evictsWithWaiters struct{ *sound }

func (m evictsWithWaiters) Unlock(key string) error {
	m.guard.Lock()
	defer m.guard.Unlock()
	e := m.entries[key]
	if e == nil {
		return kmutex.ErrUnheld
	}
	m.pass(key, e)
	delete(m.entries, key)
	return nil
}

// cancelKeepsRef returns early in the branch of ctx.Done, past the line that would count down.
type cancelKeepsRef struct{ *sound }

func (m cancelKeepsRef) Lock(ctx context.Context, key string) error {
	return m.lock(ctx, key, func(e *entry, queued bool) {
		if !queued {
			m.pass(key, e)
		}
	})
}

// doneBeforeKeepsRef counts, and returns early where ctx is done before the call: what a nil context does in the original
// (specs/divergences.md, 4).
type doneBeforeKeepsRef struct{ *sound }

func (m doneBeforeKeepsRef) Lock(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		m.guard.Lock()
		m.entry(key).refs++
		m.guard.Unlock()
		return err
	}
	return m.sound.Lock(ctx, key)
}

// cancelledStaysQueued leaves its channel in the queue, and is granted later, when nobody listens.
type cancelledStaysQueued struct{ *sound }

func (m cancelledStaysQueued) Lock(ctx context.Context, key string) error {
	_, granted := m.request(key)
	if granted == nil {
		return nil
	}
	select {
	case <-granted:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dropsTheGrant does not ask whether the grant came before the cancel: then it is in no queue, and the key stays with
// a call that has returned an error.
type dropsTheGrant struct{ *sound }

func (m dropsTheGrant) Lock(ctx context.Context, key string) error {
	return m.lock(ctx, key, func(e *entry, queued bool) {
		if queued {
			m.drop(key, e)
		}
	})
}

// lifo takes the waiters from the wrong end of the slice.
type lifo struct{ *sound }

func (m lifo) Unlock(key string) error {
	m.guard.Lock()
	if e := m.entries[key]; e != nil && len(e.queue) > 1 {
		last := len(e.queue) - 1
		e.queue = append([]chan struct{}{e.queue[last]}, e.queue[:last]...)
	}
	m.guard.Unlock()
	return m.sound.Unlock(key)
}

// barging frees the key and wakes the oldest waiter, who has to win it against whoever comes: the way of sync.Cond. The
// pause stands for a machine that is busy when he wakes; without it the mistake shows in few bursts only.
type barging struct{ *sound }

func (m barging) Lock(ctx context.Context, key string) error {
	m.guard.Lock()
	defer m.guard.Unlock()
	e := m.entry(key)
	e.refs++
	for e.holders > 0 {
		woken := make(chan struct{})
		e.queue = append(e.queue, woken)
		m.guard.Unlock()
		select {
		case <-woken:
			time.Sleep(time.Millisecond)
		case <-ctx.Done():
		}
		m.guard.Lock()
		if ctx.Err() != nil {
			if !e.leave(woken) {
				m.wake(e)
			}
			m.drop(key, e)
			return ctx.Err()
		}
	}
	e.holders++
	return nil
}

func (m barging) Unlock(key string) error {
	return m.unlock(key, func(key string, e *entry) {
		e.holders--
		m.wake(e)
		m.drop(key, e)
	})
}

func (m barging) wake(e *entry) {
	if len(e.queue) > 0 {
		close(e.queue[0])
		e.queue = e.queue[1:]
	}
}

// strayUnlockAccepted says nothing about a key that is not in the map, as delete does.
type strayUnlockAccepted struct{ *sound }

func (m strayUnlockAccepted) Unlock(key string) error {
	_ = m.sound.Unlock(key)
	return nil
}

// strayUnlockAdmitsTwo lowers the count of holders and complains afterwards, as the semaphore of the original does
// (specs/divergences.md, 1). The original has to be caught between counting and taking; this one makes the entry that
// it does not find, so it is caught in any order.
type strayUnlockAdmitsTwo struct{ *sound }

func (m strayUnlockAdmitsTwo) Unlock(key string) error {
	m.guard.Lock()
	defer m.guard.Unlock()
	e := m.entry(key)
	if e.holders < 1 {
		e.holders--
		return kmutex.ErrUnheld
	}
	m.pass(key, e)
	return nil
}

// neverEvicts is sync.Map with LoadOrStore, and nothing that deletes.
type neverEvicts struct{ *sound }

func (m neverEvicts) Unlock(key string) error {
	return m.unlock(key, func(key string, e *entry) {
		m.pass(key, e)
		m.entries[key] = e
	})
}

// failedTryKeepsRef counts before it looks, and does not count down where it is refused.
type failedTryKeepsRef struct{ *sound }

func (m failedTryKeepsRef) TryLock(key string) bool {
	m.guard.Lock()
	defer m.guard.Unlock()
	e := m.entry(key)
	e.refs++
	if e.holders > 0 {
		return false
	}
	e.holders++
	return true
}
