# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _md
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem
from ansible_collections.indestructible.block.plugins.module_utils._md_super import FAULTY, SPARE, Bitmap, Super

MIB = 1 << 20
SIZE = 16 * MIB
CHUNK = 65536
IDENTITY = "11111111:22222222:33333333:44444444"
BOTH = [0, 1] + [SPARE] * 6


def make_bitmap(dirty=(), **more):
    return Bitmap(events=10, cleared=10, chunk=CHUNK, time_base=30, write_behind=1024, size=SIZE, dirty=list(dirty))._replace(**more)


def local_super(dirty=(), **more):
    """What the local leg of a device says that was stopped cleanly with both legs in it."""
    return Super(uuid=IDENTITY, device_uuid="a", name="db", events=10, clean=True, size=SIZE, data_offset=4 * MIB, data_size=SIZE, number=1, roles=BOTH,
                 recovering=False, write_mostly=False, bad_blocks=False, bitmap=make_bitmap(dirty))._replace(**more)


def remote_super(dirty=(), **more):
    return local_super(dirty, device_uuid="b", number=0, write_mostly=True)._replace(**more)


# -- judge -----------------------------------------------------------------------------------------------------------------

def test_legs_that_were_stopped_cleanly_start_together():
    assert _md.judge(local_super(), remote_super()) == ("both", "both legs were stopped cleanly")


@pytest.mark.parametrize("local, remote, why", [
    ({}, None, "the remote leg holds nothing of it"),
    ({"clean": False}, {"clean": False}, "it was not stopped cleanly"),
    ({"clean": False}, {}, "it was not stopped cleanly"),
    ({}, {"clean": False}, "it was not stopped cleanly"),
    ({}, {"recovering": True}, "the remote leg was being rebuilt"),
    ({}, {"events": 9}, "the remote leg is older (event 9 against 10)"),
    ({"roles": [FAULTY, 1]}, {"events": 9}, "the remote leg is older"),
    # the same events, but the local leg knows that the other one was thrown out
    ({"roles": [FAULTY, 1]}, {}, "the remote leg is older"),
    ({"roles": [SPARE, 1]}, {}, "the remote leg is older"),
    ({}, {"number": len(BOTH)}, "the remote leg is older"),
    # a crash while md wrote the superblocks, the remote one first
    ({}, {"events": 11}, "a stop came between the legs (event 11 on the remote one, 10 on the local one)"),
    ({"bitmap": make_bitmap([(3, 3)])}, {}, "the bitmap lists changes"),
    ({}, {"bitmap": make_bitmap([(3, 3)])}, "the bitmap lists changes"),
    ({"bitmap": None}, {}, "the bitmap lists changes"),
    ({}, {"bitmap": None}, "the bitmap lists changes"),
])
def test_in_doubt_the_local_leg_starts_alone(local, remote, why):
    start, said = _md.judge(local_super(**local), None if remote is None else remote_super(**remote))
    assert start == "local" and said.startswith(why)


@pytest.mark.parametrize("local, remote, why", [
    # the array ran on without the local leg: what was acknowledged since is on the remote leg alone
    ({"events": 8}, {"roles": [0, FAULTY]}, "the local leg is older than the remote one (event 8 against 10)"),
    ({"events": 8}, {"roles": [0, SPARE]}, "the local leg is older than the remote one"),
    ({"events": 8, "clean": False}, {"roles": [0, FAULTY], "clean": False}, "the local leg is older than the remote one"),
    ({}, {"roles": [0, SPARE]}, "the array ran on without it"),
    # an image of the local leg that was put back
    ({"events": 8}, {}, "as if it had been put back to an earlier state"),
    ({"events": 8, "clean": False}, {"clean": False}, "as if it had been put back to an earlier state"),
    ({"recovering": True}, {}, "the local leg was only partly rebuilt"),
    ({"recovering": True}, None, "the local leg was only partly rebuilt"),
    ({"recovering": True, "clean": False}, {"clean": False}, "the local leg was only partly rebuilt"),
])
def test_a_local_leg_that_lacks_writes_is_never_the_source(local, remote, why):
    with pytest.raises(Problem) as raised:
        _md.judge(local_super(**local), None if remote is None else remote_super(**remote))
    assert why in str(raised.value) and "othing was done" in str(raised.value)


