"""Append numbered, checksummed records to a file, fsync each, and print its number once it is safe.

    writer.py FILE append [COUNT]   goes on after the last whole record; without COUNT until it is killed
    writer.py FILE verify LEAST     every record from 1 on is whole, without a gap, and there are at least LEAST; prints how many
"""
import hashlib
import os
import sys

SIZE = 4096


def record(number):
    head = f"{number:016d}".encode()
    body = hashlib.sha256(head).digest() * ((SIZE - 48) // 32)
    whole = head + body
    return (whole + hashlib.sha256(whole).digest()).ljust(SIZE, b".")


def whole_records(path):
    count = 0
    with open(path, "rb") as file:
        while file.read(SIZE) == record(count + 1):
            count += 1
    return count


def main():
    path, verb = sys.argv[1:3]
    if verb == "verify":
        least, count = int(sys.argv[3]), whole_records(path)
        print(count)
        sys.exit(0 if count >= least else f"{path} holds {count} whole records, but {least} were acknowledged")
    number = whole_records(path) if os.path.exists(path) else 0
    last = number + int(sys.argv[3]) if len(sys.argv) > 3 else None
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    while last is None or number < last:
        number += 1
        os.pwrite(handle, record(number), (number - 1) * SIZE)
        os.fsync(handle)
        print(number, flush=True)


if __name__ == "__main__":
    main()
