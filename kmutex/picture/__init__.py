"""Who did what, as a picture: a lane for each who does anything, and time runs down.

`lanes` is the one form that all pictures are made from; `text`, `svg` and `mermaid` draw it, and `files` chooses
among them by the ending of a file's name. Whatever the words in a picture are, what is drawn is well-formed.
"""
