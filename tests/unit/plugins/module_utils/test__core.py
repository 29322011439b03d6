# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _core
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem, Step


@pytest.mark.parametrize("text, size", [
    ("100G", 100 << 30), ("512M", 512 << 20), ("1K", 1024), ("2T", 2 << 40), ("1P", 1 << 50),
    ("1048576", 1 << 20), (1048576, 1 << 20), ("1", 1), ("10B", 10),
    ("100g", 100 << 30), ("100GB", 100 << 30), ("100GiB", 100 << 30), ("100 GiB", 100 << 30), (" 100G ", 100 << 30),
    ("1.5T", 3 << 39), ("0.5K", 512), ("1.10M", None), ("0.001G", None), (1.5, None), ("2.0K", 2048),
    ("16.7772160M", None),
])
def test_a_size_is_read(text, size):
    if size is None:
        with pytest.raises(Problem, match="is not a whole number of bytes"):
            _core.parse_size(text)
    else:
        assert _core.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "100X", "-5G", "1e9", "1,5G", "100G100", "1..5G", ".5G", "5.G", "0x10", "100%", None, True, [], "100Gi", "١G"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(Problem, match=r"^leg: .* is not a size; write a number and a unit, such as 100G"):
        _core.parse_size(text, "leg")


@pytest.mark.parametrize("text", ["0", "0G", "0.0T"])
def test_a_size_of_nothing_is_refused(text):
    with pytest.raises(Problem, match="is not a size above zero"):
        _core.parse_size(text)


