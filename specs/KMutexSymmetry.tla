--------------------------- MODULE KMutexSymmetry ---------------------------
(***************************************************************************)
(* KMutex with clients and keys that have names and no numbers, so that    *)
(* TLC may take all states that differ by names only for one.  The         *)
(* explorer in Python does the same (model/kmutex_model/symmetry.py), and  *)
(* both must find the same number of states, of steps and of levels.       *)
(* KM-LIVE is not checked in this way, on either side.                     *)
(***************************************************************************)
EXTENDS KMutex

CONSTANTS
    NamedClients,   \* model values, in place of the numbers of Clients
    NamedKeys       \* and of Keys

ASSUME Cardinality(NamedClients) = NClients /\ Cardinality(NamedKeys) = NKeys

Renamings == Permutations(NamedClients) \cup Permutations(NamedKeys)

=============================================================================
