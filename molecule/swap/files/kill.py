"""Swap the store vault1 to a LUN, and kill that after some seconds.

    kill.py LUN SECONDS start|moment|after    they count from the start, from the end of the last copy, where the legs are exchanged, or from when the
                                              records say that the store has moved
    kill.py                                   only say how far it is
Prints how far it was: "before" its moment, "after" it, or "none" when no swap is begun, or it is through.
"""
import json
import subprocess
import sys
import time

RECORDS = "/var/lib/indestructible/records/stores"
PROGRESS = "/run/indestructible/swap-vault1.json"
LAST = "wide"  # the device that is copied last


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def begun():
    record, new = read(f"{RECORDS}/vault1.json"), read(f"{RECORDS}/vault1.next.json")
    return "none" if not new else "after" if new.get("uuid") == record["uuid"] else "before"


def is_copied(process):
    told = read(PROGRESS)
    return told.get("process") == process.pid and told["device"] == LAST and told["done"] == told["size"]


def main():
    lun, seconds, where = sys.argv[1:4]
    process = subprocess.Popen(["indestructible", "swap", "vault1", "--lun", lun], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    reached = {"start": lambda: True, "moment": lambda: is_copied(process), "after": lambda: begun() == "after"}[where]
    while not reached() and process.poll() is None:
        time.sleep(0.01)
    try:
        process.wait(float(seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main()
    print(begun())
