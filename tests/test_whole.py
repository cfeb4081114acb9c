"""A file is there whole or not at all, whatever stops its writing."""

import os
import signal
import subprocess
import sys

import pytest

from popdask.io.paths import atomic_path, naming, sweep, write_bytes, write_text


def held(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), atomic_path(path) as unfinished:
        unfinished.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old" and held(tmp_path) == ["note.txt"]


def test_what_cannot_be_written_is_named_where_there_is_room_or_no_folder(tmp_path):
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(OSError, match="no such type") as caught, naming(folder / "a.tif"):
            raise OSError("no such type.")
        assert caught.value.filename == str(folder / "a.tif")
        assert "free there" not in str(caught.value)


def test_the_same_contents_leave_the_file_as_it_is(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("same")
    os.utime(path, (0, 0))
    with atomic_path(path) as unfinished:
        unfinished.write_text("same")
    assert path.stat().st_mtime == 0
    with atomic_path(path) as unfinished:
        unfinished.write_text("more")
    assert path.read_text() == "more" and path.stat().st_mtime > 0


def test_a_folder_takes_the_place_of_another(tmp_path):
    for content in ("one", "two"):
        with atomic_path(tmp_path / "group") as unfinished:
            unfinished.mkdir()
            (unfinished / content).touch()
    assert held(tmp_path) == ["group"] and held(tmp_path / "group") == ["two"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path):
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "one").touch()
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "group"):
        pass  # nothing is written
    assert held(tmp_path) == ["group"] and held(tmp_path / "group") == ["one"]


def test_what_has_to_be_new_takes_no_place(tmp_path):
    path = tmp_path / "deep" / "group"
    with atomic_path(path, new=True) as unfinished:
        unfinished.mkdir()
    (path / "one").touch()
    with pytest.raises(FileExistsError, match="group"), atomic_path(path, new=True):
        pytest.fail("nothing is written in vain")
    with (
        pytest.raises(FileExistsError, match="other"),
        atomic_path(tmp_path / "other", new=True) as late,
    ):
        late.write_text("late")
        (tmp_path / "other").write_text("first")
    assert (tmp_path / "other").read_text() == "first"
    assert held(tmp_path) == ["deep", "other"] and held(path) == ["one"]


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    assert write_text(tmp_path / "deep" / "note.txt", "Åre\n") == tmp_path / "deep" / "note.txt"
    assert (tmp_path / "deep" / "note.txt").read_bytes() == b"\xc3\x85re\n"
    for data in (b"first", b"second"):
        write_bytes(tmp_path / "model", data)
        assert (tmp_path / "model").read_bytes() == data
    assert held(tmp_path) == ["deep", "model"] and held(tmp_path / "deep") == ["note.txt"]


def test_what_a_killed_write_leaves_is_swept_away(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")
    script = (
        "import os, signal, sys; from popdask.io.paths import atomic_path\n"
        "with atomic_path(sys.argv[1]) as unfinished:\n"
        "    unfinished.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old" and len(held(tmp_path)) == 2
    sweep(path)
    assert held(tmp_path) == ["note.txt"]
    sweep(tmp_path / "nowhere" / "note.txt")
