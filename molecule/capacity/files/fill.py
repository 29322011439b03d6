"""Overwrite a file again and again for some seconds, as fast as it goes or at a rate.

    fill.py FILE SECONDS KIND [MIB_A_SECOND]    KIND: buffered, fsync (every MiB), direct (every MiB), small (fsync every 4 KiB); prints MiB and the longest wait
"""
import mmap
import os
import sys
import time

SIZE = 200 << 20


def main():
    path, seconds, kind = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    rate = float(sys.argv[4]) if len(sys.argv) > 4 else None
    length = 4096 if kind == "small" else 1 << 20
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_DIRECT if kind == "direct" else 0), 0o600)
    data = mmap.mmap(-1, length)
    begun, written, longest = time.monotonic(), 0, 0.0
    while time.monotonic() < begun + seconds:
        data[:16] = b"%016d" % written
        start = time.monotonic()
        os.pwrite(handle, data, written % SIZE)
        if kind in ("fsync", "small"):
            os.fsync(handle)
        longest = max(longest, time.monotonic() - start)
        written += length
        if rate:
            time.sleep(max(0.0, begun + written / (rate * (1 << 20)) - time.monotonic()))
    print(f"{written >> 20} {longest:.3f}")


if __name__ == "__main__":
    main()
