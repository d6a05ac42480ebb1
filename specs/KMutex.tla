------------------------------- MODULE KMutex -------------------------------
(***************************************************************************)
(* A keyed mutex: one lock per key, made when a key is first asked for and *)
(* evicted when nobody is left at it.                                      *)
(*                                                                         *)
(* The rules are those of model/kmutex_model/actions.py, one action here   *)
(* for each action there, and the state is the same, so that TLC and the   *)
(* explorer in Python must find the same number of states, of steps and of *)
(* levels.  No symmetry is used here; see KMutexSymmetry.                  *)
(*                                                                         *)
(* The spec has no outcomes.  That a call fails shows in that it changes   *)
(* nothing.  KM-LOOP (event loops) has no counterpart here.                *)
(***************************************************************************)
EXTENDS Integers, Sequences, FiniteSets, TLC

CONSTANTS
    NClients,   \* how many clients, numbered from 0
    NKeys,      \* how many keys, numbered from 0
    Race        \* a cancel that meets a grant: "keep" the grant, or "pass" it on

ASSUME NClients \in Nat \ {0} /\ NKeys \in Nat \ {0} /\ Race \in {"keep", "pass"}

VARIABLES
    entries,    \* the table: a function whose domain is the set of present keys
    clients,    \* where each client stands: the truth about who waits and who owns
    order       \* ghost: by key, the waiting clients in the order in which they asked

vars == <<entries, clients, order>>

Clients == 0 .. NClients - 1
Keys    == 0 .. NKeys - 1
NoKey   == -1
Nobody  == -1   \* the holder of an entry that nobody holds; only broken variants have one

Idle       == [phase |-> "idle", key |-> NoKey]
Waiting(k) == [phase |-> "waiting", key |-> k]
Granted(k) == [phase |-> "granted", key |-> k]  \* owns the key, the call has not returned yet
Holding(k) == [phase |-> "holding", key |-> k]

Entry(holder, queue, refs) == [holder |-> holder, queue |-> queue, refs |-> refs]

