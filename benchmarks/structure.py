"""The structure in numbers: import circles, copies of what should stand once, literals without a name, lines.

    python benchmarks/structure.py [ROOT]     # ROOT: another checkout, for before and after

For circles every import counts, also those inside functions and under TYPE_CHECKING: they hide a circle, they do not
end it.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

PACKAGES = ("exprtool", "backends", "trainers")
COPIES = {
    "cubic step": r"\* ?\(3(\.0)? - 2(\.0)? \* ",
    "luma weights": r"0\.299, 0\.587, 0\.114\]",
    "seam profile": r"def \w*seam_profile\(",
    "tongue": r"def \w*tongue\w*\(",
}
"""What was written more than once, and how to recognise it."""


def modules(root: Path) -> dict[str, Path]:
    """{dotted name: file} of the project's modules."""
    found = {}
    for package in PACKAGES:
        base = root if package == "exprtool" else root / package
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(known: dict[str, Path]) -> dict[str, set[str]]:
    """{module: the project's modules that it imports, wherever in its text}."""
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        targets: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                within = {f"{node.module}.{alias.name}" for alias in node.names}
                # ``from package import module`` needs the module; the package itself only where a name is its own
                targets |= (within & known.keys()) or {node.module}
        graph[name] = {target for target in targets if target in known and target != name}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other (strongly connected components of more than one, after Tarjan)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            at = stack.index(name)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                groups.append(sorted(group))

    for name in sorted(graph):
        if name not in order:
            visit(name)
    return groups


def copies(known: dict[str, Path]) -> dict[str, list[str]]:
    """{what: the places where it stands}."""
    texts = {name: path.read_text("utf-8") for name, path in known.items()}
    return {
        what: [name for name, text in texts.items() for _ in re.finditer(pattern, text)]
        for what, pattern in COPIES.items()
    }


def literals(path: Path) -> int:
    """Float literals inside functions, but 0, 0.5, 1 and 2, which need no name."""
    tree = ast.parse(path.read_text("utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    seen = {
        id(node)
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Constant) and isinstance(node.value, float) and node.value not in (0.0, 0.5, 1.0, 2.0)
    }
    return len(seen)


def main(root: Path) -> None:
    known = modules(root)
    found = circles(imports(known))
    print(f"import circles: {len(found)}")
    for group in found:
        print("  " + " ".join(group))
    for what, places in copies(known).items():
        print(f"{what}: {len(places)} ({', '.join(sorted(set(places)))})")
    by_file = {name: literals(path) for name, path in known.items()}
    print(f"float literals inside functions: {sum(by_file.values())}")
    for name, count in sorted(by_file.items(), key=lambda each: -each[1])[:8]:
        print(f"  {count:4} {name}")
    print(f"modules: {len(known)}, flat in exprtool/: {len(list((root / 'exprtool').glob('*.py')))}")
    print(f"lines without tests: {sum(len(path.read_text('utf-8').splitlines()) for path in known.values())}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1])
