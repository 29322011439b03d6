"""Open a device as it was at a checkpoint and look at its records; everything is closed again.

    point.py DEVICE CHECKPOINT|last|before   before: the newest safe one before the last unsafe window; prints "CHECKPOINT RECORDS"
The journal is replayed into a copy-on-write file, so neither the device nor its history is touched. Exit status 1 when the records have a gap.
"""
import json
import os
import subprocess
import sys

from writer import SIZE, whole_records

STORE, HEADER = "/var/lib/indestructible/stores/vault1", 4 << 20


def run(*argv):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def checkpoints():
    return [int(line.split()[0]) for line in run("lscp", os.path.realpath(run("findmnt", "-no", "SOURCE", STORE))).splitlines()[1:]]


def main():
    name, which = sys.argv[1:3]
    with open(f"{STORE}/{name}.json", encoding="utf-8") as file:
        unsafe = json.load(file)["unsafe"]
    safe = [number for number in checkpoints()
            if not any(window["first"] <= number and (window["last"] is None or number <= window["last"]) for window in unsafe)]
    if which == "before":
        number = max(one for one in safe if one < unsafe[-1]["first"])
    else:
        number = max(safe) if which == "last" else int(which)
    disk = os.path.realpath(run("findmnt", "-no", "SOURCE", STORE))
    point, mount, cow = "/run/point", "/run/point-mount", "/var/tmp/point.cow"
    os.makedirs(point, exist_ok=True)
    os.makedirs(mount, exist_ok=True)
    undo = []
    try:
        run("chcp", "ss", disk, str(number))
        run("mount", "-t", "nilfs2", "-o", f"ro,cp={number}", disk, point)
        undo.append(("umount", point))
        image = f"{point}/{name}.img"
        size = os.stat(image).st_size - HEADER
        loop = run("losetup", "--show", "-f", "-r", "-o", str(HEADER), "--sizelimit", str(size), image)
        undo.append(("losetup", "-d", loop))
        with open(cow, "wb") as file:
            file.truncate(256 << 20)
        copy = run("losetup", "--show", "-f", cow)
        undo.append(("losetup", "-d", copy))
        run("dmsetup", "create", "point", "--table", f"0 {size // 512} snapshot {loop} {copy} N 8")
        undo.append(("dmsetup", "remove", "--retry", "point"))
        run("mount", "-t", "xfs", "-o", "nouuid", "/dev/mapper/point", mount)
        undo.append(("umount", mount))
        count, size = whole_records(f"{mount}/records"), os.path.getsize(f"{mount}/records")
        if size > (count + 1) * SIZE:  # the last one may have been under way
            sys.exit(f"{name} checkpoint {number}: {count} whole records in {size} bytes: a gap")
        print(number, count)
    finally:
        for argv in reversed(undo):
            subprocess.run(argv, check=False)


if __name__ == "__main__":
    main()
