"""Pictures from outside of any data set, collected from packages; a small package is built here to be looked into."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from exprtool.cli.main import app
from exprtool.errors import DataError
from exprtool_training.data.outside import collect, listed


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 16, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What the Debian package would have installed."""
    for i, one in enumerate(one for one in listed() if one.kind == "debian"):
        path = tmp_path / "root" / one.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i))
    return tmp_path / "root"


def test_the_list_names_a_licence_and_a_path_for_each():
    names = [one.name for one in listed()]
    assert len(names) == len(set(names)) >= 30
    for one in listed():
        assert one.licence and one.what and one.kind in ("debian", "python")
        assert not one.path.startswith("/") and ".." not in one.path


def test_installed_pictures_are_collected_with_their_sources(root, tmp_path):
    got = collect(tmp_path / "out", root=root)
    assert {one.package for one in got.found} >= {"freecol"} and "freecol" not in got.missing
    assert np.asarray(Pillow.open(tmp_path / "out" / "elizabeth.png")).shape == (20, 16, 3)
    text = (tmp_path / "out" / "SOURCES.md").read_text()
    assert "| elizabeth.png | painting | freecol | public domain" in text


def test_a_package_file_is_looked_into(root, tmp_path):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb (Debian)")
    control = root / "DEBIAN" / "control"
    control.parent.mkdir()
    control.write_text("Package: freecol\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n")
    deb = tmp_path / "freecol_1.deb"
    subprocess.run(["dpkg-deb", "--build", "-Znone", str(root), str(deb)], check=True, capture_output=True)
    done = CliRunner().invoke(app, ["data", "outside", "-o", str(tmp_path / "out"), "--deb", str(deb)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "elizabeth.png").exists() and (tmp_path / "out" / "adamSmith.png").exists()


def test_what_is_missing_is_told_with_the_way_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("exprtool_training.data.outside.find_spec", lambda name: None)
    with pytest.raises(DataError, match="apt-get download freecol"):
        collect(tmp_path / "out", root=tmp_path)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="does not exist"):
        collect(tmp_path / "out", [tmp_path / "none.deb"], root=tmp_path)
    (tmp_path / "bad.deb").write_bytes(b"no package")
    with pytest.raises(DataError, match="no Debian package"):
        collect(tmp_path / "out", [tmp_path / "bad.deb"], root=tmp_path)
