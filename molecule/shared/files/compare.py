"""Compare the payloads of two leg files byte by byte, or say where they differ.  compare.py LOCAL REMOTE

What is a hole in both is not read. What an `async` device has acknowledged may be on its way to a leg yet, so it waits until the loops over them rest.
What is read comes from the disks and not from memory, where a leg may be whole although its disk is not.
"""
import fcntl
import glob
import os
import struct
import sys
import time

HEADER, BLOCK = 4 << 20, 4 << 20
FIEMAP, SYNC, LAST, ROOM = 0xC020660B, 1, 1, 512


def blocks_of(handle, size):
    """Numbers (set) of the blocks of a file in which it has extents."""
    found, at = set(), 0
    while at < size:
        told = bytearray(struct.pack("=QQLLLL", at, size - at, SYNC, 0, ROOM, 0) + bytes(56 * ROOM))
        fcntl.ioctl(handle, FIEMAP, told)
        count = struct.unpack_from("=L", told, 20)[0]
        if not count:
            break
        for number in range(count):
            logical, _physical, length, _a, _b, flags = struct.unpack_from("=QQQQQL", told, 32 + 56 * number)
            found.update(range(logical // BLOCK, (logical + length - 1) // BLOCK + 1))
            at = logical + length
        if flags & LAST:
            break
    return found


def text(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def wait_for_rest(paths):
    """Wait until the loops over some files have nothing under way, for a while."""
    loops = [os.path.dirname(os.path.dirname(path)) for path in glob.glob("/sys/block/loop*/loop/backing_file") if text(path) in paths]
    quiet, end = 0, time.monotonic() + 60
    while quiet < 5 and time.monotonic() < end:
        quiet = 0 if any(text(f"{loop}/inflight").split() not in ([], ["0", "0"]) for loop in loops) else quiet + 1
        time.sleep(0.1)


def main():
    wait_for_rest([os.path.realpath(path) for path in sys.argv[1:3]])
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="utf-8") as file:
        file.write("1")  # and no inodes: nilfs2 does not survive that (docs/how-it-works.md, Checkpoints)
    local, remote = (os.open(path, os.O_RDONLY) for path in sys.argv[1:3])
    size = os.fstat(local).st_size
    if size != os.fstat(remote).st_size:
        sys.exit("the legs differ in size")
    differing = []
    for at in sorted(number * BLOCK for number in blocks_of(local, size) | blocks_of(remote, size)):
        if at >= HEADER and os.pread(local, BLOCK, at) != os.pread(remote, BLOCK, at):
            differing.append((at - HEADER) >> 20)
    if differing:
        sys.exit(f"the legs differ in {len(differing)} blocks of 4 MiB, first at these MiB: {differing[:10]}")
    print(f"{size - HEADER} bytes are identical")


if __name__ == "__main__":
    main()
