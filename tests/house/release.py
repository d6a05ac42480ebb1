"""What a release says of itself: ``python -m tests.house.release v1.2.3`` prints its notes, from CHANGELOG.md.

Exit status 1, and a line on standard error: the tag, pyproject.toml, CITATION.cff and CHANGELOG.md do not all have the
same version. The standard library only, since the workflow installs nothing for it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACES = {
    "pyproject.toml": r'^version = "(.+)"$',
    "CITATION.cff": r"^version: (.+)$",
    "CHANGELOG.md": r"^## \[(\d.*?)\] - \d{4}-\d\d-\d\d$",
}
"""Where the version stands: the first match."""


def versions(root: Path) -> dict[str, str]:
    """By file, the version that it names; "" where it names none."""
    found = {name: re.search(rule, (root / name).read_text("utf-8"), re.MULTILINE) for name, rule in PLACES.items()}
    return {name: match[1] if match else "" for name, match in found.items()}


def notes(root: Path, version: str) -> str:
    """What CHANGELOG.md says of a version."""
    _, _, rest = (root / "CHANGELOG.md").read_text("utf-8").partition(f"\n## [{version}]")
    return rest.partition("\n")[2].partition("\n## [")[0].strip()


def main(tag: str, root: Path = ROOT) -> int:
    """Print the notes: 0, or 1 if a file has another version, or the notes are empty."""
    wanted = tag.removeprefix("v")
    wrong = [f"{name} has {version or 'no version'}" for name, version in versions(root).items() if version != wanted]
    if not wrong and not notes(root, wanted):
        wrong = ["CHANGELOG.md says nothing of it"]
    if wrong:
        print(f"{tag}: {', '.join(wrong)}", file=sys.stderr)
        return 1
    print(notes(root, wanted))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