Owns(client, k) == client.key = k /\ client.phase \in {"granted", "holding"}
Owners(k)  == {c \in Clients : Owns(clients[c], k)}
Present(k) == {c \in Clients : clients[c].key = k}
Without(seq, c) == SelectSeq(seq, LAMBDA x : x # c)

-----------------------------------------------------------------------------
(***************************************************************************)
(* What an action may do to the table.                                     *)
(***************************************************************************)

(* The ghost follows from what the clients do; the queue has no say in it. *)
RecordOrder ==
    order' = [k \in Keys |->
        LET waiting == {c \in Clients : clients'[c] = Waiting(k)}
            stayed  == SelectSeq(order[k], LAMBDA c : c \in waiting)
            came    == {c \in waiting : clients[c] # Waiting(k)}
        IN  IF came = {} THEN stayed ELSE Append(stayed, CHOOSE c \in came : TRUE)]

Evicted(k) == [j \in DOMAIN entries \ {k} |-> entries[j]]

Enter(c, k) ==
    /\ entries' = (k :> Entry(c, <<>>, 1)) @@ entries
    /\ clients' = [clients EXCEPT ![c] = Holding(k)]

Join(c, k) ==
    /\ entries' = [entries EXCEPT ![k].queue = Append(@, c), ![k].refs = @ + 1]
    /\ clients' = [clients EXCEPT ![c] = Waiting(k)]

LeaveQueue(c, k) ==
    /\ entries' = [entries EXCEPT ![k].queue = Without(@, c), ![k].refs = @ - 1]
    /\ clients' = [clients EXCEPT ![c] = Idle]

(* The owner lets go, and in the same step the oldest waiter owns the key. *)
HandOn(c, k) ==
    LET queue == entries[k].queue IN
    IF queue = <<>>
    THEN /\ entries' = Evicted(k)
         /\ clients' = [clients EXCEPT ![c] = Idle]
    ELSE /\ entries' = [entries EXCEPT ![k] = Entry(Head(queue), Tail(queue), @.refs - 1)]
         /\ clients' = [clients EXCEPT ![c] = Idle, ![Head(queue)] = Granted(k)]

-----------------------------------------------------------------------------
(***************************************************************************)
(* The actions.                                                            *)
(***************************************************************************)

Request(c, k) ==
    /\ clients[c] = Idle
    /\ IF k \in DOMAIN entries THEN Join(c, k) ELSE Enter(c, k)
    /\ RecordOrder

Try(c, k) ==
    /\ clients[c] = Idle
    /\ IF k \in DOMAIN entries THEN UNCHANGED <<entries, clients>> ELSE Enter(c, k)
    /\ RecordOrder

Wake(c) ==
    /\ clients[c].phase = "granted"
    /\ clients' = [clients EXCEPT ![c] = Holding(@.key)]
    /\ UNCHANGED entries
    /\ RecordOrder

Cancel(c) ==
    /\ \/ clients[c].phase = "waiting" /\ LeaveQueue(c, clients[c].key)
       \/ /\ clients[c].phase = "granted"
          /\ IF Race = "keep"
             THEN clients' = [clients EXCEPT ![c] = Holding(@.key)] /\ UNCHANGED entries
             ELSE HandOn(c, clients[c].key)
    /\ RecordOrder

Interrupt(c) ==
    /\ \/ clients[c].phase = "waiting" /\ LeaveQueue(c, clients[c].key)
       \/ clients[c].phase = "granted" /\ HandOn(c, clients[c].key)
    /\ RecordOrder

Release(c) ==
    /\ clients[c].phase = "holding"
    /\ HandOn(c, clients[c].key)
    /\ RecordOrder

StrayUnlock(c, k) ==
    /\ clients[c] = Idle
    /\ k \notin DOMAIN entries
    /\ UNCHANGED vars

StaleRelease(c, k) ==
    /\ clients[c] = Idle
    /\ UNCHANGED vars

-----------------------------------------------------------------------------
Init ==
    /\ entries = <<>>
    /\ clients = [c \in Clients |-> Idle]
    /\ order = [k \in Keys |-> <<>>]

Next ==
    \E c \in Clients :
        \/ \E k \in Keys : Request(c, k) \/ Try(c, k) \/ StrayUnlock(c, k) \/ StaleRelease(c, k)
        \/ Wake(c) \/ Cancel(c) \/ Interrupt(c) \/ Release(c)

(* Holders unlock in the end, and a call that has the key returns in the end. *)
Fairness == \A c \in Clients : WF_vars(Release(c)) /\ WF_vars(Wake(c))

Spec == Init /\ [][Next]_vars /\ Fairness

-----------------------------------------------------------------------------
(***************************************************************************)
(* Invariants.                                                             *)
(***************************************************************************)

TypeOK ==
    /\ DOMAIN entries \subseteq Keys
    /\ \A k \in DOMAIN entries :
        /\ entries[k].holder \in Clients
        /\ \A i \in DOMAIN entries[k].queue : entries[k].queue[i] \in Clients
        /\ entries[k].refs \in Nat
    /\ \A c \in Clients :
        clients[c] \in {Idle} \cup UNION {{Waiting(k), Granted(k), Holding(k)} : k \in Keys}
    /\ DOMAIN order = Keys

KM_EXCL == \A k \in Keys : Cardinality(Owners(k)) <= 1

KM_REF ==
    \A k \in Keys :
        Cardinality(Present(k)) = IF k \in DOMAIN entries THEN entries[k].refs ELSE 0

KM_IDLE == \A k \in DOMAIN entries : Present(k) # {}

(* KM-HANDOFF, in a state: a key that is waited for is never between owners. *)
KM_HANDOFF == \A k \in Keys : order[k] # <<>> => Owners(k) # {}

(* KM-CANCEL, in a state: a client that has gone stands in no entry. *)
KM_CANCEL ==
    \A k \in DOMAIN entries : \A c \in Clients :
        clients[c] = Idle =>
            /\ entries[k].holder # c
            /\ \A i \in DOMAIN entries[k].queue : entries[k].queue[i] # c

-----------------------------------------------------------------------------
(***************************************************************************)
(* Properties of steps.                                                    *)
(***************************************************************************)

GetsKey(c, k) == ~Owns(clients[c], k) /\ Owns(clients'[c], k)
LosesKey(c, k) == Owns(clients[c], k) /\ ~Owns(clients'[c], k)
OthersStay(c) == \A d \in Clients \ {c} : clients'[d] = clients[d]

(* The grant has gone on: the oldest waiter has the key, or the entry is evicted. *)
WentOn(c, k) ==
    /\ clients'[c] = Idle
    /\ IF order[k] = <<>>
       THEN k \notin DOMAIN entries'
       ELSE /\ clients'[Head(order[k])] = Granted(k)
            /\ k \in DOMAIN entries'
            /\ entries'[k].holder = Head(order[k])

(* A waiter has gone, and nothing else has changed. *)
LeftQueue(c, k) ==
    /\ clients'[c] = Idle
    /\ OthersStay(c)
    /\ k \in DOMAIN entries'
    /\ entries'[k] = Entry(entries[k].holder, Without(entries[k].queue, c), entries[k].refs - 1)

EntryIn(table, k) == IF k \in DOMAIN table THEN <<table[k]>> ELSE <<>>
ClientsIn(all, k) == {<<c, all[c].phase>> : c \in {d \in Clients : all[d].key = k}}
Changes(k) ==
    \/ EntryIn(entries, k) # EntryIn(entries', k)
    \/ ClientsIn(clients, k) # ClientsIn(clients', k)

(* No step changes two keys, and nobody waits for a key that nobody is at. *)
KM_INDEP ==
    [][/\ \A j, k \in Keys : Changes(j) /\ Changes(k) => j = k
       /\ \A c \in Clients, k \in Keys :
            clients[c] = Idle /\ clients'[c] = Waiting(k) => Present(k) # {}]_vars

KM_FIFO ==
    [][\A c \in Clients, k \in Keys :
        GetsKey(c, k) /\ order[k] # <<>> => c = Head(order[k])]_vars

(* KM-HANDOFF, on a step: the oldest waiter gets what a holder lets go, and no newcomer does. *)
KM_HANDOFF_STEP ==
    [][\A c \in Clients, k \in Keys :
        /\ LosesKey(c, k) /\ order[k] # <<>> => GetsKey(Head(order[k]), k)
        /\ GetsKey(c, k) /\ clients[c] = Idle => Present(k) = {}]_vars

(* KM-CANCEL, on a step. *)
KM_CANCEL_STEP ==
    [][\A c \in Clients, k \in Keys :
        Cancel(c) /\ clients[c] = Waiting(k) => LeftQueue(c, k)]_vars

KM_RACE ==
    [][\A c \in Clients, k \in Keys :
        Cancel(c) /\ clients[c] = Granted(k) =>
            IF Race = "keep"
            THEN clients'[c] = Holding(k) /\ OthersStay(c) /\ UNCHANGED entries
            ELSE WentOn(c, k)]_vars

KM_INTERRUPT ==
    [][\A c \in Clients, k \in Keys :
        Interrupt(c) => /\ clients[c] = Waiting(k) => LeftQueue(c, k)
                        /\ clients[c] = Granted(k) => WentOn(c, k)]_vars

KM_UNHELD == [][\A c \in Clients, k \in Keys : StrayUnlock(c, k) => UNCHANGED vars]_vars

(* Calls that fail move no client; so what moves no client must change nothing. *)
KM_ATOMIC == [][clients' # clients]_vars

(* An old lease releases nothing, and an entry changes hands only when its holder lets go. *)
KM_TOKEN ==
    [][/\ \A c \in Clients, k \in Keys : StaleRelease(c, k) => UNCHANGED vars
       /\ \A k \in DOMAIN entries :
            (\A c \in Owners(k) : clients'[c].key = k) =>
                k \in DOMAIN entries' /\ entries'[k].holder = entries[k].holder]_vars

KM_EXPIRED ==
    [][\A c \in Clients, k \in Keys :
        Try(c, k) => IF Owners(k) = {} THEN clients'[c] = Holding(k) ELSE UNCHANGED vars]_vars

-----------------------------------------------------------------------------
(***************************************************************************)
(* Liveness: every waiter is granted in the end, or has given up.          *)
(***************************************************************************)

KM_LIVE ==
    \A c \in Clients : clients[c].phase = "waiting" ~> clients[c].phase # "waiting"

=============================================================================
