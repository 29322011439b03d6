"""Fsync numbered records to files for some seconds, all at once, and note the longest wait.

    load.py SECONDS OUT FILE...     OUT: JSON with, for each file, records, stalls [[second, seconds]], longest, error; control, the longest wait of
                                 a file on the host's own disk, below the local legs; and the lag of the stores
Every record that is safe is printed as "NAME NUMBER" (NAME: the folder of the file), as fast as the reader takes it. An error ends it early, and so
does SIGUSR1.
"""
import json
import os
import signal
import sys
import threading
import time

from writer import record, whole_records

SIZE = 4096
CONTROL = "/root/control"
ENOUGH = threading.Event()


def write(path, end, note):
    number = whole_records(path) if os.path.exists(path) else 0
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    begun = time.monotonic()
    note.update(before=number, stalls=[], longest=0)
    while time.monotonic() < end and not ENOUGH.is_set():
        start = time.monotonic()
        try:
            os.pwrite(handle, record(number + 1), number * SIZE)
            os.fsync(handle)
        except OSError as error:
            note["error"] = str(error)
            break
        took = time.monotonic() - start
        number += 1
        note["records"] = number
        note["longest"] = max(note["longest"], round(took, 3))
        if took > 0.3:
            note["stalls"].append([round(start - begun, 1), round(took, 2)])
        time.sleep(0.01)


def control(note):
    handle = os.open(CONTROL, os.O_WRONLY | os.O_CREAT, 0o600)
    while not ENOUGH.is_set():
        start = time.monotonic()
        os.pwrite(handle, b"x" * SIZE, 0)
        os.fsync(handle)
        note["longest"] = max(note["longest"], round(time.monotonic() - start, 3))
        time.sleep(0.05)


def main():
    signal.signal(signal.SIGUSR1, lambda number, frame: ENOUGH.set())
    seconds, out, paths = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    end = time.monotonic() + seconds
    notes = {os.path.basename(os.path.dirname(path)): {"records": 0, "error": None} for path in paths}
    threads = [threading.Thread(target=write, args=(path, end, note), daemon=True) for path, note in zip(paths, notes.values())]
    own = {"longest": 0}
    for thread in [*threads, threading.Thread(target=control, args=(own,), daemon=True)]:
        thread.start()
    lag, told = 0, {}
    while any(thread.is_alive() for thread in threads) and not any(note["error"] for note in notes.values()):
        try:
            with open("/run/indestructible/guard.json", encoding="utf-8") as file:
                lag = max([lag] + [store["lag_seconds"] or 0 for store in json.load(file)["stores"].values()])
        except (OSError, ValueError):
            pass
        for name, note in notes.items():
            if told.get(name) != note["records"]:
                told[name] = note["records"]
                try:
                    print(name, note["records"], flush=True)
                except BrokenPipeError:
                    sys.stdout = open(os.devnull, "w", encoding="utf-8")
        time.sleep(0.02)
    with open(f"{out}.new", "w", encoding="utf-8") as file:
        json.dump({"files": notes, "control": own["longest"], "lag": lag}, file)
    os.replace(f"{out}.new", out)
    sys.exit("; ".join(f"{name}: {note['error']}" for name, note in notes.items() if note["error"]) or 0)


if __name__ == "__main__":
    main()
