"""The structure holds: no module needs one that needs it, and what should stand once stands once."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def structure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("structure", ROOT / "benchmarks" / "structure.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_module_needs_one_that_needs_it(structure: ModuleType) -> None:
    assert structure.circles(structure.imports(structure.modules(ROOT))) == []


def test_a_circle_is_found_wherever_its_imports_stand(structure: ModuleType, tmp_path: Path) -> None:
    files = {
        "exprtool/__init__.py": "",
        "exprtool/a.py": "from exprtool.b import B\n",
        "exprtool/b.py": "def f():\n    from exprtool import c\n",
        "exprtool/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import exprtool.a\n",
        "exprtool/d.py": "from exprtool import a\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = structure.circles(structure.imports(structure.modules(tmp_path)))
    assert found == [["exprtool.a", "exprtool.b", "exprtool.c"]]


@pytest.mark.parametrize("what", ["cubic step", "luma weights"])
def test_what_everybody_needs_stands_once(structure: ModuleType, what: str) -> None:
    assert len(structure.copies(structure.modules(ROOT))[what]) == 1


def test_the_core_knows_no_backend_and_no_trainer(structure: ModuleType) -> None:
    """The command line may start a trainer or measure a backend; nothing below it knows one."""
    graph = structure.imports(structure.modules(ROOT))
    knowing = {
        name: sorted(other for other in targets if not other.startswith("exprtool."))
        for name, targets in graph.items()
        if name.startswith("exprtool.") and not name.startswith("exprtool.cli.")
    }
    assert {name: others for name, others in knowing.items() if [o for o in others if o != "exprtool"]} == {}
