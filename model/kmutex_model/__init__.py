"""The state machine of the keyed mutex, and its explorer.

Read the modules in this order: `state` (the states), `actions` (what can happen), `properties` (what must be true),
`explore` (how every run is explored), `broken` (the mistakes that each property must find).

``python -m kmutex_model`` explores the correct model and every broken one, and prints a table.
"""
