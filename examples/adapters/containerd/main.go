// The adapter of containerd's package kmutex, as it is. peers.py puts its source beside this file, and that of
// golang.org/x/sync/semaphore, and builds it.
//
//	containerd NAME FEATURES          a panic of Unlock ends the process, as it does in Go
//	containerd NAME FEATURES recover  it is recovered, and counts as "unheld"
//	containerd -nil-context           what a context that is nil does, in words
//
// FEATURES are those that x/sync decides, with commas: pass,refuse or keep.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"
	"unsafe"

	"peer/kmutex"
)

type command struct {
	Op      string
	ID      int64 `json:"id"`
	Key     string
	Timeout int64 // milliseconds
	Done    bool
	Call    int64
}

type reply map[string]any

func main() {
	if len(os.Args) == 2 && os.Args[1] == "-nil-context" {
		nilContext()
		return
	}
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "adapter: usage: containerd NAME FEATURES [recover]")
		os.Exit(2)
	}
	features := append(strings.Split(os.Args[2], ","), "fifo", "cancel", "stat", "done", "deadline")
	recovers := len(os.Args) > 3
	if recovers {
		features = append(features, "unheld")
	}
	var locker kmutex.KeyedLocker
	var calls map[int64]context.CancelFunc // of this reset; an ended one may be cancelled too
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 65537)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			fmt.Fprintln(os.Stderr, "adapter: not a command:", err)
			os.Exit(2)
		}
		switch c.Op {
		case "hello":
			say(reply{"id": c.ID, "protocol": 1, "name": os.Args[1], "features": features})
		case "reset":
			locker, calls = kmutex.New(), make(map[int64]context.CancelFunc)
			say(reply{"id": c.ID, "result": "ok"})
		case "lock":
			ctx, cancel := context.WithCancel(context.Background())
			if c.Timeout > 0 {
				ctx, cancel = context.WithTimeout(ctx, time.Duration(c.Timeout)*time.Millisecond)
			}
			if c.Done {
				cancel()
			}
			calls[c.ID] = cancel
			go lock(ctx, locker, c)
		case "cancel":
			calls[c.Call]()
			say(reply{"id": c.ID, "result": "ok"})
		case "unlock":
			say(reply{"id": c.ID, "result": unlock(locker, c.Key, recovers)})
		case "stat":
			say(reply{"id": c.ID, "keys": table(locker)})
		case "bye":
			say(reply{"id": c.ID, "result": "ok"})
			return
		default:
			say(reply{"id": c.ID, "result": "error", "message": "no command is called " + c.Op})
		}
	}
}

func lock(ctx context.Context, locker kmutex.KeyedLocker, c command) {
	switch err := locker.Lock(ctx, c.Key); {
	case err == nil:
		say(reply{"id": c.ID, "result": "granted"})
	case errors.Is(err, context.Canceled):
		say(reply{"id": c.ID, "result": "cancelled"})
	case errors.Is(err, context.DeadlineExceeded):
		say(reply{"id": c.ID, "result": "timeout"})
	default:
		say(reply{"id": c.ID, "result": "error", "message": err.Error()})
	}
}

func unlock(locker kmutex.KeyedLocker, key string, recovers bool) (word string) {
	if recovers {
		defer func() {
			if recover() != nil {
				word = "unheld"
			}
		}()
	}
	locker.Unlock(key)
	return "released"
}

// table reads the map, the references and the length of the semaphore's list, each under its own mutex. The package
// shows none of them.
func table(locker kmutex.KeyedLocker) map[string]map[string]int64 {
	mutex := reflect.ValueOf(locker).Elem()
	defer locked(mutex.FieldByName("mu"))()
	keys := make(map[string]map[string]int64)
	for each := mutex.FieldByName("locks").MapRange(); each.Next(); {
		entry := each.Value().Elem()
		semaphore := entry.FieldByName("Weighted").Elem()
		release := locked(semaphore.FieldByName("mu"))
		keys[each.Key().String()] = map[string]int64{
			"refs":    entry.FieldByName("ref").Int(),
			"waiters": semaphore.FieldByName("waiters").FieldByName("len").Int(),
		}
		release()
	}
	return keys
}

func locked(field reflect.Value) func() {
	mutex := (*sync.Mutex)(unsafe.Pointer(field.UnsafeAddr()))
	mutex.Lock()
	return mutex.Unlock
}

// nilContext calls Lock with a nil context at a free key and at a held one, and says what is left in the table.
func nilContext() {
	for _, held := range []bool{false, true} {
		locker := kmutex.New()
		state := "free"
		if held {
			state = "held"
			if err := locker.Lock(context.Background(), "a"); err != nil {
				panic(err)
			}
		}
		ended := "returns"
		func() {
			defer func() {
				if cause := recover(); cause != nil {
					ended = "panics"
				}
			}()
			var none context.Context
			if err := locker.Lock(none, "a"); err != nil {
				ended = "fails"
			}
		}()
		if held {
			locker.Unlock("a")
		} else if ended == "returns" {
			locker.Unlock("a")
		}
		left, err := json.Marshal(table(locker))
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s key: Lock %s; after the unlock of every grant that returned: %s\n", state, ended, left)
	}
}

var output sync.Mutex

func say(r reply) {
	line, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	output.Lock()
	defer output.Unlock()
	if _, err := os.Stdout.Write(append(line, '\n')); err != nil {
		os.Exit(2)
	}
}
