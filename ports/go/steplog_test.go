package kmutex

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The logs go to the folder that KMUTEX_LOGS names, for `kmutex check-trace`: sound.ndjson, and one for each clause that a
// table with a mistake breaks. tests/ports/test_ports_logs.py has them judged.

func recorded(t *testing.T, name string, use func(m *KeyedMutex)) string {
	t.Helper()
	var m KeyedMutex
	var out bytes.Buffer
	log := m.Record(&out)
	use(&m)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if folder := os.Getenv("KMUTEX_LOGS"); folder != "" {
		if err := os.WriteFile(filepath.Join(folder, name+".ndjson"), out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(forever)
	cancel()
	return ctx
}

// KM-EXCL, KM-REF, KM-IDLE, KM-FIFO, KM-HANDOFF, KM-INDEP, KM-CANCEL, KM-RACE, KM-EXPIRED, KM-UNHELD, KM-ATOMIC, KM-LIVE:
// one of each thing that they are about, and then many goroutines at once.
func TestTheStepsAreRecorded(t *testing.T) {
	said := recorded(t, "sound", func(m *KeyedMutex) {
		mustLock(t, m, "other")
		mustLock(t, m, "a")
		_, gone := m.request("a")
		_, first := m.request("a")
		_, second := m.request("a")
		m.withdraw(cancelled(), "a", gone)
		if m.TryLock("a") {
			t.Error("a is taken twice")
		}
		mustUnlock(t, m, "a")
		m.withdraw(cancelled(), "a", first) // it has its grant, and passes it on
		mustUnlock(t, m, "a")
		m.withdraw(cancelled(), "a", second) // its grant has been ended
		if err := m.Unlock("a"); !errors.Is(err, ErrUnheld) {
			t.Error(err)
		}
		mustUnlock(t, m, "other")
		storm(t, m)
	})
	for _, words := range []string{`"request", "key": "a", "call": 5, "refs": 4, "holder": 2`, `"keys": 0`, "cancelled"} {
		if !strings.Contains(said, words) {
			t.Errorf("the log has no %s", words)
		}
	}
}

func storm(t *testing.T, m *KeyedMutex) {
	var all sync.WaitGroup
	for client := 0; client < 8; client++ {
		all.Add(1)
		go func(client int) {
			defer all.Done()
			for round := 0; round < 200; round++ {
				key := []string{"a", "b", "<", "\xff"}[(client+round)%4]
				ctx, cancel := context.WithCancel(forever)
				if (client*round)%3 == 0 {
					go cancel()
				}
				if round%5 == 0 && m.TryLock(key) || m.Lock(ctx, key) == nil {
					if err := m.Unlock(key); err != nil {
						t.Error(err)
					}
				}
				cancel()
			}
		}(client)
	}
	all.Wait()
}

// Whoever can't write locks all the same.
func TestALogThatCanNotBeWrittenHarmsNobody(t *testing.T) {
	var m KeyedMutex
	log := m.Record(full{})
	for round := 0; round < 100; round++ {
		mustLock(t, &m, "a")
		mustUnlock(t, &m, "a")
	}
	if err := log.Close(); !errors.Is(err, errFull) {
		t.Error(err)
	}
}

var errFull = errors.New("no space is left")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// Tables with one mistake each, made by hand, which log what they do as the right one does. The name is the clause that
// the log must be convicted by.
func TestWrongStepsAreRecordedAsTheyAre(t *testing.T) {
	for clause, use := range map[string]func(m *KeyedMutex){
		"KM-EXCL": func(m *KeyedMutex) { // takes the key from its holder
			m.request("a")
			m.log.asks("a", m.entries["a"].PushFront(nil))
		},
		"KM-REF": func(m *KeyedMutex) { // queues one call twice
			m.request("a")
			m.entries["a"].PushBack(nil)
			m.log.asks("a", m.entries["a"].PushBack(nil))
		},
		"KM-IDLE": func(m *KeyedMutex) { // leaves an empty entry
			m.request("a")
			holder := m.entries["a"].Front()
			m.entries["a"].Remove(holder)
			m.log.leaves("release", "a", holder, true, "")
		},
		"KM-FIFO": func(m *KeyedMutex) { // serves the youngest
			m.request("a")
			m.request("a")
			m.request("a")
			queue := m.entries["a"]
			holder := queue.Front()
			queue.Remove(holder)
			queue.MoveToFront(queue.Back())
			m.log.leaves("release", "a", holder, true, "")
		},
		"KM-HANDOFF": func(m *KeyedMutex) { // deletes the entry at the unlock, whoever waits in it
			m.request("a")
			m.request("a")
			holder := m.entries["a"].Front()
			delete(m.entries, "a")
			m.log.leaves("release", "a", holder, true, "")
		},
		"KM-CANCEL": func(m *KeyedMutex) { // grants the key to a call that has given up
			m.request("a")
			_, gone := m.request("a")
			call := m.log.calls[gone]
			m.withdraw(cancelled(), "a", gone)
			queue := m.entries["a"]
			holder := queue.Front()
			queue.Remove(holder)
			m.log.calls[queue.PushBack(nil)] = call
			m.log.leaves("release", "a", holder, true, "")
		},
		"KM-EXPIRED": func(m *KeyedMutex) { // refuses a free key
			m.log.refused("a")
		},
		"KM-UNHELD": func(m *KeyedMutex) { // an unlock of a free key works
			m.log.leaves("release", "a", new(list.Element), false, "")
		},
		"KM-ATOMIC": func(m *KeyedMutex) { // gives up, and stays in the queue
			m.request("a")
			_, gone := m.request("a")
			m.log.gaveUp(cancelled(), "a", gone, false)
		},
		"KM-LIVE": func(m *KeyedMutex) { // never wakes
			m.request("a")
			m.request("a")
		},
	} {
		recorded(t, clause, use)
	}
}
