package kmutex

import (
	"bufio"
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// StepLog has the steps of one KeyedMutex, in the form that `kmutex check-trace` judges (specs/trace.md, "inside").
//
// A line is written in its step, under the guard, so the order of lines is the order of steps. The references and the
// holder in it are looked up in the table after the step. A line that can't be written harms no lock: the recording
// stops for good, and Close returns the error.
type StepLog struct {
	mutex  *KeyedMutex
	out    *bufio.Writer
	calls  map[*list.Element]int // the name of the call of each live ticket
	last   int                   // of these names
	strays int                   // unlocks that were refused; their names are negative
	lines  int
	begun  time.Time
	err    error
	closed bool
}

// Record has m write its steps to out from now on. m must be unused; Record panics where it is not, or is recorded.
func (m *KeyedMutex) Record(out io.Writer) *StepLog {
	m.guard.Lock()
	defer m.guard.Unlock()
	if m.entries != nil || m.log != nil {
		panic("kmutex: Record comes before the first use, and once")
	}
	m.log = &StepLog{mutex: m, out: bufio.NewWriter(out), calls: make(map[*list.Element]int), begun: time.Now()}
	_, m.log.err = m.log.out.WriteString("{\"trace\": 1, \"recorded\": \"inside\"}\n")
	return m.log
}

// Close writes the end, which says that all is idle: every call has returned, and every key is unlocked. It returns what
// has stopped the recording, if anything did.
func (l *StepLog) Close() error {
	l.mutex.guard.Lock()
	defer l.mutex.guard.Unlock()
	if !l.closed && l.err == nil {
		l.lines++
		_, l.err = fmt.Fprintf(l.out, "{\"event\": \"end\", \"keys\": %d, \"n\": %d}\n", len(l.mutex.entries), l.lines)
	}
	if err := l.out.Flush(); l.err == nil {
		l.err = err
	}
	l.closed = true
	return l.err
}

// asks: the ticket has taken the key or joined its queue. This and all that follow: under the guard.
func (l *StepLog) asks(key string, ticket *list.Element) {
	l.last++
	l.calls[ticket] = l.last
	l.line("request", key, l.last, l.table(key))
	if l.mutex.entries[key].Front() == ticket {
		l.line("grant", key, l.last, l.table(key))
	}
}

// refused: a try has found the key held. It was never in the queue, so the first line has no references.
func (l *StepLog) refused(key string) {
	l.last++
	l.line("request", key, l.last, `, "timeout": 0`)
	l.line("fail", key, l.last, `, "why": "refused"`+l.table(key))
}

// leaves: the ticket is in the queue no more, held or not.
func (l *StepLog) leaves(event, key string, ticket *list.Element, held bool, more string) {
	l.line(event, key, l.calls[ticket], more+l.table(key))
	delete(l.calls, ticket)
	if queue := l.mutex.entries[key]; held && queue != nil && queue.Len() > 0 {
		l.line("grant", key, l.calls[queue.Front()], l.table(key))
	}
}

// gaveUp: ctx has ended a call, unless an unlock had ended its grant before.
func (l *StepLog) gaveUp(ctx context.Context, key string, ticket *list.Element, held bool) {
	if _, live := l.calls[ticket]; !live {
		return
	}
	why := "cancelled"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		why = "timeout"
	}
	l.leaves("fail", key, ticket, held, fmt.Sprintf(`, "why": %q`, why))
}

func (l *StepLog) unheld(key string) {
	l.strays++
	l.line("unheld", key, -l.strays, l.table(key))
}

// table is what a line says of the key after the step.
func (l *StepLog) table(key string) string {
	queue := l.mutex.entries[key]
	if queue == nil || queue.Len() == 0 {
		return `, "refs": 0`
	}
	return fmt.Sprintf(`, "refs": %d, "holder": %d`, queue.Len(), l.calls[queue.Front()])
}

func (l *StepLog) line(event, key string, call int, more string) {
	if l.err != nil || l.closed {
		return
	}
	// Two keys have two texts, also where one of them is no text at all.
	if !utf8.ValidString(key) {
		key = fmt.Sprintf("<bytes> %x", key)
	} else if strings.HasPrefix(key, "<") {
		key = "<text> " + key
	}
	text, _ := json.Marshal(key)
	l.lines++
	_, l.err = fmt.Fprintf(l.out, "{\"event\": \"%s\", \"key\": %s, \"call\": %d%s, \"at\": %.6f, \"n\": %d}\n",
		event, text, call, more, time.Since(l.begun).Seconds(), l.lines)
}