# -- plan ------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("write_behind, kib", [(1024, 64), (1, 65536), (16383, 4), (256, 256), (1000, 64), (0, 65536)])
def test_what_may_be_behind_is_bounded_in_bytes(write_behind, kib):
    assert _md.request_limit(write_behind) == kib
    assert _md.request_limit(write_behind) * 1024 * max(1, write_behind) <= _md.BEHIND


class Host:
    """Real sparse files as legs, and the states that observe() would give of them."""

    def __init__(self, path):
        self.local, self.remote = str(path / "local"), str(path / "remote")
        for leg in (self.local, self.remote):
            self.resize(leg, SIZE + _md.HEADER_SIZE)

    @staticmethod
    def resize(leg, size):
        with open(leg, "ab") as file:
            file.truncate(size)

    @staticmethod
    def write(leg, at, data=b"x"):
        with open(leg, "r+b") as file:
            file.seek(at)
            file.write(data)

    def want(self, **more):
        return dict({"name": "db", "local": self.local, "remote": self.remote, "size": SIZE, "write_behind": 1024, "bitmap_chunk": CHUNK, "time_base": 30,
                     "state": "attached", "wait": 600}, **more)

    def leg(self, side, header):
        path = getattr(self, side)
        return {"path": path, "device": f"/dev/loop-{side}", "size": SIZE + _md.HEADER_SIZE, "state": "outside" if header else "blank", "slot": None,
                "write_mostly": header.write_mostly if header else None}

    def state(self, local=None, remote=None, **more):
        """A device that does not run, from the superblocks of its legs."""
        known = local or remote
        state = {
            "name": "db", "path": "/dev/md/db", "array": None, "state": "stopped" if known else "absent", "uuid": known.uuid if known else None,
            "size": known.size if known else 0, "local": self.leg("local", local), "remote": self.leg("remote", remote), "events": 0, "events_cleared": 0,
            "bitmap_chunk": CHUNK if known else 0, "time_base": 30 if known else 0, "write_behind": 1024 if known else 0, "bad_block_log": False,
            "dirty_bytes": 0, "max_backlog_used": 0, "recovery_percent": None, "last_heal": None, "last_start": None, "replication": None,
            "_record": self.record() if known else {}, "_supers": (local, remote), "_linked": None, "_activity": None,
            "_present": ["/dev/loop-local", "/dev/loop-remote"], "_strangers": [], "_ordered": True, "_unreadable": None,
        }
        return self.change(state, more)

    def record(self, phase="ready"):
        return {"name": "db", "uuid": IDENTITY, "local": self.local, "remote": self.remote, "phase": phase}

    def live(self, remote="in sync", **more):
        """A device that runs; remote is the state of its remote leg."""
        state = self.state(local_super(), remote_super(), array="md127", _linked="md127", _activity="active", max_backlog_used=5)
        state["local"].update(state="in sync", slot=1, write_mostly=False)
        state["remote"].update(state=remote, slot=0 if remote in ("in sync", "recovering") else None)
        state["state"] = {"in sync": "attached", "recovering": "recovering"}.get(remote, "detached")
        return self.change(state, more)

    @staticmethod
    def change(state, more):
        """local__size=1 changes state["local"]["size"]."""
        for key, value in more.items():
            side, found, name = key.partition("__")
            if found and side:
                state[side][name] = value
            else:
                state[key] = value
        return state


@pytest.fixture(name="host")
def fixture_host(tmp_path, monkeypatch):
    monkeypatch.setattr(_md, "find_use", lambda path: None)
    monkeypatch.setattr(_md, "CONF_DIR", str(tmp_path / "conf"))
    return Host(tmp_path)


def steps_of(want, state, check_mode=False):
    before = copy.deepcopy(state)
    steps = _md.plan(want, state, check_mode)
    assert state == before, "a plan must not change what was observed"
    assert all(step.what and want["name"] in step.what or want["local"] in step.what for step in steps)
    return steps


