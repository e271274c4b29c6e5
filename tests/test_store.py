"""The store: what was kept survives a kill, a full disk and damage; one process writes, with the settings of before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crystal_files import message
from dpcdvae import locks
from dpcdvae.parallel import store as module
from dpcdvae.parallel.store import RECORDS, Store

RECORD = {"energy": -1 / 3, "forces": [[0.1, 1e-300, 2.0]] * 3, "id": 'a "b" é\n', "converged": True}


def opened(folder: Path, settings: dict[str, Any] | None = None, **options: Any) -> Store:
    return Store(folder, settings or {}, instead="use another folder", **options)


def filled(folder: Path, count: int) -> list[str]:
    """Adds results 0, 1, ..."""
    with opened(folder) as store:
        for k in range(count):
            store.add(str(k), {**RECORD, "k": k})
    return [str(k) for k in range(count)]


def test_results_come_back_exactly_and_the_last_of_a_key_counts(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        store.add("a", RECORD)
        store.add("b", {})
        assert store.get("a") == RECORD
        store.add("a", {"newer": 1})
    with opened(tmp_path / "s") as store:
        assert list(store) == ["a", "b"]
        assert (store.get("a"), store.get("b")) == ({"newer": 1}, {})
        assert "a" in store
        assert "c" not in store


def test_a_number_that_is_none_is_not_kept(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        with pytest.raises(ValueError, match="not JSON compliant"):
            store.add("a", {"energy": float("nan")})
        assert list(store) == []


KILLED = """
import os, sys
from dpcdvae.parallel.store import Store
store = Store(sys.argv[1], {}, instead="")
for k in range(10**6):
    store.add(f"{os.getpid()}-{k}", {"k": k, "text": "x" * 20000})
    os.write(1, b".")
"""


def test_a_kill_in_the_midst_of_appending_loses_no_result_that_was_added(tmp_path: Path) -> None:
    told: dict[int, int] = {}
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "s"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            seen = len(process.stdout.read(40))
            process.send_signal(signal.SIGKILL)
            told[process.pid] = seen + len(process.stdout.read())
    with opened(tmp_path / "s") as store:
        there = {pid: sum(key.startswith(f"{pid}-") for key in store) for pid in told}
        for key in store:
            assert store.get(key)["k"] == int(key.partition("-")[2])
    assert all(told[pid] <= there[pid] <= told[pid] + 1 for pid in told), (told, there)
    assert min(told.values()) >= 40


def test_of_two_processes_the_second_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    code = KILLED.replace("for k in", "print('open', flush=True)\nwhile True: pass\nfor k in")
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        text = message(lambda: opened(tmp_path))
        assert text.startswith(f"{tmp_path} is in use by process {other.pid} on ")
        assert text.endswith(": wait for it, or use another folder")
        other.kill()  # leaves its lock file behind
    opened(tmp_path).close()


def test_the_lock_is_not_handed_down_to_workers(tmp_path: Path) -> None:
    """A worker that outlives its killed parent must not keep the folder."""
    with opened(tmp_path / "s") as store:
        assert not os.get_inheritable(store._lock.fileno())


def test_without_locks_two_writers_spoil_no_results_but_each_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    def none(*_: Any) -> None:
        raise OSError(locks.NO_LOCKS[0], "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with opened(tmp_path / "s") as one, opened(tmp_path / "s") as other:
        for k in range(50):
            one.add(f"one-{k}", {"k": k})
            other.add(f"other-{k}", {"k": k})
            assert one.get(f"one-{k}") == other.get(f"other-{k}") == {"k": k}
    assert "this file system has no locks: start no other command in it" in capsys.readouterr().err
    with opened(tmp_path / "s") as store:
        assert len(list(store)) == 100


@pytest.mark.parametrize("damage", ["cut", "flipped", "torn", "noise"])
def test_damaged_results_count_as_absent_and_are_kept_anew(tmp_path: Path, damage: str) -> None:
    keys = filled(tmp_path / "s", 20)
    file = tmp_path / "s" / RECORDS
    whole = file.read_bytes()
    middle = whole.index(b"\n10 ") + 30
    file.write_bytes(
        {
            "cut": whole[:-20],
            "flipped": whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :],
            "torn": whole + whole[middle : middle + 40],
            "noise": whole[:middle] + bytes(range(256)) * 8 + whole[middle + 50 :],
        }[damage]
    )
    lost = {"cut": {"19"}, "flipped": {"10"}, "torn": set(), "noise": {"10"}}[damage]
    with opened(tmp_path / "s") as store:
        assert set(keys) - set(store) == lost
        for key in [*lost, "new"]:
            store.add(key, {"k": key})
    with opened(tmp_path / "s") as store:
        assert set(store) == {*keys, "new"}
        assert all(store.get(key) == ({"k": key} if key in lost else {**RECORD, "k": int(key)}) for key in keys)


def test_damage_while_a_store_is_open_is_one_line(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        store.add("a", {"text": "abc"})
        store.path.write_bytes(store.path.read_bytes().replace(b"abc", b"abd"))
        assert message(lambda: store.get("a")).endswith("was damaged while it was in use: give the command again")


@pytest.mark.parametrize("content", [b"", b"no record\n", b"a {} 00000000\n"])
def test_a_store_whose_settings_are_damaged_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RECORDS).write_bytes(content)
    assert message(lambda: opened(tmp_path)) == f"{tmp_path / RECORDS} is damaged: use another folder"
    assert (tmp_path / RECORDS).read_bytes() == content


FULL = """
import resource, sys
from dpcdvae.errors import InputError
from dpcdvae.parallel.store import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # as a full disk: half a line still fits
with Store(sys.argv[1], {}, instead="") as store:
    try:
        for k in range(1000):
            store.add(str(k), {"text": "x" * 3000})
    except InputError as error:
        print(len(list(store)), error)