@pytest.mark.parametrize("size, text", [
    (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (8 << 20, "8 MiB"), (100 << 30, "100 GiB"), (5 << 40, "5 TiB"), (3 << 50, "3 PiB"),
])
def test_a_size_is_told(size, text):
    assert _core.human_size(size) == text


class World:
    """Things that only have a number; keeps in order what was asked of it."""

    def __init__(self, refuse=None, fail=None, **numbers):
        self.numbers, self.refuse, self.fail, self.log = numbers, refuse, fail, []

    def observe(self, want):
        self.log.append(f"observe {want['name']}")
        return {"number": self.numbers[want["name"]]}

    def plan(self, want, state):
        self.log.append(f"plan {want['name']}")
        if want["name"] == self.refuse:
            raise Problem(f"{want['name']}: no")
        return [Step("add", f"make {want['name']} {number}", {"number": number}) for number in range(state["number"] + 1, want["number"] + 1)]

    def perform(self, want, step):
        self.log.append(f"{step.verb} {want['name']} {step.args['number']}")
        if step.what == self.fail:
            raise Problem("broken")
        self.numbers[want["name"]] = step.args["number"]

    @staticmethod
    def predict(want, state, steps):
        return dict(state, number=state["number"] + len(steps), predicted=True)

    def converge(self, check_mode=False, **wanted):
        wants = [{"name": name, "number": number} for name, number in wanted.items()]
        return _core.converge(wants, self.observe, self.plan, self.perform, self.predict, check_mode)


def test_all_is_planned_before_the_first_act():
    world = World(a=0, b=5, c=0)
    result = world.converge(a=2, b=5, c=1)
    assert world.log == ["observe a", "observe b", "observe c", "plan a", "plan b", "plan c", "add a 1", "add a 2", "observe a", "add c 1", "observe c"]
    assert result == {"changed": True, "actions": ["make a 1", "make a 2", "make c 1"], "before": [{"number": 0}, {"number": 5}, {"number": 0}],
                      "after": [{"number": 2}, {"number": 5}, {"number": 1}]}


def test_the_second_run_changes_nothing():
    world = World(a=0)
    world.converge(a=2)
    world.log.clear()
    result = world.converge(a=2)
    assert result["changed"] is False and result["actions"] == [] and result["after"] == result["before"] == [{"number": 2}]
    assert world.log == ["observe a", "plan a"]


def test_check_mode_predicts_and_performs_nothing():
    world = World(a=0, b=1)
    result = world.converge(check_mode=True, a=2, b=1)
    assert result["changed"] is True and result["actions"] == ["make a 1", "make a 2"]
    assert result["after"] == [{"number": 2, "predicted": True}, {"number": 1}]
    assert world.numbers == {"a": 0, "b": 1} and not any(entry.startswith("add") for entry in world.log)


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_refusal_of_the_last_changes_nothing_of_the_first(check_mode):
    world = World(refuse="b", a=0, b=0)
    with pytest.raises(Problem, match="b: no"):
        world.converge(check_mode=check_mode, a=2, b=2)
    assert world.numbers == {"a": 0, "b": 0}


def test_a_failure_tells_what_was_done_before_it():
    world = World(fail="make b 2", a=0, b=0)
    with pytest.raises(Problem, match="broken") as raised:
        world.converge(a=1, b=3)
    assert raised.value.done == ["make a 1", "make b 1"]
    assert world.numbers == {"a": 1, "b": 1}


class Clock:
    """Time that only passes in sleep."""

    def __init__(self, monkeypatch):
        self.now, self.longest = 1000.0, 0
        monkeypatch.setattr(_core.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(_core.time, "sleep", self.sleep)

    def sleep(self, seconds):
        self.now, self.longest = self.now + seconds, max(self.longest, seconds)


def test_waiting_returns_what_the_condition_returned(monkeypatch):
    clock = Clock(monkeypatch)
    assert _core.wait_until(lambda: clock.now >= 1003 and "here", 5, "the thing") == "here"
    assert 1003 <= clock.now <= 1003.5


def test_waiting_does_not_sleep_for_what_is_there(monkeypatch):
    clock = Clock(monkeypatch)
    assert _core.wait_until(lambda: [1], 0, "the thing") == [1] and clock.now == 1000


def test_waiting_ends_in_words(monkeypatch):
    clock = Clock(monkeypatch)
    with pytest.raises(Problem, match="^waited 5 seconds in vain for the thing$"):
        _core.wait_until(lambda: None, 5, "the thing")
    assert 1005 <= clock.now <= 1005.5 and clock.longest <= 0.5


def test_waiting_looks_once_more_after_the_deadline(monkeypatch):
    """A host that stood still for longer than the deadline must not fail what has meanwhile come about."""
    clock = Clock(monkeypatch)
    monkeypatch.setattr(_core.time, "sleep", lambda seconds: setattr(clock, "now", clock.now + 3600))
    assert _core.wait_until(lambda: clock.now > 1000, 5, "the thing") is True


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "file"
    _core.save_file(str(path), "one\n", mode=0o600)
    assert path.read_text() == "one\n" and stat.S_IMODE(path.stat().st_mode) == 0o600
    keep = os.open(str(path), os.O_RDONLY)
    _core.save_file(str(path), "two\n")
    assert path.read_text() == "two\n" and stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.pread(keep, 99, 0) == b"one\n", "the old file was written over: a crash would leave half of each"
    os.close(keep)
    assert os.listdir(str(path.parent)) == ["file"]


def test_halves_of_files_of_processes_that_were_killed_go_with_the_next_one(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    for name in (f"db.json.new-{gone.pid}-1", f"mail.json.new-{os.getpid()}-1", "new.json"):
        (tmp_path / name).touch()
    _core.save_file(str(tmp_path / "web.json"), "{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"mail.json.new-{os.getpid()}-1", "new.json", "web.json"]


def test_a_secret_file_is_secret_from_its_first_moment(tmp_path, monkeypatch):
    """The mode is there before the text is, whatever the umask and whatever a crashed run left behind."""
    path, modes = tmp_path / "file", []
    (tmp_path / "file.new").write_text("left behind")
    (tmp_path / "file.new").chmod(0o644)
    real = os.fdopen

    def spy(handle, *args, **more):
        file = real(handle, *args, **more)
        write = file.write
        file.write = lambda text: (modes.append(stat.S_IMODE(os.fstat(file.fileno()).st_mode)), write(text))
        return file
    monkeypatch.setattr(_core.os, "fdopen", spy)
    _core.save_file(str(path), "secret", mode=0o600)
    assert modes == [0o600] and path.read_text() == "secret"


def test_records_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(_core, "STATE_DIR", str(tmp_path))
    assert _core.load_record("devices", "db") == {} and _core.list_records("devices") == []
    _core.save_record("devices", "db", {"uuid": "x", "pending": [(1, 2)]})
    _core.save_record("devices", "a.b", {})
    assert _core.load_record("devices", "db") == {"uuid": "x", "pending": [[1, 2]]}
    assert _core.list_records("devices") == ["a.b", "db"] and _core.list_records("stores") == []
    (tmp_path / "records/devices/db.json.new").write_text("half")  # a crash between write and rename
    assert _core.list_records("devices") == ["a.b", "db"]
    _core.forget_record("devices", "db")
    _core.forget_record("devices", "db")
    assert _core.list_records("devices") == ["a.b"]


def test_a_record_that_is_broken_is_not_taken_for_none(tmp_path, monkeypatch):
    monkeypatch.setattr(_core, "STATE_DIR", str(tmp_path))
    _core.save_record("devices", "db", {})
    (tmp_path / "records/devices/db.json").write_text('{"uuid": ')
    with pytest.raises(Problem, match="devices/db.json is not readable JSON; move it away"):
        _core.load_record("devices", "db")


def python(program, **more):
    return _core.run([sys.executable, "-c", program], **more)


def test_a_command_gets_what_it_is_given_and_nothing_else():
    program = "import json, os, sys; print(json.dumps([sys.argv[1:], sys.stdin.read(), os.environ['LC_ALL'], '/usr/sbin' in os.environ['PATH'].split(':')]))"
    done = _core.run([sys.executable, "-c", program, "a b", "$(x)", ""], stdin="said")
    assert json.loads(done.out) == [["a b", "$(x)", ""], "said", "C", True] and (done.rc, done.err) == (0, "")
    assert json.loads(python(program).out)[1] == ""


def test_a_command_that_fails_says_what_it_said():
    with pytest.raises(_core.CommandFailed, match=r"failed with status 3: one / two \(command: ") as raised:
        python(r"import sys; sys.stderr.write('one\ntwo\n'); sys.exit(3)")
    assert raised.value.rc == 3
    assert python("raise SystemExit(3)", ok=(0, 3)).rc == 3
    assert python("raise SystemExit(9)", ok=None).rc == 9


def test_a_command_that_hangs_or_is_not_there_is_a_problem():
    with pytest.raises(Problem, match="did not end within 0.2 seconds"):
        python("import time; time.sleep(60)", timeout=0.2)
    with pytest.raises(Problem, match="^the program no-such-program is not installed on this host$"):
        _core.run(["no-such-program"])


def test_output_that_is_no_text_does_no_harm():
    assert python(r"import sys; sys.stdout.buffer.write(b'a\xff')").out == "a\ufffd"


def test_a_value_that_cannot_be_written_is_a_problem(tmp_path):
    with pytest.raises(Problem, match="cannot write 'faulty' to .*/state: No such file or directory"):
        _core.write_text(str(tmp_path / "gone" / "state"), "faulty")
    assert _core.read_text(str(tmp_path / "gone")) is None and _core.read_text(str(tmp_path / "gone"), "-") == "-"


@pytest.mark.parametrize("text, seconds", [("30d", 2592000), ("12h", 43200), ("90m", 5400), ("2w", 1209600)])
def test_a_period_is_read_and_written(text, seconds):
    assert _core.parse_period(text) == seconds and _core.human_period(seconds) == text


@pytest.mark.parametrize("text", ["", "d", "30", 30, True, "0m", "-1d", "1.5h", "30D", "1 d"])
def test_what_is_no_period_is_refused(text):
    with pytest.raises(_core.Problem, match="keep: .* is not a period; write a number and m, h, d or w"):
        _core.parse_period(text, "keep")


def test_a_record_that_cannot_be_read_is_not_taken_for_none(tmp_path, monkeypatch):
    """Else what is noted next would be all that is known of a device."""
    monkeypatch.setattr(_core, "STATE_DIR", str(tmp_path))
    (tmp_path / "records/devices/db.json").mkdir(parents=True)
    with pytest.raises(Problem, match="db.json cannot be read: Is a directory"):
        _core.load_record("devices", "db")


def test_a_file_that_could_not_be_written_leaves_nothing(tmp_path, monkeypatch):
    def fsync(number):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(_core.os, "fsync", fsync)
    with pytest.raises(OSError):
        _core.save_file(str(tmp_path / "file"), "text")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(name="full")
def fixture_full(tmp_path, monkeypatch):
    """A disk without a free block; what has blocks can be written to. Yields the files of the reserve, and a list: while it has anything the disk is full."""
    monkeypatch.setattr(_core, "STATE_DIR", str(tmp_path))
    for _time in range(_core._RESERVES):
        _core.save_record("devices", "db", {})
    real, state = _core.save_file, ["full"]

    def save_file(path, text, mode=0o644):
        if state:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, text, mode)
    monkeypatch.setattr(_core, "save_file", save_file)
    return lambda: sorted(file.stat().st_blocks * 512 for file in (tmp_path / "records" / "reserve").iterdir()), state


def test_records_are_saved_on_a_full_disk_for_as_long_as_the_reserve_lasts(full):
    reserve, state = full
    assert reserve() == [_core._RESERVE] * _core._RESERVES
    for number in range(_core._RESERVES):
        _core.save_record("devices", f"db{number % 2}", {"alone": number})
    assert _core.load_record("devices", "db1") == {"alone": _core._RESERVES - 1} and reserve() == []
    assert _core.list_records("devices") == ["db", "db0", "db1"]
    with pytest.raises(OSError, match="No space left"):
        _core.save_record("devices", "db1", {})
    assert _core.load_record("devices", "db1") == {"alone": _core._RESERVES - 1}
    state.clear()
    for number in range(_core._RESERVES):
        _core.save_record("devices", "db1", {"alone": number})
        assert len(reserve()) == number + 1


def test_the_reserve_goes_with_the_last_record(tmp_path, monkeypatch):
    monkeypatch.setattr(_core, "STATE_DIR", str(tmp_path))
    _core.save_record("devices", "db", {})
    _core.save_record("stores", "s1", {})
    _core.forget_record("devices", "db")
    assert len(list((tmp_path / "records/reserve").iterdir())) == 2
    _core.forget_record("stores", "s1")
    assert not (tmp_path / "records/reserve").exists()


def test_a_record_that_is_larger_than_the_reserve_leaves_it_alone(full):
    reserve, _state = full
    with pytest.raises(OSError, match="No space left"):
        _core.save_record("devices", "db", {"pending": "x" * _core._RESERVE})
    assert _core.load_record("devices", "db") == {} and len(reserve()) == _core._RESERVES
