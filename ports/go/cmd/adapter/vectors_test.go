package main

// The vectors of the release (specs/player.md), played on the lock itself: no kmutex, no adapter.
//
// KMUTEX_VECTORS names the file; without it, it is the one of this repository.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"kmutex"
)

const (
	patience = 2 * time.Second // without anything new, until a move has failed; a right lock is never waited for so long
	meetings = 10              // cancels behind a grant, before it counts that none was taken
	slower   = 25              // times as long as a granted try
)

type step struct {
	Op   string
	Call int
	Key  string
	MS   int
}

type seen struct {
	Calls   map[int]string
	Unlocks []string
	Table   map[string]kmutex.Counts
}

type vector struct {
	ID           string
	Clauses      []string
	Needs        []string
	Keys, Rounds int
	Moves        [][]step
	Courses      [][]seen
}

// player plays one round. What the calls tell it is under its guard.
type player struct {
	locker  locker
	guard   sync.Mutex
	cancel  map[int]context.CancelFunc
	key     map[int]string // of each call
	ended   map[int]string
	seen    seen
	granted map[string]int // grants that no unlock has ended
	took    map[string][]time.Duration
	met     []string
}

func (p *player) play(v vector) error {
	courses := declared(v)
	for number, move := range v.Moves {
		p.guard.Lock()
		p.seen = seen{map[int]string{}, []string{}, nil}
		waiting := len(p.cancel) - len(p.ended)
		p.guard.Unlock()
		meets := len(move) == 2 && move[0].Op == "unlock" && move[1].Op == "cancel" && waiting == 1 &&
			p.key[move[1].Call] == move[0].Key
		for _, s := range move {
			meets = p.give(s, len(move) == 1) && meets
		}
		before, quiet := "", time.Now().Add(time.Duration(brief(move))*time.Millisecond)
		for pause := 10 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
			p.guard.Lock()
			now := p.seen
			now.Table = p.locker.Snapshot()
			fitting := [][]seen{}
			for _, course := range courses {
				if reflect.DeepEqual(course[number], now) {
					fitting = append(fitting, course)
				}
			}
			shown := fmt.Sprint(now)
			p.guard.Unlock()
			if len(fitting) > 0 {
				courses = fitting
				break
			}
			if shown != before {
				before, quiet = shown, time.Now()
			}
			if time.Since(quiet) > patience {
				return fmt.Errorf("move %d of %s showed %s", number, v.ID, shown)
			}
			time.Sleep(pause)
		}
		if meets {
			p.guard.Lock()
			p.met = append(p.met, p.ended[move[1].Call])
			p.guard.Unlock()
		}
	}
	return nil
}

// give gives one command. For a cancel: whether the call had not ended when it was told.
func (p *player) give(s step, alone bool) bool {
	switch {
	case asks(s):
		asked := time.Now() // before its clock begins to run
		ctx, cancel := context.WithCancel(context.Background())
		if s.Op == "limit" {
			ctx, cancel = context.WithTimeout(context.Background(), time.Duration(s.MS)*time.Millisecond)
		} else if s.Op == "done" {
			cancel()
		}
		p.cancel[s.Call], p.key[s.Call] = cancel, s.Key
		go p.lock(ctx, s, asked, alone)
	case s.Op == "cancel":
		p.cancel[s.Call]()
		p.guard.Lock()
		defer p.guard.Unlock()
		return p.ended[s.Call] == ""
	case s.Op == "unlock" || p.holds(s.Key):
		err := p.locker.Unlock(s.Key)
		p.guard.Lock()
		defer p.guard.Unlock()
		how := "released"
		if errors.Is(err, kmutex.ErrUnheld) {
			how = "unheld"
		} else {
			p.granted[s.Key]--
		}
		p.seen.Unlocks = append(p.seen.Unlocks, how)
	}
	return true
}

func (p *player) lock(ctx context.Context, s step, asked time.Time, alone bool) {
	how := "granted"
	if s.Op == "try" {
		if !p.locker.TryLock(s.Key) {
			how = "timeout"
		}
	} else if err := p.locker.Lock(ctx, s.Key); errors.Is(err, context.Canceled) {
		how = "cancelled"
	} else if errors.Is(err, context.DeadlineExceeded) {
		how = "timeout"
	} else if err != nil {
		how = err.Error()
	}
	took := time.Since(asked)
	if s.Op == "limit" && how == "timeout" && took < time.Duration(s.MS)*time.Millisecond*9/10 {
		how = "timeout before its time"
	}
	p.guard.Lock()
	defer p.guard.Unlock()
	if how == "granted" {
		p.granted[s.Key]++
	}
	if s.Op == "try" && alone {
		p.took[how] = append(p.took[how], took)
	}
	p.ended[s.Call] = how
	p.seen.Calls[s.Call] = how // of the move in which it ends
}

func (p *player) holds(key string) bool {
	p.guard.Lock()
	defer p.guard.Unlock()
	return p.granted[key] > 0
}

func min(one, other time.Duration) time.Duration {
	if one < other {
		return one
	}
	return other
}

func asks(s step) bool { return s.Op == "lock" || s.Op == "try" || s.Op == "done" || s.Op == "limit" }