def verbs(want, state, check_mode=False):
    return [step.verb for step in steps_of(want, state, check_mode)]


def refusal(want, state, check_mode=False):
    with pytest.raises(Problem) as raised:
        _md.plan(want, state, check_mode)
    return str(raised.value)


def test_two_blank_legs_become_a_device(host):
    assert verbs(host.want(), host.state()) == ["create"]
    assert verbs(host.want(state="detached"), host.state()) == ["create", "detach"]
    assert verbs(host.want(state="stopped"), host.state()) == verbs(host.want(state="absent"), host.state()) == []


@pytest.mark.parametrize("side", ["local", "remote"])
@pytest.mark.parametrize("at", [0, 4 * MIB - 1, 4 * MIB, 9 * MIB + 12345, SIZE + 4 * MIB - 1])
def test_a_leg_that_is_not_blank_is_refused_wherever_the_byte_is(host, side, at):
    """With --assume-clean a byte that differs would be served from one leg and not from the other."""
    host.write(getattr(host, side), at)
    said = refusal(host.want(), host.state())
    assert said.startswith(f"db: the {side} leg {getattr(host, side)} is not blank: it holds ") and "Nothing was done" in said


@pytest.mark.parametrize("side", ["local", "remote"])
def test_a_new_device_needs_its_legs(host, side):
    path = getattr(host, side)
    assert refusal(host.want(), host.state(**{f"{side}__size": SIZE + _md.HEADER_SIZE - 1})) == (
        f"db: the {side} leg {path} has 20971519 bytes; a device of 16 MiB needs 20971520 (4 MiB more, for md's superblock and bitmap)")
    absent = {f"{side}__state": "absent", f"{side}__size": None, f"{side}__device": None}
    assert refusal(host.want(), host.state(**absent)) == f"db: the {side} leg {path} does not exist"
    assert verbs(host.want(), host.state(**absent), check_mode=True) == ["create"]
    no_loop = {f"{side}__device": None}
    assert refusal(host.want(), host.state(**no_loop)) == f"leg {path}: there is no loop device over it; attach it with the module loopfile first"
    assert verbs(host.want(), host.state(**no_loop), check_mode=True) == ["create"]


@pytest.mark.parametrize("side", ["local", "remote"])
def test_a_leg_in_use_is_refused(host, side, monkeypatch):
    monkeypatch.setattr(_md, "find_use", lambda path: "mounted on /mnt" if path == f"/dev/loop-{side}" else None)
    assert refusal(host.want(), host.state()) == f"db: the {side} leg {getattr(host, side)} is mounted on /mnt; nothing was done"


def test_check_mode_refuses_what_it_can_see(host):
    host.write(host.local, 5 * MIB)
    assert "is not blank" in refusal(host.want(), host.state(remote__state="absent", remote__device=None), check_mode=True)


@pytest.mark.parametrize("local, remote", [(None, None), (local_super(), None), (None, remote_super()),
                                           (local_super(clean=False), remote_super(clean=False))])
def test_a_creation_that_was_cut_short_is_done_again(host, local, remote):
    """The header may hold anything; what was never written by md must still be blank."""
    host.write(host.local, 4096, b"y" * 4096)
    host.write(host.remote, 8192, b"y" * 4096)
    steps = steps_of(host.want(), host.state(local, remote, _record=host.record("creating")))
    assert [step.verb for step in steps] == ["create"] and "again, after an interruption" in steps[0].what


@pytest.mark.parametrize("side", ["local", "remote"])
@pytest.mark.parametrize("at", [0, 4 * MIB, SIZE + 4 * MIB - 1])
def test_what_an_interrupted_creation_did_not_write_is_not_erased(host, side, at):
    host.write(getattr(host, side), at)
    for local, remote in ((None, None), (None, remote_super())):
        said = refusal(host.want(), host.state(local, remote, _record=host.record("creating")))
        assert "is not blank" in said or "its local leg is lost" in said


@pytest.mark.parametrize("more", [{"phase": "ready"}, {"local": "/other"}, {"remote": "/other"}])
def test_only_a_creation_of_these_legs_is_done_again(host, more):
    state = host.state(None, remote_super(), _record=dict(host.record("creating"), **more))
    assert "its local leg is lost" in refusal(host.want(), state)


