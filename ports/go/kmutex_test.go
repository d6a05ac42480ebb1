package kmutex

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

var forever = context.Background()

func mustLock(t *testing.T, m *KeyedMutex, key string) {
	t.Helper()
	if err := m.Lock(forever, key); err != nil {
		t.Fatalf("lock of %q: %v", key, err)
	}
}

func mustUnlock(t *testing.T, m *KeyedMutex, key string) {
	t.Helper()
	if err := m.Unlock(key); err != nil {
		t.Fatalf("unlock of %q: %v", key, err)
	}
}

// ask starts a Lock and returns when it stands in the queue.
func ask(m *KeyedMutex, ctx context.Context, key string) <-chan error {
	before := m.Snapshot()[key].Waiters
	done := make(chan error, 1)
	go func() { done <- m.Lock(ctx, key) }()
	for m.Snapshot()[key].Waiters == before {
		runtime.Gosched()
	}
	return done
}

func wantCounts(t *testing.T, m *KeyedMutex, want map[string]Counts) {
	t.Helper()
	if got := m.Snapshot(); !reflect.DeepEqual(got, want) {
		t.Fatalf("live keys %v, want %v", got, want)
	}
}

func silent(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("a call that must wait returned %v", err)
	default:
	}
}

// KM-IDLE, KM-REF: nothing is kept of a key that was unlocked.
func TestAnIdleKeyIsGone(t *testing.T) {
	var m KeyedMutex
	mustLock(t, &m, "a")
	wantCounts(t, &m, map[string]Counts{"a": {Refs: 1}})
	mustUnlock(t, &m, "a")
	wantCounts(t, &m, map[string]Counts{})
}

// KM-FIFO, KM-HANDOFF: each unlock makes the oldest waiter the holder, and a try in between gets nothing.
func TestWaitersAreServedInOrder(t *testing.T) {
	var m KeyedMutex
	mustLock(t, &m, "a")
	waiters := []<-chan error{ask(&m, forever, "a"), ask(&m, forever, "a"), ask(&m, forever, "a")}
	for i, done := range waiters {
		mustUnlock(t, &m, "a")
		if m.TryLock("a") {
			t.Fatal("a newcomer got a key that was handed over")
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for _, later := range waiters[i+1:] {
			silent(t, later)
		}
	}
	mustUnlock(t, &m, "a")
	wantCounts(t, &m, map[string]Counts{})
}

// KM-CANCEL: a waiter leaves from the middle, the others keep their order.
func TestACancelledWaiterLeaves(t *testing.T) {
	var m KeyedMutex
	mustLock(t, &m, "a")
	first := ask(&m, forever, "a")
	ctx, cancel := context.WithCancel(forever)
	middle := ask(&m, ctx, "a")
	last := ask(&m, forever, "a")
	cancel()
	if err := <-middle; !errors.Is(err, context.Canceled) {
		t.Fatalf("the cancelled call returned %v", err)
	}
	wantCounts(t, &m, map[string]Counts{"a": {Refs: 3, Waiters: 2}})
	mustUnlock(t, &m, "a")
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	silent(t, last)
	mustUnlock(t, &m, "a")
	if err := <-last; err != nil {
		t.Fatal(err)
	}
	mustUnlock(t, &m, "a")
	wantCounts(t, &m, map[string]Counts{})
}

// KM-RACE, "pass": a ticket that is granted and withdrawn, before its call has looked, passes the key on.
func TestAGrantThatMeetsACancelGoesOn(t *testing.T) {
	var m KeyedMutex
	mustLock(t, &m, "a")
	granted, ticket := m.request("a")
	next := ask(&m, forever, "a")
	mustUnlock(t, &m, "a")
	<-granted
	m.withdraw(forever, "a", ticket)
	if err := <-next; err != nil {
		t.Fatal(err)
	}
	wantCounts(t, &m, map[string]Counts{"a": {Refs: 1}})
	mustUnlock(t, &m, "a")

	mustLock(t, &m, "a")
	granted, ticket = m.request("a")
	mustUnlock(t, &m, "a")
	<-granted
	m.withdraw(forever, "a", ticket)
	wantCounts(t, &m, map[string]Counts{})
}

// KM-RACE: a context that is done before the grant always wins, although select would pick at random.
func TestACancelBeforeTheUnlockWins(t *testing.T) {
	for round := 0; round < 200; round++ {
		var m KeyedMutex
		mustLock(t, &m, "a")
		ctx, cancel := context.WithCancel(forever)
		done := ask(&m, ctx, "a")
		cancel()
		mustUnlock(t, &m, "a")
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("round %d: the call returned %v", round, err)
		}
		wantCounts(t, &m, map[string]Counts{})
	}
}

