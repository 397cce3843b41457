"""A fleet on one machine, for demonstrations: a service and its devices, each a process of its own.

A demonstration gives [`play`] a folder of its own and a story, which drives the fleet and raises `Failed` where something that
it promises does not happen.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path.cwd()
PROGRAMS = Path(os.environ.get("REVOADA_PROGRAMS", "target/release")).resolve()
WAIT_S = 120


class Failed(Exception):
    """One sentence about what did not happen."""


class Fleet:
    """Everything lies in `folder`, which is made anew."""

    def __init__(self, folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder
        self.key, self.trust = folder / "owner.pem", folder / "owner.pub"
        self.running, self.server, self.operators = [], None, None
        environment = {key: value for key, value in os.environ.items() if not key.startswith("REVOADA_")}
        self.environment = environment | {"REVOADA_ONNXRUNTIME": str(ROOT / ".cache/lib/libonnxruntime.so")}

    def run(self, *words, show=True, may_fail=False, home=None):
        """Runs one of our programs to its end. What it says on standard output is shown as it comes, and returned."""
        program, *rest = (str(word) for word in words)
        if show:
            print(f"\n$ {program} {' '.join(rest).replace(str(ROOT) + '/', '')}", flush=True)
        process = subprocess.Popen(
            [PROGRAMS / program, *rest], env=self.environment | {"HOME": str(home or self.folder)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )
        said = []
        for line in process.stdout:
            said.append(line)
            if show:
                print(line, end="", flush=True)
        told = subprocess.CompletedProcess(words, process.wait(), "".join(said))
        if told.returncode != 0 and not may_fail:
            raise Failed(f"`{program} {rest[0]}` failed with {told.returncode}")
        return told

    def start(self, name, *words, home, stdout):
        log = open(self.folder / f"{name}.log", "w")
        process = subprocess.Popen(
            [PROGRAMS / words[0], *words[1:]], env=self.environment | {"HOME": str(home)},
            stdin=subprocess.DEVNULL, stdout=stdout or log, stderr=log, text=True,
        )
        self.running.append(process)
        return process

    def new_key(self, path):
        """Makes a key of an owner, whose signatures every device trusts from then on."""
        public = self.run("revoada", "key", path, "--new", show=False)
        with open(self.trust, "a") as trusted:
            trusted.write(public.stdout)

    def operator(self, *words, **how):
        access = ["--server", self.operators, "--token-file", self.folder / "service/admin.token"]
        return self.run("revoada-fleet", *words, *access, **how)

    def ask(self, *words):
        """What the service says in JSON."""
        return json.loads(self.operator(*words, "--json", show=False).stdout)

    def serve(self, *more):
        words = ["revoada-fleet", "serve", "--folder", self.folder / "service", "--name", "localhost", "--trust", self.trust]
        words += ["--mqtt", "127.0.0.1:0", "--devices", "127.0.0.1:0", "--operators", "127.0.0.1:0", *more]
        service = self.start("service", *words, home=self.folder, stdout=subprocess.PIPE)
        lines = [service.stdout.readline() for _ in range(2)]
        if not all(lines):
            raise Failed(f"the service does not start: {(self.folder / 'service.log').read_text().strip()}")
        self.operators = lines[0].split(": ", 1)[1].strip()
        self.server = f"localhost:{lines[1].split(',')[0].rsplit(':', 1)[1]}"
        password = (self.folder / "service/admin.password").read_text().strip()
        print(f"\nthe console: {self.operators}   user: admin   password: {password}", flush=True)

    def join(self, device, agent, pipeline):
        """A device with these configurations of its agent and of its pipeline, `cameras.toml`, enrols and runs."""
        home = self.folder / device
        home.mkdir(exist_ok=True)
        whose = f'folder = "state"\nserver = "{self.server}"\ntrust = "{self.trust}"\n'
        (home / "agent.toml").write_text(whose + agent)
        (home / "cameras.toml").write_text(pipeline)
        token = self.operator("enrolment", "add", device, show=False).stdout.strip()
        config = ["--config", home / "agent.toml"]
        self.run("revoada", "agent", "enrol", "--device", device, "--token", token, *config, show=False, home=home)
        self.start(device, "revoada", "agent", "run", *config, home=home, stdout=None)

    def devices(self):
        return self.ask("devices", "list")["devices"]

    def wait_for_video(self, devices):
        deadline = time.monotonic() + WAIT_S
        while True:
            frames = {device: self.stream(device).get("frames", 0) for device in devices}
            if all(frames.values()):
                return
            if time.monotonic() > deadline:
                raise Failed(f"not every device shows video: {frames}; the logs are in `{self.folder}`")
            time.sleep(0.5)

    def stream(self, device):
        told = self.operator("devices", "show", device, "--json", show=False, may_fail=True)
        streams = json.loads(told.stdout or "{}").get("streams", [])
        return streams[0] if streams else {}

    def end(self):
        # Pipelines outlive their agents, so that video goes on while an agent is updated; not the demonstration.
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            process.wait()
        for running in self.folder.glob("*/state/running.json"):
            pid = json.loads(running.read_text())["pid"]
            if Path(f"/proc/{pid}/cmdline").exists() and str(self.folder) in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGTERM)


def play(folder, story):
    """Plays a story on a fleet; ends with one sentence and 1 where it fails."""
    fleet = Fleet(folder)
    try:
        story(fleet)
    except Failed as failed:
        sys.exit(f"error: {failed}")
    except KeyboardInterrupt:
        print()
    finally:
        fleet.end()