// brief has the milliseconds of a limit that is over in the move.
func brief(move []step) int {
	if ms := move[0].MS; ms <= 1000 {
		return ms
	}
	return 0
}

// declared are the courses that a lock with these features may take: an early cancel of a free key is refused.
func declared(v vector) [][]seen {
	left := [][]seen{}
	for _, course := range v.Courses {
		right := true
		for number, move := range v.Moves {
			right = right && (move[0].Op != "done" || course[number].Calls[move[0].Call] != "granted")
		}
		if right {
			left = append(left, course)
		}
	}
	return left
}

// spread is the same case on Keys keys at once (specs/vectors.md).
func spread(v vector) vector {
	if v.Keys == 0 {
		return v
	}
	made := 0
	for _, move := range v.Moves {
		for _, s := range move {
			if asks(s) {
				made++
			}
		}
	}
	names := keyNames(v.Keys)
	name := func(key string, copy int) string {
		if key == "a" {
			return names[copy]
		}
		return key + ":" + names[copy]
	}
	moves, course := [][]step{}, []seen{}
	for number, move := range v.Moves {
		all, one := []step{}, v.Courses[0][number]
		after := seen{map[int]string{}, []string{}, map[string]kmutex.Counts{}}
		for copy := range names {
			for _, s := range move {
				all = append(all, step{s.Op, copy*made + s.Call, name(s.Key, copy), s.MS})
			}
			for call, how := range one.Calls {
				after.Calls[copy*made+call] = how
			}
			after.Unlocks = append(after.Unlocks, one.Unlocks...)
			for key, counts := range one.Table {
				after.Table[name(key, copy)] = counts
			}
		}
		moves, course = append(moves, all), append(course, after)
	}
	v.Moves, v.Courses = moves, [][]seen{course}
	return v
}

// keyNames are easily taken for each other.
func keyNames(count int) []string {
	names := []string{"a", "A", "a ", "", " ", "aa", "\u00e9", "e\u0301", "__proto__", "constructor", "0", "00"}
	for number := 0; len(names) < count; number++ {
		names = append(names, fmt.Sprintf("%064d", number))
	}
	return names[:count]
}

func play(v vector, build func() locker) error {
	met, took := []string{}, map[string][]time.Duration{}
	for round := 0; round == 0 || round < v.Rounds; round++ {
		p := &player{
			locker: build(), cancel: map[int]context.CancelFunc{}, key: map[int]string{}, ended: map[int]string{},
			granted: map[string]int{}, took: took,
		}
		if err := p.play(spread(v)); err != nil {
			return err
		}
		met = append(met, p.met...)
	}
	declared, cancelled := strings.Join(features, " "), false
	for _, how := range met {
		cancelled = cancelled || how == "cancelled"
	}
	if strings.Contains(declared, "keep") && cancelled {
		return fmt.Errorf("%s: a grant was given up, and keep is declared", v.ID)
	}
	if strings.Contains(declared, "pass") && !cancelled && len(met) >= meetings {
		return fmt.Errorf("%s: no grant was given up, and pass is declared", v.ID)
	}
	refused, granted := took["timeout"], took["granted"]
	if len(refused) >= 5 && len(granted) >= 5 {
		sort.Slice(refused, func(i, j int) bool { return refused[i] < refused[j] })
		sort.Slice(granted, func(i, j int) bool { return granted[i] < granted[j] })
		if usual := granted[len(granted)/2]; refused[0] > slower*usual && refused[0] > slower*time.Millisecond {
			return fmt.Errorf("%s: the fastest refused try took %s, a granted one %s", v.ID, refused[0], usual)
		}
	}
	return nil
}

// read has the vectors that a lock with these features can be put to.
func read(t *testing.T) []vector {
	path := os.Getenv("KMUTEX_VECTORS")
	if path == "" {
		path = filepath.Join("..", "..", "..", "..", "specs", "vectors.json")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Format  string
		Vectors []vector
	}
	if err := json.Unmarshal(text, &file); err != nil || file.Format != "kmutex-vectors/2" {
		t.Fatal(path, file.Format, err)
	}
	have := map[string]bool{}
	for _, feature := range features {
		have[feature] = true
	}
	vectors := []vector{}
	for _, v := range file.Vectors {
		fit := true
		for _, feature := range v.Needs {
			fit = fit && have[feature]
		}
		if fit {
			vectors = append(vectors, v)
		}
	}
	if len(vectors) < 500 {
		t.Fatal(path, "has only", len(vectors), "for this lock")
	}
	return vectors
}

func TestTheLockAndTheBaseOfTheMistakesTakeACourseOfEachVector(t *testing.T) {
	for _, v := range read(t) {
		for _, build := range []func() locker{func() locker { return new(kmutex.KeyedMutex) }, base.build} {
			if err := play(v, build); err != nil {
				t.Errorf("%T: %s", build(), err)
			}
		}
	}
}

func TestEachMistakeFailsInAVectorOfItsClauses(t *testing.T) {
	vectors := read(t)
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			for _, v := range vectors {
				for _, clause := range v.Clauses {
					if strings.Contains(m.clauses+",", clause+",") {
						if play(v, m.build) != nil {
							return
						}
						break
					}
				}
			}
			t.Error("it takes a course of each")
		})
	}
}
