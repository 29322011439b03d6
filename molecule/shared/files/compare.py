"""Compare the payloads of two leg files byte by byte, or say where they differ.  compare.py LOCAL REMOTE"""
import os
import sys

HEADER, BLOCK = 4 << 20, 4 << 20


def main():
    local, remote = (os.open(path, os.O_RDONLY) for path in sys.argv[1:3])
    size = os.fstat(local).st_size
    if size != os.fstat(remote).st_size:
        sys.exit("the legs differ in size")
    differing = []
    for at in range(HEADER, size, BLOCK):
        if os.pread(local, BLOCK, at) != os.pread(remote, BLOCK, at):
            differing.append((at - HEADER) >> 20)
    if differing:
        sys.exit(f"the legs differ in {len(differing)} blocks of 4 MiB, first at these MiB: {differing[:10]}")
    print(f"{size - HEADER} bytes are identical")


if __name__ == "__main__":
    main()
