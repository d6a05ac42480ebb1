"""The model stands alone: the standard library and nothing of the implementation."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import kmutex_model

PACKAGE = Path(kmutex_model.__file__).parent


def foreign(source: str) -> set[str]:
    """The packages a module imports that are neither the standard library nor the model."""
    tops = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            tops.add("." if node.level else str(node.module).split(".")[0])
    return tops - set(sys.stdlib_module_names) - {"kmutex_model"}


def test_the_check_sees_foreign_imports() -> None:
    assert foreign("import kmutex._core\nfrom rich import box\nfrom . import x\nimport re, os.path") == {
        "kmutex",
        "rich",
        ".",
    }
    assert foreign("def f():\n    import hypothesis") == {"hypothesis"}


def test_the_model_imports_the_standard_library_only() -> None:
    modules = sorted(PACKAGE.glob("**/*.py"))
    assert len(modules) > 5
    assert {path.name: foreign(path.read_text(encoding="utf-8")) for path in modules} == {
        path.name: set() for path in modules
    }


def test_the_model_runs_where_nothing_is_installed() -> None:
    names = [f"kmutex_model.{path.stem}" for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")]
    program = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n"
    program += "\n".join(f"import {name}" for name in names)
    program += "\nassert 'kmutex' not in sys.modules"
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, timeout=60)
