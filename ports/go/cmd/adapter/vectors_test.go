package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"kmutex"
)

// This file plays specs/vectors.json in this process, by the words of specs/vectors.md. What many rounds say of times is
// not judged here.

type vector struct {
	ID      string
	Needs   []string
	Keys    int
	Rounds  int
	Moves   [][]step
	Courses [][]shown
}

type step struct {
	Op, Key string
	Call    int
}

// shown is what a move shows of one copy.
type shown struct {
	Calls   map[string]string
	Unlocks []string
	Table   map[string]kmutex.Counts
}

func vectors(t *testing.T) []vector {
	t.Helper()
	text, err := os.ReadFile("../../../../specs/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Format  string
		Vectors []vector
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if file.Format != "kmutex-vectors/2" {
		t.Fatalf("these vectors are of another format: %s", file.Format)
	}
	var fit []vector
	for _, v := range file.Vectors {
		if !strings.Contains(strings.Join(v.Needs, " "), "lease") {
			fit = append(fit, v)
		}
	}
	return fit
}

func TestTheLibraryTakesARightCourseThroughEveryVector(t *testing.T) {
	build := func() locker { return new(kmutex.KeyedMutex) }
	if wrong := firstFailure(vectors(t), build, time.Minute); wrong != "" {
		t.Fatal(wrong)
	}
}

func TestNoMistakeDoes(t *testing.T) {
	all := vectors(t)
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			if firstFailure(all, m.build, time.Second) == "" {
				t.Fatal("a right course through every vector")
			}
		})
	}
}

// firstFailure is empty where each vector takes one of its courses.
func firstFailure(all []vector, build func() locker, patience time.Duration) string {
	for _, v := range all {
		met, passed := 0, 0
		for round := 0; round == 0 || round < v.Rounds; round++ {
			p := newPlay(v, build())
			if wrong := p.wrong(patience); wrong != "" {
				return fmt.Sprintf("%s, round %d: %s", v.ID, round, wrong)
			}
			met, passed = met+p.met, passed+p.passed
		}
		if met >= 10 && passed == 0 {
			return v.ID + ": pass is declared, and no grant that met a cancel was passed on"
		}
	}
	return ""
}

// call is one of a copy.
type call struct{ copy, number int }

// play is one vector on one locker, with as many copies of it side by side as it says.
type play struct {
	locker      locker
	moves       [][]step
	courses     [][][]shown // of each copy, those that are still possible
	cancels     map[call]context.CancelFunc
	met, passed int // calls that met a cancel right behind their grant, and those that passed it on

	guard sync.Mutex      // of what follows
	ended map[call]string // since the move began
	open  map[string]int  // of each key: grants that were seen to return, less releases
}

func newPlay(v vector, l locker) *play {
	p := &play{locker: l, moves: v.Moves, cancels: map[call]context.CancelFunc{}}
	p.ended, p.open = map[call]string{}, map[string]int{}
	for copies := v.Keys; copies > 1; copies-- {
		p.courses = append(p.courses, v.Courses)
	}
	p.courses = append(p.courses, v.Courses)
	return p
}

func (p *play) wrong(patience time.Duration) string {
	for move, steps := range p.moves {
		unlocks := make([][]string, len(p.courses))
		var meeting []call
		for i := range p.courses {
			unlocks[i] = p.give(steps, i, &meeting)
		}
		for limit := time.Now().Add(patience); !p.settled(move, unlocks); time.Sleep(50 * time.Microsecond) {
			if time.Now().After(limit) {
				return fmt.Sprintf("move %d: unlocks %v, %v", move, unlocks, p.locker.Snapshot())
			}
		}
		p.guard.Lock()
		for _, c := range meeting {
			p.met++
			if p.ended[c] == "cancelled" {
				p.passed++
			}
		}
		p.ended = map[call]string{}
		p.guard.Unlock()
	}
	return ""
}

func key(s step, copy int) string { return fmt.Sprintf("%s:%d:the-same-end-of-all-keys", s.Key, copy) }

// give gives the commands of a move to one copy; what its unlocks said.
func (p *play) give(steps []step, copy int, meeting *[]call) []string {
	unlocks, before := []string{}, ""
	for _, s := range steps {
		c, k := call{copy, s.Call}, key(s, copy)
		switch s.Op {
		case "lock":
			ctx, cancel := context.WithCancel(context.Background())
			p.cancels[c] = cancel
			go func() { p.end(c, k, p.locker.Lock(ctx, k), "cancelled") }()
		case "try":
			p.cancels[c] = func() {}
			var refused error
			if !p.locker.TryLock(k) {
				refused = context.DeadlineExceeded
			}
			p.end(c, k, refused, "timeout")
		case "cancel":
			p.guard.Lock()
			if before == "unlock" && p.ended[c] == "" {
				*meeting = append(*meeting, c)
			}
			p.guard.Unlock()
			p.cancels[c]()
		case "unlock":
			unlocks = append(unlocks, p.unlock(k))
		case "free":
			p.guard.Lock()
			open := p.open[k] > 0
			p.guard.Unlock()
			if open {
				unlocks = append(unlocks, p.unlock(k))
			}
		default:
			panic("no command is called " + s.Op)
		}
		before = s.Op
	}
	return unlocks
}

func (p *play) end(c call, k string, err error, refused string) {
	p.guard.Lock()
	defer p.guard.Unlock()
	if err == nil {
		p.open[k]++
		refused = "granted"
	}
	p.ended[c] = refused
}

func (p *play) unlock(k string) string {
	if errors.Is(p.locker.Unlock(k), kmutex.ErrUnheld) {
		return "unheld"
	}
	p.guard.Lock()
	defer p.guard.Unlock()
	p.open[k]--
	return "released"
}

// settled: each copy shows what one of its courses has here; then the others are out of the question.
func (p *play) settled(move int, unlocks [][]string) bool {
	seen := make([]shown, len(p.courses))
	for i := range seen {
		seen[i] = shown{map[string]string{}, unlocks[i], map[string]kmutex.Counts{}}
	}
	p.guard.Lock()
	for c, how := range p.ended {
		seen[c.copy].Calls[fmt.Sprint(c.number)] = how
	}
	p.guard.Unlock()
	for k, counts := range p.locker.Snapshot() {
		parts := strings.Split(k, ":")
		var copy int
		if _, err := fmt.Sscan(parts[1], &copy); err != nil {
			panic(err)
		}
		seen[copy].Table[parts[0]] = counts
	}
	left := make([][][]shown, len(p.courses))
	for i, courses := range p.courses {
		for _, course := range courses {
			if reflect.DeepEqual(course[move], seen[i]) {
				left[i] = append(left[i], course)
			}
		}
		if left[i] == nil {
			return false
		}
	}
	p.courses = left
	return true
}
