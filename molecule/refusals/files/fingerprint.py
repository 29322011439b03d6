"""Print what a refused run must not change on this host, one thing a line. One process, because hosts of the lab are slow to fork."""
import glob
import hashlib
import os


def text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def main():
    for loop in sorted(glob.glob("/sys/block/loop*/loop")):
        print(loop, *(text(f"{loop}/{name}") for name in ("backing_file", "offset", "sizelimit", "autoclear", "dio")))
    for path in sorted(glob.glob("/sys/block/dm-*/dm/name")):
        print(path, text(path))
    for path in ("/proc/mounts", "/proc/swaps", "/etc/fstab"):
        print("\n".join(f"{path} {line}" for line in text(path).splitlines()))
    print("\n".join(line for line in text("/proc/mdstat").splitlines() if line.startswith("md")))
    print("sessions", sorted(glob.glob("/sys/class/iscsi_session/*")))
    for root in ("/var/lib/indestructible", "/etc/iscsi", "/etc/mdadm", "/mnt"):
        for folder, folders, files in os.walk(root):
            # open-iscsi makes its empty folders with the first record; the files of a store are its own
            # and what the guard notes of how full it is, too
            folders[:] = sorted(name for name in folders if name != "capacity" and not os.path.ismount(os.path.join(folder, name)))
            for name in files + ([] if root == "/etc/iscsi" else folders):
                about = os.lstat(os.path.join(folder, name))
                print(os.path.join(folder, name), oct(about.st_mode), about.st_size if name in files else "")
            for name in files if root == "/etc/iscsi" else []:
                print(os.path.join(folder, name), hashlib.sha1(text(os.path.join(folder, name)).encode()).hexdigest())
    for path in sorted(glob.glob("/dev/ubd[b-k]")):
        with open(path, "rb") as disk:
            head = disk.read(1 << 20)
            disk.seek(-(1 << 18), 2)
            print(path, hashlib.sha1(head + disk.read()).hexdigest())


if __name__ == "__main__":
    main()
