"""``python -m kmutex`` is the command."""

import sys

# -m puts the folder where the user stands first; a queue.py there must not come before the standard library's.
if not getattr(sys.flags, "safe_path", False):
    del sys.path[0]

from kmutex.cli import main

if __name__ == "__main__":
    main()
