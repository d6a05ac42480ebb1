"""Timelines as pictures: a lane for each client, and time runs down.

`rows` has the form of all pictures; `text`, `svg` and `mermaid` draw it, and `files` chooses one of them by the ending
of the file's name. Any text in a picture gives a well-formed file.
"""
