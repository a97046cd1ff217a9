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

from exprtool import files
from exprtool.errors import ExprtoolError, WriteError
from exprtool.files import TEMPORARY_SUFFIX, atomic_write, read_regular, write_bytes

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, limits and links")


def test_writes_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.bin"
    with atomic_write(target) as temporary:
        assert temporary.exists() and not target.exists()
        assert temporary.stat().st_dev == target.parent.stat().st_dev  # the rename must not cross disks
        temporary.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.fixture(params=["nameless", "named", "without open folders"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Linux, a file system or system that knows no files without a name, and one like Windows."""
    if request.param != "nameless":
        monkeypatch.setattr(files, "_OPEN_FILES", Path("/nowhere"))
    if request.param == "without open folders":
        monkeypatch.setattr(files, "_open_folder", lambda folder: None)
    if request.param == "nameless" and not files._OPEN_FILES.is_dir():
        pytest.skip("needs Linux's files without a name")
    return request.param


def test_every_kind_of_system(tmp_path: Path, system: str) -> None:
    target = tmp_path / "a.jpg"
    for content in (b"first", b"second"):
        with atomic_write(target) as temporary:
            assert len(list(tmp_path.iterdir())) == (system != "nameless") + target.exists()
            with temporary.open("wb") as file:
                file.write(content)
        assert target.read_bytes() == content and list(tmp_path.iterdir()) == [target]
    with pytest.raises(ValueError), atomic_write(target) as temporary:
        raise ValueError
    with pytest.raises(WriteError, match="folder of that name"):
        write_bytes(tmp_path, b"")
    assert target.read_bytes() == b"second" and list(tmp_path.iterdir()) == [target]


@posix
def test_unfinished_names_cannot_be_guessed_or_swapped(tmp_path: Path, system: str) -> None:
    """Another user of the folder waits for the unfinished file and puts a link of its name in its place."""
    victim, target = tmp_path / "victim", tmp_path / "out" / "a.jpg"
    victim.write_bytes(b"precious")
    target.parent.mkdir()
    names = set()
    for swap in (os.symlink, os.link, None):
        try:
            with atomic_write(target) as temporary:
                for entry in target.parent.iterdir():
                    if entry != target:
                        names.add(entry.name)
                        entry.unlink()
                        if swap is not None:
                            swap(victim, entry)
                if system == "nameless":
                    temporary.write_bytes(b"mine")
        except WriteError as error:
            assert system != "nameless" and "took the place" in str(error)
        else:
            assert system == "nameless" and target.read_bytes() == b"mine"
        assert victim.read_bytes() == b"precious"
        assert len(set(target.parent.iterdir()) - {target}) == (system != "nameless" and swap is not None)
        for entry in set(target.parent.iterdir()) - {target}:  # the other's file is left alone
            entry.unlink()
    assert len(names) == (0 if system == "nameless" else 3) and all(name.endswith(TEMPORARY_SUFFIX) for name in names)


@posix
def test_what_stands_under_the_old_predictable_name_is_left_alone(tmp_path: Path) -> None:
    victim, planted = tmp_path / "victim", tmp_path / ".a.jpg.part"
    victim.write_bytes(b"precious")
    for plant in (planted.symlink_to, planted.hardlink_to):
        plant(victim)
        write_bytes(tmp_path / "a.jpg", b"mine")
        assert victim.read_bytes() == planted.read_bytes() == b"precious"
        assert (tmp_path / "a.jpg").read_bytes() == b"mine"
        planted.unlink()


@posix
def test_a_hard_link_of_the_targets_name_is_replaced_and_not_written_into(tmp_path: Path) -> None:
    victim, target = tmp_path / "victim", tmp_path / "a.jpg"
    victim.write_bytes(b"precious")
    target.hardlink_to(victim)
    write_bytes(target, b"mine")
    assert victim.read_bytes() == b"precious" and target.read_bytes() == b"mine"


@posix
def test_a_folder_swapped_for_a_link_in_the_middle_leads_nowhere(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (elsewhere / "a").write_bytes(b"precious")
    with atomic_write(out / "a") as temporary:
        temporary.write_bytes(b"mine")
        out.rename(tmp_path / "moved")
        out.symlink_to(elsewhere)
    assert [path.read_bytes() for path in elsewhere.iterdir()] == [b"precious"]
    assert (tmp_path / "moved" / "a").read_bytes() == b"mine"


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
    (tmp_path / "new").chmod(0o4755)
    write_bytes(tmp_path / "new", b"3")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o755  # what runs as its owner is not what was there


@posix
@pytest.mark.parametrize("leads_to", ["file", "nothing", "itself", "folder"])
def test_nothing_is_written_through_a_link(tmp_path: Path, leads_to: str) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    target = {"file": real / "a", "nothing": real / "later", "itself": link, "folder": real}[leads_to]
    (real / "a").write_bytes(b"old")
    link.symlink_to(target)
    with pytest.raises(WriteError, match=r"link.*not|nothing is written through links.*-o"):
        write_bytes(link, b"new")
    assert link.is_symlink() and [path.name for path in real.iterdir()] == ["a"]
    assert (real / "a").read_bytes() == b"old"
    write_bytes(tmp_path / "new" / ".." / "real" / "b", b"folders may be reached as one likes")


@posix
def test_a_link_that_appears_in_the_middle_is_not_replaced_either(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with pytest.raises(WriteError, match="links"), atomic_write(target) as temporary:
        temporary.write_bytes(b"mine")
        target.symlink_to(tmp_path / "victim")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and target.is_symlink()


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
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert not target.exists()
    if files._OPEN_FILES.is_dir():
        assert list(tmp_path.iterdir()) == []
    write_bytes(target, b"whole")
    assert target.read_bytes() == b"whole"


@posix
def test_many_writers_of_one_file_never_mix(tmp_path: Path) -> None:
    """Each write is whole, the last one stays; nobody sees anything else meanwhile."""
    target = tmp_path / "a.bin"
    code = (
        "import sys\nfrom exprtool.files import write_bytes\n"
        "for _ in range(60): write_bytes(sys.argv[1], sys.argv[2].encode() * 50000)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(target), letter]) for letter in "abc"]
    while any(writer.poll() is None for writer in writers):
        if target.exists():
            content = target.read_bytes()
            assert len(content) == 50_000 and len(set(content)) == 1
        time.sleep(0.005)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == [target]


@posix
def test_only_plain_files_of_a_reasonable_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_regular(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="larger than the 4 bytes"):
        read_regular(tmp_path / "a", 4)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="pipe or a device"):
            read_regular(path, 100)
        assert files.is_special(path)
    with pytest.raises(OSError, match="folder"):
        read_regular(tmp_path, 100)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "b", 100)


def test_write_error_is_an_exprtool_error() -> None:
    assert issubclass(WriteError, ExprtoolError)
