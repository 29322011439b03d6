"""PostgreSQL with its data on the device pg: a load of transactions, then the server on recoveries to random times.

    postgres.py prepare | load SECONDS | prove COUNT
"""
import glob
import json
import os
import random
import subprocess
import sys
import time

VERSION = os.path.basename(max(glob.glob("/usr/lib/postgresql/*")))
BIN = f"/usr/lib/postgresql/{VERSION}/bin"
PORT = "5544"
LAG = 6  # seconds


def run(*argv, **more):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **more)
    if done.returncode:
        sys.exit(f"WRONG: {' '.join(argv)} ends with {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


def postgres(*argv):
    return run("runuser", "-u", "postgres", "--", *argv, cwd="/")


def prepare():
    run("pg_createcluster", "-d", "/srv/pg/data", VERSION, "store", "--", "--data-checksums")
    run("systemctl", "start", f"postgresql@{VERSION}-store")
    postgres("psql", "-c", "CREATE TABLE entries (id int PRIMARY KEY, text text)", "-c", "CREATE EXTENSION amcheck")


def load(seconds):
    """One transaction after the other; each is noted with its time once the server has acknowledged it."""
    end, number = time.time() + seconds, 0
    psql = subprocess.Popen(["runuser", "-u", "postgres", "--", "psql", "-qAt"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
    with open("/root/acks-pg", "w") as acks:
        while time.time() < end:
            number += 1
            psql.stdin.write(f"INSERT INTO entries VALUES ({number}, repeat(md5('{number}'), 20)) RETURNING id;\n")
            psql.stdin.flush()
            if psql.stdout.readline().strip() != str(number):
                sys.exit(f"WRONG: the insert of {number} was not acknowledged")
            acks.write(f"{number} {time.time():.3f}\n")
    psql.stdin.close()
    psql.wait()


def prove(count):
    with open("/root/acks-pg") as acks:
        noted = [(int(number), float(at)) for number, at in (line.split() for line in acks)]
    for at in random.sample(range(int(noted[0][1]) + LAG + 3, int(noted[-1][1]) + 1), count):
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
        state = json.loads(run("indestructible", "recover", "pg", when, "--name", "pgproof", "--json"))
        data = f"{state['mount']}/data"
        os.unlink(f"{data}/postmaster.pid")  # of the server that runs on the device itself
        options = f"-p {PORT} -c config_file=/etc/postgresql/{VERSION}/store/postgresql.conf -c data_directory={data} -c external_pid_file=/tmp/pgproof.pid"
        postgres(f"{BIN}/pg_ctl", "-D", data, "-w", "-l", "/tmp/pgproof.log", "-o", options, "start")
        postgres(f"{BIN}/pg_amcheck", "-p", PORT, "--heapallindexed", "postgres")
        lowest, highest, rows = (int(word or 0) for word in
                                 postgres("psql", "-p", PORT, "-qAtF", " ", "-c", "SELECT min(id), max(id), count(*) FROM entries").split())
        postgres(f"{BIN}/pg_ctl", "-D", data, "-w", "-m", "fast", "stop")
        run("indestructible", "release", "pgproof")
        least = max((number for number, acked in noted if acked <= state["time"] - LAG), default=0)
        most = max((number for number, acked in noted if acked <= state["time"] + 1), default=0) + 1
        if lowest != 1 or rows != highest or not least <= highest <= most:
            sys.exit(f"WRONG: as of {when} there are {rows} rows from {lowest} to {highest}; between {least} and {most} were committed")
        print(json.dumps({"as_of": when, "rows": rows, "least": least, "most": most}), flush=True)
    run("systemctl", "is-active", f"postgresql@{VERSION}-store")
    os.unlink("/tmp/pgproof.log")


if __name__ == "__main__":
    {"prepare": prepare, "load": lambda: load(float(sys.argv[2])), "prove": lambda: prove(int(sys.argv[2]))}[sys.argv[1]]()
