"""Call one function of the core's _owner on a device, at a given moment if one is given: claim, renew, release; or snatch (see there)."""
import sys
import time

sys.path.insert(0, "/run/core")
from module_utils import _owner, _reservation  # noqa: E402


def snatch(device):
    """Take the reservation and leave the mark: so it is when a target comes back from a power loss with what it knew long ago."""
    key = _owner.key_of(_owner.identity(make=True))
    _reservation.register(device, key)
    _reservation.preempt(device, key, _reservation.read_reservation(device).key)


def main():
    verb, device = sys.argv[1:3]
    if len(sys.argv) > 3:
        time.sleep(max(0.0, float(sys.argv[3]) - time.time()))
    try:
        print(snatch(device) if verb == "snatch" else getattr(_owner, verb)(device))
    except _owner.Problem as problem:
        sys.exit(f"refused: {problem}")


if __name__ == "__main__":
    main()
