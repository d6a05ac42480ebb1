---------------------------- MODULE KMutexBroken ----------------------------
(***************************************************************************)
(* Mistakes that TLC must find.  Each operator here stands in for one      *)
(* action of KMutex; tlc.toml says which, and which property must then     *)
(* fail.  The names are those of model/kmutex_model/broken.py.             *)
(***************************************************************************)
EXTENDS KMutex

At(c) == clients[c].key
EntryOf(c) == entries[At(c)]
Forget(c) == clients' = [clients EXCEPT ![c] = Idle]

-----------------------------------------------------------------------------
(* Stand in for Request. *)

NoLock(c, k) ==
    /\ clients[c] = Idle
    /\ IF k \in DOMAIN entries
       THEN /\ entries' = [entries EXCEPT ![k].refs = @ + 1]
            /\ clients' = [clients EXCEPT ![c] = Holding(k)]
       ELSE Enter(c, k)
    /\ RecordOrder

OneLockForAll(c, k) ==
    /\ clients[c] = Idle
    /\ IF k \in DOMAIN entries
       THEN Join(c, k)
       ELSE IF DOMAIN entries = {}
            THEN Enter(c, k)
            ELSE /\ entries' = (k :> Entry(Nobody, <<c>>, 1)) @@ entries
                 /\ clients' = [clients EXCEPT ![c] = Waiting(k)]
    /\ RecordOrder

WaiterNotCounted(c, k) ==
    /\ clients[c] = Idle
    /\ IF k \in DOMAIN entries
       THEN /\ entries' = [entries EXCEPT ![k].queue = Append(@, c)]
            /\ clients' = [clients EXCEPT ![c] = Waiting(k)]
       ELSE Enter(c, k)
    /\ RecordOrder

-----------------------------------------------------------------------------
(* Stand in for Try. *)

FailedTryCounts(c, k) ==
    /\ clients[c] = Idle
    /\ IF k \in DOMAIN entries
       THEN entries' = [entries EXCEPT ![k].refs = @ + 1] /\ UNCHANGED clients
       ELSE Enter(c, k)
    /\ RecordOrder

TryWaits(c, k) == Request(c, k)

-----------------------------------------------------------------------------
(* Stand in for Release. *)

EvictsWithWaiters(c) ==
    /\ clients[c].phase = "holding"
    /\ entries' = Evicted(At(c))
    /\ clients' = [d \in Clients |->
        IF d = c THEN Idle
        ELSE IF EntryOf(c).queue # <<>> /\ d = Head(EntryOf(c).queue) THEN Granted(At(c))
        ELSE clients[d]]
    /\ RecordOrder

NeverEvicts(c) ==
    /\ clients[c].phase = "holding"
    /\ IF EntryOf(c).queue = <<>>
       THEN entries' = [entries EXCEPT ![At(c)] = Entry(Nobody, <<>>, 0)] /\ Forget(c)
       ELSE HandOn(c, At(c))
    /\ RecordOrder

Lifo(c) ==
    LET queue == EntryOf(c).queue
        youngest == queue[Len(queue)]
    IN
    /\ clients[c].phase = "holding"
    /\ IF queue = <<>>
       THEN HandOn(c, At(c))
       ELSE /\ entries' = [entries EXCEPT ![At(c)] =
                   Entry(youngest, Without(queue, youngest), @.refs - 1)]
            /\ clients' = [clients EXCEPT ![c] = Idle, ![youngest] = Granted(At(c))]
    /\ RecordOrder

WakeDropped(c) ==
    /\ clients[c].phase = "holding"
    /\ IF EntryOf(c).queue = <<>>
       THEN HandOn(c, At(c))
       ELSE /\ entries' = [entries EXCEPT ![At(c)].holder = Nobody, ![At(c)].refs = @ - 1]
            /\ Forget(c)
    /\ RecordOrder

-----------------------------------------------------------------------------
(* Stands in for Wake. *)

NeverWakes(c) == FALSE

-----------------------------------------------------------------------------
(* Stand in for Cancel. *)

CancelKeepsRef(c) ==
    /\ clients[c].phase = "waiting"
    /\ entries' = [entries EXCEPT ![At(c)].queue = Without(@, c)]
    /\ Forget(c)
    /\ RecordOrder

CancelledHeadStays(c) ==
    /\ clients[c].phase = "waiting"
    /\ IF Head(EntryOf(c).queue) = c
       THEN entries' = [entries EXCEPT ![At(c)].refs = @ - 1] /\ Forget(c)
       ELSE LeaveQueue(c, At(c))
    /\ RecordOrder

CancelSwapsPlaces(c) ==
    LET queue == EntryOf(c).queue
        last == Len(queue)
    IN
    /\ clients[c].phase = "waiting"
    /\ entries' = [entries EXCEPT
           ![At(c)].queue = [i \in 1 .. last - 1 |-> IF queue[i] = c THEN queue[last] ELSE queue[i]],
           ![At(c)].refs = @ - 1]
    /\ Forget(c)
    /\ RecordOrder

RaisesAndDrops(c) ==
    /\ clients[c].phase = "granted"
    /\ UNCHANGED entries
    /\ Forget(c)
    /\ RecordOrder

-----------------------------------------------------------------------------
(* Stands in for Interrupt. *)

InterruptedGrantStays(c) ==
    /\ clients[c].phase = "granted"
    /\ UNCHANGED entries
    /\ Forget(c)
    /\ RecordOrder

-----------------------------------------------------------------------------
(* Stands in for StrayUnlock: it is accepted, as an unlock by nobody. *)

StrayUnlockAccepted(c, k) ==
    /\ clients[c] = Idle
    /\ k \notin DOMAIN entries
    /\ entries' = (k :> Entry(Nobody, <<>>, -1)) @@ entries
    /\ UNCHANGED <<clients, order>>

-----------------------------------------------------------------------------
(* Stand in for StaleRelease. *)

FailedUnlockCounts(c, k) ==
    /\ clients[c] = Idle
    /\ IF k \in DOMAIN entries
       THEN entries' = [entries EXCEPT ![k].refs = @ - 1]
       ELSE UNCHANGED entries
    /\ UNCHANGED <<clients, order>>

ReleasesLaterHolder(c, k) ==
    /\ clients[c] = Idle
    /\ k \in DOMAIN entries
    /\ HandOn(entries[k].holder, k)
    /\ RecordOrder

=============================================================================
