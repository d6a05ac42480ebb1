"""A proof for any number of clients and keys.

Read the modules in this order: `logic` (formulas), `relations` (a state of any size), `steps` (a row of the table as
a relation), `invariant` (what is true of every state), `clauses` (what must be true), `obligations` (what has to be
shown, and by which solver), `controls` (that each broken model fails), `tie` (that all this is the explorer's model).

Only `solvers` imports a solver, and only when one is asked. The rest is the standard library.
"""
