"""Overwrite a file again and again, as fast as it goes or at a rate, until a file is there that says stop.

    fill.py FILE KIND STOP [MIB_A_SECOND]    KIND: buffered, direct (every MiB), fsync (after every MiB), small (after every 4 KiB)
Prints how many MiB were written and the longest wait; any error ends it with one.
"""
import mmap
import os
import sys
import time

SIZE = 96 << 20


def main():
    path, kind, stop = sys.argv[1:4]
    rate = float(sys.argv[4]) if len(sys.argv) > 4 else None
    length = 4096 if kind == "small" else 1 << 20
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_DIRECT if kind == "direct" else 0), 0o600)
    data = mmap.mmap(-1, length)
    begun, written, longest = time.monotonic(), 0, 0.0
    while not os.path.exists(stop):
        data[:16] = b"%016d" % written
        start = time.monotonic()
        os.pwrite(handle, data, written % SIZE)
        if kind in ("fsync", "small"):
            os.fsync(handle)
        longest = max(longest, time.monotonic() - start)
        written += length
        if rate:
            time.sleep(max(0.0, begun + written / (rate * (1 << 20)) - time.monotonic()))
    os.fsync(handle)
    print(f"{written >> 20} {longest:.3f}")


if __name__ == "__main__":
    main()
