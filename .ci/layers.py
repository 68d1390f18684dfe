"""Checks that no imports or includes form a circle, and that no layer uses one below it.

Prints what it has checked. Exits with 1 and the circle, or the import or include at fault.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

LAYERS = ["", "codec", "dimse", "engine", "net", "service", "l_dicom", "capture"]
"""Folders of csrc/: a file includes headers of its own folder and of folders before it."""
BINDINGS = ["codec", "engine", "transport", "net", "loop", "requestor", "service"]
"""Modules of ltdic/_native/: each imports those before it, and of the rest only these."""
FOR_BINDINGS = {"ltdic._arguments", "ltdic._ffi", "ltdic._rules"}

Uses = dict[str, set[str]]
"""What each module or file uses."""


def imports_in(node: ast.AST, package: list[str]) -> Iterator[str]:
    """Yield the names that are imported, in functions too, but not for TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            start = package[: len(package) - child.level + 1] if child.level else []
            base = [*start, *([child.module] if child.module else [])]
            yield from (".".join([*base, alias.name]) for alias in child.names)
        elif not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from imports_in(child, package)


def python_uses(root: Path) -> Uses:
    paths = {path.relative_to(root.parent).with_suffix(""): path for path in root.rglob("*.py")}
    names = {".".join(name.parts).removesuffix(".__init__"): name for name in paths}
    uses: Uses = {}
    for module, name in names.items():
        found = imports_in(ast.parse(paths[name].read_text()), list(name.parts[:-1]))
        used = {each if each in names else each.rpartition(".")[0] for each in found}
        uses[module] = {each for each in used if each.partition(".")[0] == root.name}
    return uses


def c_uses(root: Path) -> Uses:
    uses: Uses = {}
    for path in [*root.glob("*.h"), *root.glob("*/*.[ch]")]:
        found = re.findall(r'^\s*#\s*include\s+"(.*?)"', path.read_text(), re.MULTILINE)
        used = (
            path.parent / name if (path.parent / name).exists() else root / name for name in found
        )
        uses[str(path.relative_to(root))] = {str(each.relative_to(root)) for each in used}
    return uses


def circle_in(uses: Uses) -> list[str]:
    """Return a circle: its members in order, the first one again at the end; empty without one."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        done.add(name)
        return next(
            filter(None, (visit(each, [*way, name]) for each in sorted(uses.get(name, ())))), []
        )

    return next(filter(None, (visit(name, []) for name in uses)), [])


def layer_of(file: str) -> int:
    folder = file.rpartition("/")[0]
    return LAYERS.index(folder) if folder in LAYERS else len(LAYERS)


def faults(python: Uses, c: Uses) -> Iterator[str]:
    for circle in filter(None, map(circle_in, (python, c))):
        yield f"a circle: {' -> '.join(circle)}"
    for file, used in c.items():
        if layer_of(file) == len(LAYERS):
            yield f"csrc/{file} is in none of the layers"
        wrong = {each for each in used if each not in c or layer_of(each) > layer_of(file)}
        yield from (f"csrc/{file} includes {each}" for each in sorted(wrong))
    for n, name in enumerate(BINDINGS):
        right = FOR_BINDINGS | {f"ltdic._native.{before}" for before in BINDINGS[:n]}
        wrong = python[f"ltdic._native.{name}"] - right
        yield from (f"ltdic._native.{name} imports {each}" for each in sorted(wrong))


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    python, c = python_uses(root / "ltdic"), c_uses(root / "csrc")
    for name, uses in (("ltdic", python), ("csrc", c)):
        print(f"{name}: {len(uses)} files, {sum(map(len, uses.values()))} uses of one by another")
    found = list(faults(python, c))
    print("\n".join(found) or "no circle, and no use of a layer below")
    return 1 if found else 0


sys.exit(main())