// KM-RACE: a grant that somebody else's Unlock has ended is not passed on a second time.
func TestAWithdrawalOfAnEndedGrantTouchesNobody(t *testing.T) {
	var m KeyedMutex
	mustLock(t, &m, "a")
	_, ticket := m.request("a")
	mustUnlock(t, &m, "a")
	mustUnlock(t, &m, "a")
	m.withdraw(forever, "a", ticket)
	wantCounts(t, &m, map[string]Counts{})
	mustLock(t, &m, "a")
	m.withdraw(forever, "a", ticket)
	wantCounts(t, &m, map[string]Counts{"a": {Refs: 1}})
}

// KM-UNHELD, KM-ATOMIC: unlocking what nobody holds is an error that leaves the key a mutex.
func TestAStrayUnlockChangesNothing(t *testing.T) {
	var m KeyedMutex
	if err := m.Unlock("a"); !errors.Is(err, ErrUnheld) {
		t.Fatalf("the stray unlock returned %v", err)
	}
	wantCounts(t, &m, map[string]Counts{})
	mustLock(t, &m, "a")
	if m.TryLock("a") {
		t.Fatal("two holders after a stray unlock")
	}
}

// KM-EXPIRED: a try takes a free key and is refused at a held one without a trace; so is a context that is done.
func TestNoTimeToWait(t *testing.T) {
	var m KeyedMutex
	if !m.TryLock("a") || m.TryLock("a") {
		t.Fatal("a try takes a free key, once")
	}
	wantCounts(t, &m, map[string]Counts{"a": {Refs: 1}})
	ctx, cancel := context.WithCancel(forever)
	cancel()
	for _, key := range []string{"a", "free"} {
		if err := m.Lock(ctx, key); !errors.Is(err, context.Canceled) {
			t.Fatalf("a lock of %q without time returned %v", key, err)
		}
	}
	wantCounts(t, &m, map[string]Counts{"a": {Refs: 1}})
}

// KM-INDEP: a held key with a waiter delays no other key.
func TestOtherKeysGoOn(t *testing.T) {
	var m KeyedMutex
	mustLock(t, &m, "a")
	done := ask(&m, forever, "a")
	mustLock(t, &m, "b")
	mustUnlock(t, &m, "b")
	silent(t, done)
	mustUnlock(t, &m, "a")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// KM-EXCL, KM-LIVE, KM-RACE: many goroutines, a few keys, cancels that meet grants. Under -race the plain counter is
// also the detector's witness.
func TestManyAtOnce(t *testing.T) {
	var m KeyedMutex
	const workers, rounds, keys = 8, 300, 3
	var held [keys]int
	var in [keys]int
	var entered, cancelled int64
	var all sync.WaitGroup
	for w := 0; w < workers; w++ {
		all.Add(1)
		go func(w int) {
			defer all.Done()
			for r := 0; r < rounds; r++ {
				k := (w + r) % keys
				ctx, cancel := context.WithCancel(forever)
				if (w+r)%2 == 0 {
					go cancel()
				}
				if err := m.Lock(ctx, strconv.Itoa(k)); err != nil {
					atomic.AddInt64(&cancelled, 1)
					cancel()
					continue
				}
				in[k]++
				if in[k] != 1 {
					t.Errorf("%d holders of key %d", in[k], k)
				}
				held[k]++
				runtime.Gosched()
				in[k]--
				if err := m.Unlock(strconv.Itoa(k)); err != nil {
					t.Error(err)
				}
				atomic.AddInt64(&entered, 1)
				cancel()
			}
		}(w)
	}
	all.Wait()
	wantCounts(t, &m, map[string]Counts{})
	if int64(held[0]+held[1]+held[2]) != entered || entered+cancelled != workers*rounds {
		t.Fatalf("%v grants, %d entered, %d cancelled", held, entered, cancelled)
	}
	if cancelled == 0 {
		t.Fatal("no call was cancelled, so no cancel can have met a grant")
	}
}
