--------------------------- MODULE KMutexInductive ---------------------------
(***************************************************************************)
(* The inductive invariant of the proof (model/kmutex_model/proof), part   *)
(* by part, under the names that its Part.tla gives.  TLC starts in every  *)
(* state of a small bound that satisfies IndInv, reachable or not, takes   *)
(* every step from each, and must find IndInv again: so IndInv is          *)
(* inductive there.  The number of states it starts in must be the number  *)
(* that the proof's formulas allow.                                        *)
(***************************************************************************)
EXTENDS KMutex

Places == {Idle} \cup UNION {{Waiting(k), Granted(k), Holding(k)} : k \in Keys}
Lines  == UNION {{seq \in [1 .. n -> Clients] : \A i, j \in 1 .. n : seq[i] = seq[j] => i = j} : n \in 0 .. NClients}
Tables == UNION {[keys -> [holder : Clients \cup {Nobody}, queue : Lines, refs : 0 .. NClients]] : keys \in SUBSET Keys}
InLine(seq, c) == \E i \in DOMAIN seq : seq[i] = c

(* A client has one record here and a queue is a sequence, so OnePlace and  *)
(* the three parts about the line are matters of type.                      *)
OnePlace       == \A c \in Clients : clients[c] \in Places
LineOfQueued   == \A k \in DOMAIN entries : entries[k].queue \in Lines
LineTransitive == LineOfQueued
LineTotal      == LineOfQueued
(* The ghost is what Init and RecordOrder make it: who waits, each once.    *)
GhostIsWaiting == \A k \in Keys : order[k] \in Lines /\ \A c \in Clients : InLine(order[k], c) <=> clients[c] = Waiting(k)

HolderOwns == \A k \in Keys, c \in Clients :
    Owns(clients[c], k) <=> k \in DOMAIN entries /\ entries[k].holder = c
OneHolder == \A k \in Keys : Cardinality(Owners(k)) <= 1
QueueIsWaiting == \A k \in Keys, c \in Clients :
    clients[c] = Waiting(k) <=> k \in DOMAIN entries /\ InLine(entries[k].queue, c)
QueueInOrder == \A k \in Keys : order[k] = IF k \in DOMAIN entries THEN entries[k].queue ELSE <<>>
EntryHeld == \A k \in DOMAIN entries : entries[k].holder # Nobody
RefsCounted == \A k \in Keys : Cardinality(Present(k)) = IF k \in DOMAIN entries THEN entries[k].refs ELSE 0

IndInv ==
    /\ OnePlace /\ LineOfQueued /\ LineTransitive /\ LineTotal /\ GhostIsWaiting
    /\ HolderOwns /\ OneHolder /\ QueueIsWaiting /\ QueueInOrder /\ EntryHeld /\ RefsCounted

IndInit ==
    /\ clients \in [Clients -> Places]
    /\ order \in [Keys -> Lines]
    /\ GhostIsWaiting
    /\ entries \in Tables
    /\ IndInv

IndSpec == IndInit /\ [][Next]_vars

Left_out == TRUE    \* in the place of a part: without it IndInv is not inductive

=============================================================================