"""


def test_a_full_disk_is_one_line_and_what_was_kept_stays(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path / "s"], capture_output=True, text=True, check=True)
    count, _, text = done.stdout.strip().partition(" ")
    assert text == f"cannot write {tmp_path / 's'}: File too large: make room and start again; what was kept stays", (
        done.stderr
    )
    with opened(tmp_path / "s") as store:
        assert set(store) == {str(k) for k in range(int(count))}
        assert int(count) > 10
        store.add(count, {"text": "room was made"})
    with opened(tmp_path / "s") as store:
        assert store.get(count) == {"text": "room was made"}


def test_other_settings_are_refused_with_the_first_that_differs(tmp_path: Path) -> None:
    settings = {"pressure": 2.0, "options": {"files": {"a": "1"}}, "steps": 3}
    opened(tmp_path / "s", settings).close()
    opened(tmp_path / "s", settings).close()
    for change, text in (
        ({"pressure": 3.0}, "pressure 2.0, not 3.0"),
        ({"options": {"files": {"a": "2"}}}, "options.files.a '1', not '2'"),
        ({"options": {}}, "options.files {'a': '1'}, not unset"),
        ({"options": None}, "options {'files': {'a': '1'}}, not None"),
        ({"new": None}, "new unset, not None"),
    ):
        error = message(lambda change=change: opened(tmp_path / "s", {**settings, **change}))
        assert error == (f"{tmp_path / 's'} was begun with {text}: go on with the same settings, or use another folder")


def test_what_is_to_be_forgotten_is_forgotten_and_one_setting_may_grow_with_it(tmp_path: Path) -> None:
    def again(steps: int, **options: Any) -> Store:
        return opened(tmp_path / "s", {"steps": steps}, growing="steps", **options)

    with again(3) as store:
        store.add("bad", {"converged": False})
        store.add("good", {"converged": True})
    forget = {"forget": lambda record: not record["converged"]}
    assert "with steps 3, not 5: go on with the same settings, add --retry, or" in message(lambda: again(5))
    for options in ({}, forget):
        assert "with steps 3, not 2: go on with the same settings, or" in message(lambda o=options: again(2, **o))
    with again(3) as store:
        assert set(store) == {"bad", "good"}
    with again(5, **forget) as store:
        assert list(store) == ["good"]
        assert store.get("good") == {"converged": True}
        store.add("bad", {"converged": True})
    with again(5) as store:
        assert set(store) == {"bad", "good"}
    assert "with steps 5, not 3" in message(lambda: again(3, **forget))


def test_a_stop_while_results_are_forgotten_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = filled(tmp_path / "s", 3)

    def stop(_: dict[str, Any]) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path / "s", forget=stop)
    with opened(tmp_path / "s") as store:
        assert list(store) == keys
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [locks.LOCK, RECORDS]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    text = message(lambda: opened(tmp_path))
    assert text == f"{tmp_path} holds other files, or work of an earlier version: use another folder"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        text = message(lambda folder=folder: opened(folder))
        assert text == f"cannot write {folder}: it is not a folder: use another folder"


def test_a_read_only_folder_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    root = os.geteuid() == 0  # to whom every folder can be written
    if root:
        os.seteuid(65534)
    try:
        text = message(lambda: opened(tmp_path / "s"))
    finally:
        if root:
            os.seteuid(0)
    assert text == f"cannot write {tmp_path / 's'}: Permission denied: use another folder"


def test_the_disk_is_flushed_at_the_end_and_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(module.os, "fsync", flushed.append)
    for pause, expected in ((3600.0, 1), (0.0, 11)):
        with opened(tmp_path / f"{pause}") as store:
            monkeypatch.setattr(module, "SYNC", pause)
            flushed.clear()
            for k in range(10):
                store.add(str(k), RECORD)
        assert len(flushed) == expected


def test_removed_it_is_gone_as_a_whole(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        store.add("a", RECORD)
        store.remove()
    assert not list(tmp_path.iterdir())


def test_the_folders_that_were_made_for_it_go_with_it_unless_something_lies_in_them(tmp_path: Path) -> None:
    for beside in ((), ("output",)):
        with opened(tmp_path / "a" / "b" / "s") as store:
            for name in beside:
                (tmp_path / "a" / name).write_text("x")
            store.remove()
        assert [path.name for path in tmp_path.rglob("*")] == (["a", *beside] if beside else [])
