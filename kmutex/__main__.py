"""``python -m kmutex`` is the command."""

from kmutex.cli import main

main()
