// Command adapter drives one locker by the adapter protocol, version 1 (specs/protocol.md).
//
//	adapter                 the package kmutex
//	adapter --broken NAME   a locker with one mistake (broken.go), or with none: the one that they are made in
//	adapter --list-broken   NAME KM-XXX[,KM-YYY], a line for each
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"kmutex"
)

const maxLine = 65536

var features = []string{"fifo", "cancel", "pass", "try", "unheld", "stat", "done", "refuse", "deadline"}

type locker interface {
	Lock(ctx context.Context, key string) error
	TryLock(key string) bool
	Unlock(key string) error
	Snapshot() map[string]kmutex.Counts
}

type command struct {
	Op       string
	ID       *int64 `json:"id"`
	Protocol int
	Key      *string
	Timeout  *int64 // milliseconds
	Done     bool
	Call     *int64
}

type reply map[string]any

func main() {
	broken := flag.String("broken", "", "use the locker with this mistake")
	list := flag.Bool("list-broken", false, "list the mistakes, with the clauses they break")
	flag.Parse()
	name, build := "kmutex-go", func() locker { return new(kmutex.KeyedMutex) }
	if *list {
		for _, m := range mistakes {
			fmt.Println(m.name, m.clauses)
		}
		return
	}
	if *broken != "" {
		m, found := find(*broken)
		if !found {
			fail("no mistake is called " + *broken + "; --list-broken has them")
		}
		name, build = name+" (broken: "+m.name+")", m.build
	}

	var current *session
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, maxLine+1)
	for lines.Scan() {
		var c command
		err := json.Unmarshal(lines.Bytes(), &c)
		var field *json.UnmarshalTypeError
		wrongField := errors.As(err, &field) && field.Field != "" && field.Field != "id"
		if err != nil && !wrongField {
			fail("not a command: " + err.Error())
		}
		if c.ID == nil {
			fail("a command without an id")
		}
		switch {
		case wrongField:
			say(failed(*c.ID, err.Error()))
		case c.Op == "hello" && c.Protocol == 1:
			say(reply{"id": *c.ID, "protocol": 1, "name": name, "features": features})
		case c.Op == "reset":
			current = &session{locker: build(), calls: make(map[int64]context.CancelFunc)}
			say(result(*c.ID, "ok"))
		case c.Op == "bye":
			say(result(*c.ID, "ok"))
			return
		case current == nil:
			say(failed(*c.ID, "the first commands are hello, with protocol 1, and reset"))
		default:
			current.obey(c)
		}
	}
	if err := lines.Err(); err != nil {
		fail("reading commands: " + err.Error())
	}
}

// session is what one reset begins. A call of an older session keeps its own locker, and can disturb no later one.
type session struct {
	locker locker
	guard  sync.Mutex
	calls  map[int64]context.CancelFunc // those that have not ended
}

func (s *session) obey(c command) {
	switch {
	case c.Op == "lock" && c.Key != nil && (c.Timeout == nil || *c.Timeout >= 0):
		try := c.Timeout != nil && *c.Timeout == 0
		ctx, cancel := context.WithCancel(context.Background())
		if c.Timeout != nil && !try {
			ctx, cancel = context.WithTimeout(context.Background(), time.Duration(*c.Timeout)*time.Millisecond)
		}
		if c.Done {
			cancel()
		}
		// The call can be cancelled from the next command on, so it is known before it starts.
		s.guard.Lock()
		s.calls[*c.ID] = cancel
		s.guard.Unlock()
		go func() {
			answer := guarded(*c.ID, func() string { return s.lock(ctx, *c.Key, try) })
			s.guard.Lock()
			delete(s.calls, *c.ID)
			s.guard.Unlock()
			cancel()
			say(answer)
		}()
	case c.Op == "unlock" && c.Key != nil:
		say(guarded(*c.ID, func() string {
			err := s.locker.Unlock(*c.Key)
			if errors.Is(err, kmutex.ErrUnheld) {
				return "unheld"
			}
			if err != nil {
				panic(err)
			}
			return "released"
		}))
	case c.Op == "cancel" && c.Call != nil:
		s.guard.Lock()
		cancel := s.calls[*c.Call]
		s.guard.Unlock()
		if cancel != nil {
			cancel()
		}
		say(result(*c.ID, "ok"))
	case c.Op == "stat":
		say(reply{"id": *c.ID, "keys": s.locker.Snapshot()})
	default:
		say(failed(*c.ID, fmt.Sprintf("no such command, or a field of it is missing or wrong: %q", c.Op)))
	}
}

func (s *session) lock(ctx context.Context, key string, try bool) string {
	if try {
		if s.locker.TryLock(key) {
			return "granted"
		}
		return "timeout"
	}
	err := s.locker.Lock(ctx, key)
	if errors.Is(err, context.Canceled) {
		return "cancelled"
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	if err != nil {
		panic(err)
	}
	return "granted"
}

// guarded is the reply of a call; that of a panic is an error.
func guarded(id int64, call func() string) (answer reply) {
	defer func() {
		if cause := recover(); cause != nil {
			answer = failed(id, fmt.Sprint(cause))
		}
	}()
	return result(id, call())
}

func result(id int64, word string) reply { return reply{"id": id, "result": word} }

func failed(id int64, message string) reply {
	return reply{"id": id, "result": "error", "message": message}
}

var output sync.Mutex

// say writes one line, whole, in one call: standard output has no buffer that would have to be flushed.
func say(r reply) {
	line, err := json.Marshal(r)
	if err != nil {
		fail(err.Error())
	}
	output.Lock()
	defer output.Unlock()
	if _, err := os.Stdout.Write(append(line, '\n')); err != nil {
		fail(err.Error())
	}
}

// fail ends the adapter: whoever sent the line can't be answered, since its id is not known.
func fail(message string) {
	fmt.Fprintln(os.Stderr, "adapter: "+message)
	os.Exit(2)
}
