"""The state machine of the keyed mutex, and its explorer.

Read the modules in this order: `state` (what there is), `actions` (what can happen), `properties` (what must
be true), `explore` (how every run is looked at), `broken` (what each property is there to catch).

`python -m kmutex_model` explores the correct model and every broken one and prints a table.
"""
