"""The lessons in order: NAME.py is a locker with a mistake, NAME.md the text. Nothing but lessons imports these."""
