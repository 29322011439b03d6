# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo and the benchmark share: steps with progress, playbooks of the collection run on a lab, and a log of all of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time

from lab import HERE, Lab, LabError

ROOT = os.path.dirname(os.path.dirname(HERE))
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"
_STYLES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}


def style(text, *names):
    """Text in a style, where the output is a terminal that shows it."""
    return f"\033[{';'.join(str(_STYLES[name]) for name in names)}m{text}\033[0m" if COLOUR and names else text


class Failed(Exception):
    """A step failed; the message is for the user, the log has the rest."""


class Play:
    """A lab of one name and what is played on it. Everything the commands say goes to a log below .build."""

    def __init__(self, name):
        os.environ["LAB_NAME"] = os.environ.get("LAB_NAME") or name
        self.lab = Lab()
        os.makedirs(f"{ROOT}/.build", exist_ok=True)
        self.log_path = f"{ROOT}/.build/{name}.log"
        self.log = open(self.log_path, "w", encoding="utf-8")
        self.inventories = [self.lab.path + "/inventory.yml"]
        self.env = dict(os.environ, ANSIBLE_HOST_KEY_CHECKING="0", ANSIBLE_PIPELINING="1", ANSIBLE_DISPLAY_SKIPPED_HOSTS="0",
                        ANSIBLE_NOCOWS="1", ANSIBLE_FORKS="10", ANSIBLE_NOCOLOR="1", ANSIBLE_FORCE_COLOR="0",
                        ANSIBLE_RETRY_FILES_ENABLED="0", ANSIBLE_CALLBACK_RESULT_FORMAT="json", PYTHONUNBUFFERED="1")
        self.env.pop("ANSIBLE_STDOUT_CALLBACK", None)
        self._step = ""

    def relative_log(self):
        """The log's path as the user would write it from the top of the checkout."""
        return os.path.relpath(self.log_path, ROOT)

    # progress

    @contextlib.contextmanager
    def step(self, text):
        """Show a step that begins and how long it took; yields a list to which a word about the result may be appended."""
        self._step, notes, began = f"  {text:<62}", [], time.monotonic()
        print(f"\n== {text}", file=self.log, flush=True)
        print(self._step, end="", flush=True)
        try:
            yield notes
        except BaseException:
            print(f"{self._clear()}{style('failed', 'red')}")
            raise
        print(f"{self._clear()}{style(f'{time.monotonic() - began:5.1f} s', 'dim')}  {style(', '.join(notes), 'green')}".rstrip())

    def _clear(self):
        return f"\r\033[K{self._step}" if COLOUR else ""

    def _show(self, text):
        """The newest line of a command, on a terminal only, in place of the one before."""
        if COLOUR and text:
            print(f"{self._clear()}{style(text[:36], 'dim')}", end="", flush=True)

    # commands

    def run(self, *argv, show=None, env=None):
        """Run a command on this machine; its output goes to the log and is returned. show picks from a line what is shown meanwhile."""
        print(f"$ {' '.join(argv)}", file=self.log, flush=True)
        lines = []
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=ROOT,
                              env=env or self.env) as process:
            for line in process.stdout:
                lines.append(line)
                self.log.write(line)
                self.log.flush()
                if show:
                    self._show(show(line.rstrip()))
        self.log.flush()
        if process.returncode:
            raise Failed(f"{os.path.basename(argv[0])} {argv[1] if len(argv) > 1 else ''} ended with status {process.returncode}. Its last lines, from "
                         f"{self.relative_log()}:\n\n" + "".join(lines[-25:]))
        return "".join(lines)

    def up(self, hosts, disks):
        """Boot the hosts (a list of names) with disks (MiB) anew; builds the image when there is none."""
        self.run(f"{HERE}/lab", "up", *hosts, *(word for size in disks for word in ("--disk", str(size))),
                 show=lambda line: line.partition(": ")[2] if line.startswith("lab image") else None)
        self.lab = Lab(self.lab.name, self.lab.release)

    def ansible(self, program, *argv):
        """Run ansible or ansible-playbook on the lab; its output as text."""
        inventories = [word for path in self.inventories for word in ("--inventory", path)]

        def task(line):
            return line[line.index("|") + 2:].rstrip("* ]") if line.startswith("TASK") and "|" in line else None
        return self.run(program, *inventories, *argv, show=task)

    def playbook(self, name, *argv):
        """Run a playbook of the collection; (its output, how many changes it made on all hosts)."""
        text = self.ansible("ansible-playbook", f"indestructible.block.{name}", *argv)
        return text, sum(int(number) for number in re.findall(r"\bchanged=(\d+)", text))

    def module(self, host, name, /, **options):
        """The result (dict) of a module of the collection; Failed, with what it said, when it fails."""
        given = ["--args", json.dumps(options)] if options else []  # an empty object would be taken for words
        text = self.ansible("ansible", host, "--module-name", f"indestructible.block.{name}", *given)
        return json.loads(text[text.index("=> {") + 3:])

    def ssh(self, host, command, stdin=None):
        """Run a shell command on a host, text as its input; what it printed."""
        print(f"$ ssh {host} {command}", file=self.log, flush=True)
        done = subprocess.run(["ssh", "-F", f"{self.lab.path}/ssh_config", host, command], input=stdin or "", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=300, check=False)
        self.log.write(done.stdout + done.stderr)
        if done.returncode:
            raise Failed(f"on {host}: {(done.stderr or done.stdout).strip() or done.returncode}")
        return done.stdout


def human_size(size):
    """Bytes as a person reads them."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}" if size < 1000 * unit else f"{size // unit} {name}"
    return f"{size} B"


def main(play):
    """Run play() as a program: problems become a message and an exit status."""
    try:
        play()
    except (Failed, LabError, subprocess.TimeoutExpired) as problem:
        print(f"\n{style('This did not work.', 'red', 'bold')} {problem}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