def test_a_creation_after_which_something_was_written_is_assembled(host):
    host.write(host.local, SIZE)
    state = host.state(local_super(clean=False), remote_super(clean=False), _record=host.record("creating"))
    assert verbs(host.want(), state) == ["assemble", "attach", "remember"]


def test_a_lost_local_leg_is_not_made_anew(host):
    said = refusal(host.want(), host.state(None, remote_super()))
    assert said.startswith(f"db: {host.local} is no leg of this device, but {host.remote} holds it (array {IDENTITY}); its local leg is lost. Nothing was done")
    said = refusal(host.want(), host.state(None, remote_super(), local__state="absent", local__size=None))
    assert said.startswith(f"db: {host.local} does not exist, but {host.remote} holds it")


@pytest.mark.parametrize("local, remote, said", [
    ({"name": "mail"}, {}, "is a leg of the array 'mail'"),
    ({}, {"name": "mail"}, "is a leg of the array 'mail'"),
    ({"uuid": "5"}, {"uuid": "5"}, f"belongs to the array 5, but this host knows db as {IDENTITY}"),
    ({}, {"uuid": "5"}, f"belongs to the array 5, but this host knows db as {IDENTITY}"),
])
def test_a_leg_of_another_array_is_refused(host, local, remote, said):
    state = host.state(local_super(**local), remote_super(**remote))
    for more in ({}, {"state": "detached"}, {"state": "absent"}):
        assert said in refusal(host.want(**more), state)
    live = host.live(_supers=(local_super(**local), remote_super(**remote)))
    assert said in refusal(host.want(), live)


def test_legs_of_different_arrays_are_refused_on_a_host_that_knows_neither(host):
    state = host.state(local_super(), remote_super(uuid="5"), _record={})
    assert "the legs belong to different arrays" in refusal(host.want(), state)


def test_a_name_that_is_taken_is_refused(host):
    assert "/dev/md/db is another array (md5)" in refusal(host.want(), host.state(_linked="md5"))
    assert "/dev/md/db is another array (md5)" in refusal(host.want(), host.live(_linked="md5"))
    assert "is already part of the running array md127, which is not /dev/md/db" in refusal(host.want(), host.live(_linked=None))


def test_a_leg_that_was_cut_short_is_refused(host):
    for side in ("local", "remote"):
        said = refusal(host.want(), host.state(local_super(), remote_super(), **{f"{side}__size": SIZE}))
        assert f"the {side} leg {getattr(host, side)} has 16777216 bytes, but held 20971520 when it was last used" in said


def assemble(host, want, local, remote, **more):
    steps = steps_of(host.want(**want), host.state(local, remote, **more))
    assert steps[0].verb == "assemble"
    return [step.verb for step in steps[1:]], steps[0].args


def test_a_clean_device_starts_from_both_legs(host):
    assert assemble(host, {}, local_super(), remote_super()) == ([], {"both": True, "bad_blocks": False})
    alone = {"both": False, "bad_blocks": False, "pending": [], "compare": False}
    assert assemble(host, {"state": "detached"}, local_super(), remote_super()) == (["wish"], alone)


@pytest.mark.parametrize("record, time_base, compare", [
    ({}, 30, False), ({"replication": "async"}, 30, True), ({"replication": "sync"}, 30, True), ({"replication": "async"}, _md.HELD, False)])
def test_a_bitmap_that_was_not_held_is_not_believed(host, record, time_base, compare):
    legs = [leg._replace(bitmap=leg.bitmap._replace(time_base=time_base)) for leg in (local_super(clean=False), remote_super())]
    assert assemble(host, {}, *legs, _record=dict(record, uuid=legs[0].uuid, phase="ready"))[1]["compare"] is compare


