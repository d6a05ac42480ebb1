// Checks a log from outside for linearizability with porcupine, key by key, and says how long reading and checking took.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

type line struct {
	Event string `json:"event"`
	Key   string `json:"key"`
	Call  int    `json:"call"`
}

// The input is the key and whether it is an unlock, the state whether the key is held.
type input struct {
	key    string
	unlock bool
}

var model = porcupine.Model{
	PartitionEvent: func(history []porcupine.Event) [][]porcupine.Event {
		of := map[int]string{}
		parts := map[string][]porcupine.Event{}
		for _, event := range history {
			if event.Kind == porcupine.CallEvent {
				of[event.Id] = event.Value.(input).key
			}
			key := of[event.Id]
			parts[key] = append(parts[key], event)
		}
		all := [][]porcupine.Event{}
		for _, part := range parts {
			all = append(all, part)
		}
		return all
	},
	Init: func() interface{} { return false },
	Step: func(state, in, out interface{}) (bool, interface{}) {
		unlock := in.(input).unlock
		return state.(bool) == unlock, !unlock
	},
	Equal: func(one, other interface{}) bool { return one == other },
}

func main() {
	started := time.Now()
	file, err := os.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	lines := bufio.NewScanner(file)
	lines.Scan() // The header.
	history := []porcupine.Event{}
	count := 0
	for lines.Scan() {
		var one line
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			panic(err)
		}
		count++
		event := porcupine.Event{ClientId: one.Call, Id: 2 * one.Call}
		switch one.Event {
		case "request":
			event.Kind, event.Value = porcupine.CallEvent, input{one.Key, false}
		case "release":
			event.Id++
			event.Kind, event.Value = porcupine.CallEvent, input{one.Key, true}
		case "grant":
			event.Kind = porcupine.ReturnEvent
		case "released":
			event.Id++
			event.Kind = porcupine.ReturnEvent
		case "end":
			continue
		default:
			panic("this history has " + one.Event)
		}
		history = append(history, event)
	}
	read := time.Since(started)
	result := porcupine.CheckEventsTimeout(model, history, 0)
	fmt.Printf("%s %d %f %f\n", result, count, read.Seconds(), time.Since(started).Seconds())
}
