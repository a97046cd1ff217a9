"""Atomic writing: whole or not at all, under full disks, kills, races and read-only folders."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from exprtool.errors import ExprtoolError, WriteError
from exprtool.files import atomic_write, temporary_path, write_bytes

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, limits and links")


def test_writes_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.bin"
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent and temporary == temporary_path(target)
        assert temporary.exists() and not target.exists()
        temporary.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


def test_a_failing_body_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    for error in (ValueError("mine"), KeyboardInterrupt()):
        with pytest.raises(type(error)), atomic_write(target) as temporary:
            temporary.write_bytes(b"half")
            raise error
        assert target.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [target]


def test_errors_about_other_files_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), atomic_write(tmp_path / "a"):
        raise PermissionError(13, "Permission denied", "/somewhere/else")
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        (tmp_path / "input").read_bytes()
    assert not any(tmp_path.iterdir())


@posix
def test_permissions(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "new", b"1")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640  # as any program's new file, not 0600
    (tmp_path / "new").chmod(0o604)
    write_bytes(tmp_path / "new", b"2")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o604


@posix
def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_bytes(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "link", "real"]
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "real" / "later")
    write_bytes(dangling, b"now")
    assert (tmp_path / "real" / "later").read_bytes() == b"now" and dangling.is_symlink()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(WriteError, match="loop"):
        write_bytes(loop, b"")


@posix
def test_a_planted_link_in_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    temporary_path(tmp_path / "a").symlink_to(victim)
    with pytest.raises(WriteError, match=r"Cannot write .*a"):
        write_bytes(tmp_path / "a", b"x")
    assert victim.read_bytes() == b"precious"


def test_long_names(tmp_path: Path) -> None:
    target = tmp_path / ("é" * 120 + ".png")  # 244 bytes: the temporary name would be too long
    write_bytes(target, b"1")
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(WriteError, match="too long"):
        write_bytes(tmp_path / ("a" * 300), b"1")


def test_folders_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"folder of that name.*-o"):
        write_bytes(tmp_path, b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError, match=r"Cannot write .*file.*-o"):
        write_bytes(tmp_path / "file" / "a", b"")


@posix
def test_file_size_limit(tmp_path: Path) -> None:
    """The same path as a full disk: the system refuses more bytes in the middle of the file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(WriteError, match=r"Cannot write .*a\.bin.*limit"):
            write_bytes(tmp_path / "a.bin", bytes(50_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not any(tmp_path.iterdir())


@pytest.fixture
def tiny_disk(tmp_path: Path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the mount command")
    if made.returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(tiny_disk: Path) -> None:
    target = tiny_disk / "a.bin"
    write_bytes(target, b"old")
    with pytest.raises(WriteError, match=r"a\.bin.*disk is full.*-o"):
        write_bytes(target, bytes(200_000))
    assert target.read_bytes() == b"old" and list(tiny_disk.iterdir()) == [target]


def test_read_only_file_system(tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with pytest.raises(WriteError, match=r"read-only.*-o"):
        write_bytes(tiny_disk / "a.bin", b"x")


def test_full_disk_as_the_system_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing may be mounted: the same error number, raised where the system would."""
    for number, word in ((28, "disk is full"), (30, "read-only"), (13, "permission"), (122, "quota")):
        with pytest.raises(WriteError, match=word), atomic_write(tmp_path / "a") as temporary:
            raise OSError(number, os.strerror(number), str(temporary))
    assert not any(tmp_path.iterdir())


@posix
def test_folder_without_permission() -> None:
    """Permissions do not bite root: there, a child that became somebody else makes the attempt."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "closed"
        folder.mkdir(0o555)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                if os.geteuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                write_bytes(folder / "a", b"x")
                os.write(writer, b"written")
            except WriteError as error:
                os.write(writer, str(error).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            message = answer.read().decode()
        os.waitpid(child, 0)
        assert "permission denied" in message and "-o" in message
        assert not any(folder.iterdir())


@posix
def test_killed_in_the_middle_and_started_again(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    code = (
        "import sys, time\nfrom exprtool.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half'); print('ready', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    with pytest.raises(WriteError, match="another process"):
        write_bytes(target, b"mine")
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == [".a.bin.part"]
    write_bytes(target, b"whole")
    assert target.read_bytes() == b"whole" and list(tmp_path.iterdir()) == [target]


@posix
def test_many_writers_of_one_file_never_mix(tmp_path: Path) -> None:
    """Each write is whole or refused; nobody sees anything else meanwhile."""
    target = tmp_path / "a.bin"
    code = (
        "import sys\nfrom exprtool.files import write_bytes\nfrom exprtool.errors import WriteError\n"
        "for _ in range(60):\n"
        "    try: write_bytes(sys.argv[1], sys.argv[2].encode() * 50000)\n"
        "    except WriteError as error: assert 'another process' in str(error), error"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(target), letter]) for letter in "abc"]
    while any(writer.poll() is None for writer in writers):
        if target.exists():
            content = target.read_bytes()
            assert len(content) == 50_000 and len(set(content)) == 1
        time.sleep(0.005)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == [target]


def test_write_error_is_an_exprtool_error() -> None:
    assert issubclass(WriteError, ExprtoolError)