def test_after_a_crash_the_chunks_of_both_bitmaps_are_noted(host):
    """The kernel drops what the bitmap says when one leg is started alone, so all that either lists has to come along."""
    dirty = (local_super([(1, 2), (9, 9)], clean=False), remote_super([(2, 4)], clean=False))
    assert assemble(host, {}, *dirty) == (["attach"], {"both": False, "bad_blocks": False, "pending": [(1, 4), (9, 9)], "compare": False})
    alone = {"both": False, "bad_blocks": False, "pending": [(1, 4), (9, 9)], "compare": False}
    assert assemble(host, {"state": "detached", "passing": True}, *dirty) == ([], alone)


def test_a_device_whose_remote_leg_is_gone_is_started_only_when_told(host):
    state = host.state(local_super(clean=False), None, remote__path="/gone", remote__state="absent", remote__device=None, remote__size=None)
    assert refusal(host.want(), state) == "leg /gone: it does not exist"
    assert verbs(host.want(state="detached"), state) == ["assemble", "wish"]


def test_a_remote_leg_in_place_of_a_lost_one_must_be_blank_and_large_enough(host):
    state = host.state(local_super(roles=[FAULTY, 1]), None)
    steps = steps_of(host.want(), state)
    assert [step.verb for step in steps] == ["assemble", "attach"] and "copy everything to this blank leg" in steps[1].what
    host.write(host.remote, 7 * MIB)
    assert "holds data" in refusal(host.want(), state) and "is no leg of this device" in refusal(host.want(), state)
    host.write(host.remote, 7 * MIB, b"\0")
    assert f"has {SIZE} bytes; this device needs {SIZE + 4 * MIB}" in refusal(host.want(), host.change(state, {"remote__size": SIZE}))


def test_a_local_leg_that_lacks_writes_is_refused_by_name(host):
    said = refusal(host.want(), host.state(local_super(events=5), remote_super(roles=[0, FAULTY])))
    assert said.startswith("db: the local leg is older than the remote one (event 5 against 10)")


def test_an_array_that_udev_made_of_a_lone_leg_is_stopped_first(host):
    state = host.state(local_super(), remote_super(), array="md0", _activity="inactive")
    assert verbs(host.want(), state) == ["stop", "assemble"]
    assert assemble(host, {}, local_super(), remote_super(), bad_block_log=True)[1]["bad_blocks"] is True


@pytest.mark.parametrize("remote, wanted, steps", [
    ("in sync", "attached", []),
    ("recovering", "attached", []),
    ("outside", "attached", ["attach"]),
    ("blank", "attached", ["attach"]),
    ("faulty", "attached", ["detach", "attach"]),
    ("in sync", "detached", ["detach"]),
    ("recovering", "detached", ["detach"]),
    ("faulty", "detached", ["detach"]),
    ("outside", "detached", ["wish"]),
    ("in sync", "stopped", ["stop"]),
    ("outside", "stopped", ["stop"]),
    ("in sync", "absent", ["stop", "forget"]),
])
def test_a_device_that_runs(host, remote, wanted, steps):
    state = host.live(remote)
    if remote == "blank":
        state["_supers"] = (local_super(), None)
    assert verbs(host.want(state=wanted), state) == steps
    assert verbs(host.want(state=wanted), state, check_mode=True) == steps


def test_that_a_leg_is_to_stay_out_is_noted_once(host):
    state = host.live("outside")
    state["_record"]["detached"] = True
    assert verbs(host.want(state="detached"), state) == []


def test_a_device_that_runs_from_its_remote_leg_alone_is_left_alone(host):
    said = refusal(host.want(), host.live(state="local failed", local__state="faulty"))
    assert "runs from its remote leg alone. Nothing was done: save the data" in said


@pytest.mark.parametrize("remote, starts", [("absent", False), ("unreadable", False), ("blank", True), ("outside", True)])
def test_a_local_leg_that_failed_while_it_ran_is_not_started_alone(host, remote, starts):
    """At boot the store is not there yet, and the local leg knows nothing of what was written after it had failed."""
    state = host.state(local_super(), remote_super() if remote == "outside" else None, remote__state=remote)
    state["_record"]["alone"] = True
    want = host.want(state="detached", passing=True)
    if starts:
        assert verbs(want, state)[0] == "assemble"
    else:
        assert "failed while it ran, and what was written since is on its remote leg" in refusal(want, state)


