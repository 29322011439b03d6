#!/usr/bin/env python
# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real Linux hosts for tests: User-Mode Linux processes in one network namespace.

    lab up HOST[:bare] [HOST...]      boot hosts (store*: group targets, others: owners); each gets the disks of --disk
    lab down                          everything goes, whatever state it is in
    lab ssh HOST [COMMAND...]         a shell, or one command
    lab cut HOST | mend HOST          unplug and plug the network cable
    lab delay HOST MILLISECONDS [RATE]  added to every packet the host sends, at most so fast (8mbit; 0: none)
    lab power-off HOST | boot HOST    pull the plug (disks keep what was written to them); boot again
    lab status

Environment: LAB_NAME (several labs at once, default `lab`), LAB_RELEASE (12 or 13, default 12), LAB_UNTIL_EXIT (a PID, for `up`).
All processes of a lab live in its namespace and all its files in one folder, so `down` needs to remember nothing; `up` begins
with it. With --until-exit PID the lab also goes when that process ends, however it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
GATEWAY, GATEWAY6 = "10.99.0.1", "fd99::1"
BOOT_SECONDS = 240
RING = 3  # seconds


class LabError(Exception):
    """Something of the lab did not work; the message says what."""


def sh(*argv, check=True, **more):
    """Run a command quietly; its error text becomes a LabError."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False, **more)
    if check and done.returncode:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done


class Lab:
    """One lab: hosts are dicts {index, release, bare, disks: [MiB]}, kept in hosts.json of the lab's folder."""

    def __init__(self, name=None, release=None):
        self.name = name or os.environ.get("LAB_NAME", "lab")
        self.release = str(release or os.environ.get("LAB_RELEASE", "12"))
        self.space = f"indestructible-{self.name}"
        self.path = os.path.join(os.environ.get("LAB_PATH", "/var/tmp/indestructible-lab"), self.name)
        try:
            with open(f"{self.path}/hosts.json", encoding="utf-8") as file:
                self.hosts = json.load(file)
        except FileNotFoundError:
            self.hosts = {}

    # the namespace and what lives in it

    def inside(self, *argv):
        """argv to be run in the lab's namespace."""
        return ("ip", "netns", "exec", self.space, *argv)

    def image(self, release):
        """The folder with the root images of a release; built when it is not there."""
        done = subprocess.run([f"{HERE}/image", release], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise LabError(f"the root image of Debian {release} could not be built")
        return done.stdout.strip()

    def down(self):
        """End every process of the lab and remove every file of it. Safe in any state."""
        if os.path.exists(f"/run/netns/{self.space}"):
            deadline = time.monotonic() + 20
            while True:
                pids = [int(pid) for pid in sh("ip", "netns", "pids", self.space, check=False).stdout.split()]
                if not pids:
                    break
                if time.monotonic() > deadline:
                    raise LabError(f"processes of the lab {self.name} do not end: {pids}")
                for pid in pids:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                time.sleep(0.05)
            sh("ip", "netns", "delete", self.space)
        shutil.rmtree(self.path, ignore_errors=True)
        self.hosts = {}

    def up(self, hosts, disks, until_exit=None):
        """Take away what an earlier lab of this name left, then boot hosts ([name or name:bare or name:12/13]) and wait for SSH."""
        self.down()
        releases = {}
        plan = {}
        for index, word in enumerate(hosts, start=11):
            name, *marks = word.split(":")
            release = next((mark for mark in marks if mark.isdigit()), self.release)
            plan[name] = {"index": index, "release": release, "bare": "bare" in marks, "disks": list(disks)}
            releases[release] = releases.get(release) or self.image(release)
        os.makedirs(self.path, mode=0o700)
        sh("ip", "netns", "add", self.space)
        for argv in (("link", "set", "lo", "up"), ("link", "add", "br0", "type", "bridge", "forward_delay", "0"),
                     ("address", "add", f"{GATEWAY}/24", "dev", "br0"), ("-6", "address", "add", f"{GATEWAY6}/64", "dev", "br0", "nodad"),
                     ("link", "set", "br0", "up")):
            sh("ip", "-n", self.space, *argv)
        self._start("keeper", sys.executable, os.path.abspath(__file__), "keep", *([str(until_exit)] if until_exit else []), env_extra={"LAB_NAME": self.name})
        for release, folder in releases.items():
            port = 8080 if len(releases) == 1 or release == self.release else 8081
            self._start(f"repository-{release}", *self.inside(
                sys.executable, "-m", "http.server", "--bind", GATEWAY, "--directory", f"{folder}/repo", str(port)))
        for name, host in plan.items():
            host["image"] = releases[host["release"]]
            os.makedirs(f"{self.path}/{name}")
            for number, size in enumerate(host["disks"]):
                with open(f"{self.path}/{name}/disk{number}", "wb") as file:
                    file.truncate(size << 20)
            sh("ip", "-n", self.space, "tuntap", "add", self.tap(host), "mode", "tap")
            sh("ip", "-n", self.space, "link", "set", self.tap(host), "master", "br0", "up")
        self.hosts = plan
        self._save()
        for name in plan:
            self._power_on(name)
        for name in plan:
            self.wait(name)

    def _save(self):
        with open(f"{self.path}/hosts.json", "w", encoding="utf-8") as file:
            json.dump(self.hosts, file, indent=1)
        # the first value found wins, so hosts go before the rest
        lines = [line for name, host in self.hosts.items() for line in
                 (f"Host {name} {self.address(name)}", f" HostName {self.address(name)}", f" IdentityFile {host['image']}/key")]
        lines += ["Host *", " User root", " BatchMode yes", " StrictHostKeyChecking no", " UserKnownHostsFile /dev/null", " LogLevel ERROR",
                  " ConnectTimeout 10", " ServerAliveInterval 5", f" ProxyCommand ip netns exec {self.space} nc %h %p",
                  # a new connection costs a host a second of its processor, so all commands, and Ansible, share one
                  " ControlMaster auto", " ControlPersist 30m", f" ControlPath {self.path}/ssh-%h"]
        with open(f"{self.path}/ssh_config", "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        with open(f"{self.path}/inventory.yml", "w", encoding="utf-8") as file:
            json.dump(self.inventory(), file, indent=1)

    def _start(self, log, *argv, env_extra=None):
        """Start a process that outlives this one, in a session of its own; its output goes to a file. Returns its pid."""
        with open(f"{self.path}/{log}.log", "ab") as out:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd="/",
                                    env=dict(os.environ, TMPDIR="/dev/shm", **(env_extra or {}))).pid

    # hosts

    def host(self, name):
        """The dict of a host; a LabError names the ones there are."""
        if name not in self.hosts:
            raise LabError(f"no host {name!r} in the lab {self.name}; there are: {', '.join(self.hosts) or 'none'}")
        return self.hosts[name]

    def address(self, name):
        """The IPv4 address of a host."""
        return f"10.99.0.{self.host(name)['index']}"

    @staticmethod
    def tap(host):
        """The name of the tap device that is a host's cable."""
        return f"tap{host['index']}"

    def _power_on(self, name):
        host = self.host(name)
        folder = f"{self.path}/{name}"
        index = host["index"]
        shutil.rmtree(f"{folder}/uml", ignore_errors=True)
        root = f"{host['image']}/{'bare' if host['bare'] else 'full'}.ext4"
        disks = [f"ubd{number}={folder}/disk{number - 1}" for number in range(1, len(host["disks"]) + 1)]
        machine = hashlib.md5(f"{self.name}/{name}".encode()).hexdigest()
        host["pid"] = self._start(
            f"{name}/console", *self.inside(
                "env", f"LD_PRELOAD={host['image']}/uml/xstate.so", f"{host['image']}/uml/linux",
                f"umid={name}", f"uml_dir={folder}/uml/", "mem=1G", f"ubd0={folder}/root.cow,{root}", *disks,
                "root=/dev/ubda", "rw", "con=null", "con0=null,fd:1", "ssl=null",
                f"vec0:transport=tap,ifname={self.tap(host)},depth=128,gro=1",
                f"lab.host={index}", f"systemd.hostname={name}",
                f"systemd.machine_id={machine}", "net.ifnames=0", "systemd.show_status=0"))
        self._save()

    def running(self, name):
        """Whether a host's process is there."""
        return os.path.exists(f"/proc/{self.host(name).get('pid', 0)}/cwd")

    def wait(self, name, seconds=BOOT_SECONDS):
        """Wait until a host answers over SSH and its boot is complete enough to be used."""
        deadline = time.monotonic() + seconds
        while self.ssh(name, "true", check=False).returncode:
            if not self.running(name) or time.monotonic() > deadline:
                raise LabError(f"{name} does not answer; its console: {self.path}/{name}/console.log")
            time.sleep(0.2)

    def ssh(self, name, command, check=True, timeout=300):
        """Run a shell command on a host; CompletedProcess with text."""
        self.host(name)
        return sh("ssh", "-F", f"{self.path}/ssh_config", name, command, check=check, timeout=timeout)

    def power_off(self, name):
        """Pull the plug: the process group is killed; what the host had not written to its disks is lost."""
        host = self.host(name)
        try:
            os.killpg(host["pid"], signal.SIGKILL)
        except ProcessLookupError:
            pass
        deadline = time.monotonic() + 20
        while True:
            try:
                os.killpg(host["pid"], 0)
            except ProcessLookupError:
                break
            except PermissionError:
                pass
            if time.monotonic() > deadline:
                raise LabError(f"{name} does not die")
            try:  # a child of ours would stay a zombie
                os.waitpid(-host["pid"], os.WNOHANG)
            except ChildProcessError:
                pass
            time.sleep(0.02)
        self._hang_up(name)

    def boot(self, name, wait=True):
        """Power a host on again, with its disks as they are."""
        if self.running(name):
            raise LabError(f"{name} is running")
        self._hang_up(name)
        self._power_on(name)
        if wait:
            self.wait(name)

    def _hang_up(self, name):
        """End the shared connection to a host that will not answer any more: whoever used it would wait."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            sh("ssh", "-F", f"{self.path}/ssh_config", "-O", "exit", name, check=False, timeout=10)

    def cut(self, name):
        """Unplug the cable: packets vanish, no interface goes down."""
        sh("ip", "-n", self.space, "link", "set", self.tap(self.host(name)), "nomaster")
        self._hang_up(name)

    def mend(self, name):
        """Plug the cable in."""
        sh("ip", "-n", self.space, "link", "set", self.tap(self.host(name)), "master", "br0")

    def delay(self, name, milliseconds, rate=None):
        """Hold back every packet that a host sends by so many milliseconds, and let it send no faster than rate (as tc writes it)."""
        limit = f" rate {rate}" if rate else ""
        verb = f"replace dev vec0 root netem delay {milliseconds}ms{limit} limit 100000" if float(milliseconds) else "delete dev vec0 root"
        self.ssh(name, f"tc qdisc {verb}", check=bool(float(milliseconds)))

    def inventory(self):
        """An Ansible inventory of the hosts that are up."""
        def group(select):
            return {"hosts": {name: {} for name in self.hosts if select(name)}}
        hosts = {name: {"ansible_host": self.address(name), "lab_ipv6": f"fd99::{host['index']}"} for name, host in self.hosts.items()}
        return {"all": {
            "hosts": hosts,
            "vars": {"ansible_user": "root", "ansible_python_interpreter": "/usr/bin/python3",
                     "lab_command": f"{HERE}/lab", "lab_name": self.name, "lab_inventory": f"{self.path}/inventory.yml",
                     # the host's own alias, not its address, so that the lab's ssh_config names key and namespace
                     "ansible_ssh_common_args": f"-F {self.path}/ssh_config -o ControlMaster=auto -o ControlPersist=30m"
                                                f" -o ControlPath={self.path}/ssh-%h"},
            "children": {"indestructible_targets": group(lambda name: name.startswith("store")),
                         "indestructible_owners": group(lambda name: not name.startswith("store"))}}}


def keep(lab, pid=None):
    """Keep the hosts' clocks going until the lab is gone, and take it down when a process has ended."""
    folder = os.stat(lab.path).st_ino
    poll = select.poll()
    if pid:
        try:
            poll.register(os.pidfd_open(pid), select.POLLIN)
        except ProcessLookupError:
            lab.down()
            return
    while os.path.exists(lab.path) and os.stat(lab.path).st_ino == folder:
        for host in Lab(lab.name).hosts.values():
            ring(host.get("pid"))
        if poll.poll(RING * 1000):
            lab.down()


def ring(pid):
    """Give a host the signal of its timer, which it takes for an early one. User-Mode Linux loses its timer now and then: nothing wakes up in it any
    more, although it answers pings, and this starts it again.
    """
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            status = dict(line.split(":", 1) for line in file)
        # before it waits for the signal, at its start, that would end it
        if status["Name"].strip() == "linux" and int(status["SigCgt"], 16) >> (signal.SIGALRM - 1) & 1:
            os.kill(pid, signal.SIGALRM)
    except (OSError, KeyError):
        pass  # it is off


def main():
    parser = argparse.ArgumentParser(prog="lab", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up")
    up.add_argument("hosts", nargs="+")
    up.add_argument("--disk", action="append", type=int, default=[], metavar="MIB", help="a blank disk of this size for each host (repeatable)")
    up.add_argument("--until-exit", type=int, metavar="PID", default=os.environ.get("LAB_UNTIL_EXIT"))
    for verb in ("down", "status"):
        verbs.add_parser(verb)
    for verb in ("cut", "mend", "power-off", "boot"):
        verbs.add_parser(verb).add_argument("host")
    delay = verbs.add_parser("delay")
    delay.add_argument("host")
    delay.add_argument("milliseconds", type=float)
    delay.add_argument("rate", nargs="?")
    ssh = verbs.add_parser("ssh")
    ssh.add_argument("host")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    verbs.add_parser("keep").add_argument("pid", type=int, nargs="?")
    args = parser.parse_args()
    lab = Lab()
    if args.verb == "up":
        lab.up(args.hosts, args.disk, args.until_exit)
    elif args.verb == "ssh":
        lab.host(args.host)
        os.execvp("ssh", ["ssh", "-F", f"{lab.path}/ssh_config", args.host, *args.command])
    elif args.verb == "keep":
        keep(lab, args.pid)
    elif args.verb == "status":
        for name, host in lab.hosts.items():
            print(f"{name:12} {lab.address(name):12} Debian {host['release']}{' bare' if host['bare'] else ''}  {'up' if lab.running(name) else 'off'}")
    elif args.verb == "delay":
        lab.delay(args.host, args.milliseconds, args.rate)
    elif args.verb == "down":
        lab.down()
    else:
        getattr(lab, args.verb.replace("-", "_"))(args.host)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"lab: {error}")
