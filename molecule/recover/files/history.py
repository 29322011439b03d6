"""A history of records on devices, and proof that each recovery of it holds a prefix without a gap.

    history.py write SECONDS DEVICE...       records in one file and in many, each fsynced, noted with its time in /root/acks-DEVICE
    history.py prove COUNT DEVICE...         COUNT checkpoints of each, chosen at random; prints one line of JSON for each device
    history.py lengthen COUNT                so many more checkpoints of the store
"""
import fcntl
import json
import os
import random
import struct
import subprocess
import sys
import threading
import time

from writer import SIZE, record, whole_records

STORE = "/var/lib/indestructible/stores/vault1"
LAG = {"async": 6, "sync": 0}  # seconds: commit_interval and commit_deadline; an fsync in sync waits for both


def save(path, data, offset=0):
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.pwrite(handle, data, offset)
    os.fsync(handle)
    os.close(handle)


def write(device, seconds):
    top, end, number = f"/srv/{device}", time.time() + seconds, 0
    os.makedirs(f"{top}/many", exist_ok=True)
    folder = os.open(f"{top}/many", os.O_RDONLY)
    with open(f"/root/acks-{device}", "w") as acks:
        while time.time() < end:
            number += 1
            save(f"{top}/records", record(number), (number - 1) * SIZE)
            save(f"{top}/many/{number:06d}", record(number))
            os.fsync(folder)
            acks.write(f"{number} {time.time():.3f}\n")
            acks.flush()
            time.sleep(random.uniform(0, 0.05))


def acknowledged(device, when):
    """The last record that was safe on the device at that time."""
    last = 0
    with open(f"/root/acks-{device}") as acks:
        for line in acks:
            number, at = line.split()
            if float(at) > when:
                break
            last = int(number)
    return last


def many(top):
    names = sorted(os.listdir(f"{top}/many")) if os.path.isdir(f"{top}/many") else []
    count = 0
    for name in names:
        with open(f"{top}/many/{name}", "rb") as file:
            if name != f"{count + 1:06d}" or file.read() != record(count + 1):
                break
        count += 1
    # a file that was begun and not acknowledged may be there, empty; nothing may come after it
    return count, len(names) - count


def command(*argv):
    done = subprocess.run(["indestructible", *argv, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"WRONG: indestructible {' '.join(argv)}: {done.stderr}")
    return json.loads(done.stdout)


def check(device, mode, number):
    """Open a checkpoint; returns (records, files), or exits with what is wrong."""
    state = command("recover", device, str(number), "--name", "proof")
    top = state["mount"]
    one = whole_records(f"{top}/records") if os.path.exists(f"{top}/records") else 0
    files, rest = many(top)
    least = acknowledged(device, state["time"] - LAG[mode])
    if one < least or not one - 1 <= files <= one or rest > 1:
        sys.exit(f"WRONG: {device} checkpoint {number} of {state['iso']}: {one} records, {files} files and {rest} more, but {least} were acknowledged")
    size = os.path.getsize(f"{top}/records") if os.path.exists(f"{top}/records") else 0
    if size > (one + 1) * SIZE:
        sys.exit(f"WRONG: {device} checkpoint {number}: {size} bytes, {one} whole records: a gap")
    subprocess.run(["umount", top], check=True)
    fsck = ["xfs_repair", "-n"] if state["content"].startswith("an xfs") else ["e2fsck", "-fn"]
    done = subprocess.run([*fsck, state["path"]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"WRONG: {device} checkpoint {number}: {' '.join(fsck)} ends with {done.returncode}: {done.stdout[-1500:]}")
    command("release", "proof")
    return one, files, max(0, acknowledged(device, state["time"]) - one)


def prove(count, devices):
    modes = {device["name"]: device["replication"] for device in command("status")["devices"]}
    for device in devices:
        with open(f"/root/acks-{device}") as acks:
            times = [float(line.split()[1]) for line in acks]
        iso = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) for at in (times[0], times[-1])]
        points = command("points", device, "--since", iso[0], "--until", iso[1], "--limit", "100000")["points"]
        chosen = random.sample([point["checkpoint"] for point in points], min(count, len(points)))
        found = [check(device, modes[device], number) for number in chosen]
        print(json.dumps({"device": device, "mode": modes[device], "written": len(times), "points": len(points), "opened": len(found),
                          "least": min(one[0] for one in found), "most": max(one[0] for one in found), "behind": max(one[2] for one in found)}), flush=True)


def lengthen(count):
    handle = os.open(STORE, os.O_RDONLY)
    for number in range(count):
        os.utime(handle, (number, number))
        last, = struct.unpack("<Q", fcntl.ioctl(handle, 0x80086E8A, bytes(8)))
    print(last)


def main():
    verb, number, *devices = sys.argv[1:]
    if verb == "write":
        threads = [threading.Thread(target=write, args=(device, float(number))) for device in devices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    elif verb == "prove":
        prove(int(number), devices)
    else:
        lengthen(int(number))


if __name__ == "__main__":
    main()