def test_a_third_leg_is_refused(host):
    said = refusal(host.want(), host.live("outside", _strangers=["/dev/loop7"]))
    assert "/dev/loop7" in said and f"which is neither {host.local} nor {host.remote}. Nothing was done" in said


def test_a_remote_leg_that_is_not_there_is_named(host):
    said = refusal(host.want(), host.live("absent", remote__device=None))
    assert said == f"db: the remote leg {host.remote} is not there (no file, or no loop device over it); the device runs from its local leg"


def test_a_remote_leg_that_cannot_be_read_may_stay_out(host):
    words = f"cannot read {host.remote} at byte 4096: Input/output error"
    state = host.live("unreadable", _unreadable=words)
    assert verbs(host.want(state="detached"), state) == ["wish"]
    assert verbs(host.want(state="stopped"), state) == ["stop"]
    assert refusal(host.want(), state) == f"db: {words}; nothing was done"


@pytest.mark.parametrize("wanted", ["attached", "detached", "stopped"])
def test_a_remote_leg_that_cannot_be_read_is_left_alone_while_it_is_in(host, wanted):
    assert refusal(host.want(state=wanted), host.live(_unreadable="cannot read it")) == "db: cannot read it; nothing was done"


@pytest.mark.parametrize("wanted", ["attached", "detached"])
def test_no_device_is_made_or_started_beside_a_leg_that_cannot_be_read(host, wanted):
    for local in (None, local_super()):
        state = host.state(local, _unreadable="cannot read it", remote__state="unreadable")
        assert refusal(host.want(state=wanted), state) == "db: cannot read it; nothing was done"


def test_a_leg_that_cannot_be_read_is_not_taken_for_a_blank_one(host, monkeypatch):
    def fail(path):
        raise Problem(f"cannot read {path}")
    monkeypatch.setattr(_md, "read_super", fail)
    leg, header, why = _md._leg(host.remote, None, None)
    assert (leg["state"], header, why) == ("unreadable", None, f"cannot read {host.remote}")


def test_a_device_in_use_is_not_stopped(host, monkeypatch):
    monkeypatch.setattr(_md, "find_use", {"/dev/md127": "mounted on /srv/db"}.get)
    for wanted in ("stopped", "absent"):
        assert refusal(host.want(state=wanted), host.live()) == "db: /dev/md/db is mounted on /srv/db; end that first"


def test_a_stopped_device_is_forgotten_once(host):
    stopped = host.state(local_super(), remote_super())
    assert verbs(host.want(state="stopped"), stopped) == []
    assert verbs(host.want(state="absent"), stopped) == ["forget"]
    assert verbs(host.want(state="absent"), dict(stopped, _record={})) == []


@pytest.mark.parametrize("more", [{"write_behind": 256}, {"time_base": 60}])
def test_settings_change_while_it_runs(host, more):
    assert [(step.verb, step.args) for step in steps_of(host.want(**more), host.live())] == [("set", more)]
    assert verbs(host.want(**more), host.state(local_super(), remote_super())) == ["assemble", "set"]


def test_no_write_is_behind_where_loops_do_not_keep_the_order(host):
    live = host.live(_ordered=False)
    assert [(step.verb, step.args) for step in steps_of(host.want(), live)] == [("detach", {"doubt": True}), ("attach", {})]
    assert verbs(host.want(), host.live("outside", _ordered=False)) == ["attach", "set"]
    assert predicted(host, live)["write_behind"] == 0
    assert verbs(host.want(), dict(live, write_behind=0)) == []


def test_the_chunk_of_a_bitmap_is_settled(host):
    assert refusal(host.want(bitmap_chunk=2 * CHUNK), host.live()) == (
        "db: its bitmap has chunks of 64 KiB; this is settled when a device is created (128 KiB asked for)")


def test_a_device_is_never_made_smaller(host):
    for state in (host.live(), host.state(local_super(), remote_super())):
        assert refusal(host.want(size=SIZE - 4096), state) == "db: it has 16 MiB (16777216 bytes) and cannot be made smaller (16 MiB asked for)"


def test_a_device_grows_into_what_is_blank(host):
    want = host.want(size=SIZE + 8 * MIB)
    for leg in (host.local, host.remote):
        host.resize(leg, SIZE + 12 * MIB)
    grown = {"local__size": SIZE + 12 * MIB, "remote__size": SIZE + 12 * MIB}
    for side in ("local", "remote"):
        assert f"to grow to 24 MiB its {side} leg {getattr(host, side)} must have 29360128 bytes; it has 20971520" in refusal(
            want, host.live(**dict(grown, **{f"{side}__size": SIZE + 4 * MIB})))
        for at in (SIZE + 4 * MIB, SIZE + 12 * MIB - 1):
            host.write(getattr(host, side), at)
            assert f"the part that would be added of its {side} leg {getattr(host, side)} is not blank; nothing was done" in refusal(want, host.live(**grown))
            host.write(getattr(host, side), at, b"\0")
    host.write(host.local, SIZE + 4 * MIB - 1)  # the last byte of the data is nothing that would be added
    assert verbs(want, host.live(**grown)) == ["grow"]


@pytest.mark.parametrize("more", [{"local__write_mostly": True}, {"remote__write_mostly": False}])
def test_the_remote_leg_alone_is_write_mostly(host, more):
    assert verbs(host.want(), host.live(**more)) == ["flag"]


@pytest.mark.parametrize("more", [{"phase": "creating"}, {"local": "/other"}, {"remote": "/other"}])
def test_what_this_host_knows_is_kept_right(host, more):
    assert verbs(host.want(), host.live(_record=dict(host.record(), **more))) == ["remember"]
    assert verbs(host.want(), host.live(_record={})) == ["remember"]


# -- predict ---------------------------------------------------------------------------------------------------------------

def predicted(host, found, **more):
    want = host.want(**more)
    before = copy.deepcopy(found)
    after = _md.predict(want, found, _md.plan(want, found, True))
    assert found == before, "a prediction must not change what was observed"
    assert set(_md.public(after)) == set(_md.public(found))
    return after


def test_a_prediction_is_what_comes_about(host):
    """For what is known beforehand: the state that observe() gives after the same steps."""
    live, detached = host.live(), host.live("outside")
    assert predicted(host, detached) == dict(live, _supers=detached["_supers"])
    assert predicted(host, live, state="detached") == detached
    stopped = predicted(host, live, state="stopped")
    assert _md.public(stopped) == _md.public(host.state(local_super(), remote_super()))
    assert predicted(host, live, state="absent")["state"] == "stopped"


def test_a_new_device_is_predicted(host):
    after = predicted(host, host.state())
    assert (after["state"], after["size"], after["bitmap_chunk"], after["time_base"], after["write_behind"]) == ("attached", SIZE, CHUNK, 30, 1024)
    assert (after["local"]["state"], after["local"]["write_mostly"]) == ("in sync", False)
    assert (after["remote"]["state"], after["remote"]["write_mostly"], after["remote"]["slot"]) == ("in sync", True, 0)
    after = predicted(host, host.state(), state="detached")
    assert (after["state"], after["remote"]["state"], after["remote"]["write_mostly"]) == ("detached", "outside", True)
    assert predicted(host, host.state(), state="absent")["state"] == "absent"


def test_a_mixture_is_refused_until_its_rollback_is_complete(monkeypatch):
    last = {}
    monkeypatch.setattr(_md, "load_record", lambda kind, name: last if (kind, name) == ("rollbacks", "db") else {})
    _md.refuse_mixture("db")
    last.update(as_of="10 minutes ago", done=False)
    with pytest.raises(Problem, match="complete it: indestructible rollback db '10 minutes ago'"):
        _md.refuse_mixture("db")
    assert _md.unfinished_rollback("mail") == {}
    last.update(done=True)
    _md.refuse_mixture("db")


def test_a_write_that_is_too_large_to_be_behind_is_split(host):
    assert verbs(host.want(), host.live(_request=64)) == []
    assert verbs(host.want(), host.live(_request=1280)) == ["bound"] == verbs(host.want(write_behind=1), host.live(_request=128000, write_behind=1))
    assert verbs(host.want(), host.live(_request=1280, write_behind=0, _ordered=False)) == []
