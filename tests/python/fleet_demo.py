"""A fleet on one machine: a service, three devices with real pipelines on a clip, and three versions of a model.

Run by `cargo xtask demo fleet`, from the root of the repository. Version 1 finds faces. Version 2 is the same network in FP16:
a canary tries it, then everybody gets it, and the video goes on. Version 3 was built with a mistake in its manifest and finds
nothing: its canary disagrees with version 2, the gate stops it, and the fleet is as it was. The console can be looked at all
the while, and afterwards until Enter is pressed.
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
FOLDER = ROOT / "demo/fleet"
PROGRAMS = Path(os.environ.get("REVOADA_PROGRAMS", "target/release")).resolve()
MODEL = ROOT / ".cache/models/centerface.onnx"
CLIP = ROOT / ".cache/clips/carphone_pristine.mp4"
DEVICES = ["door-1", "door-2", "door-3"]
WAIT_S = 120
PIPELINE = f"""[[stream]]
id = "door"
uri = {json.dumps(str(CLIP))}
repeat = "forever"

[model]
path = "deployed"
size = "192x160"
threads = 1
"""
AGENT = """folder = "state"
server = "{server}"
trust = "{trust}"
heartbeat = "1s"
[default]
pipeline = "cameras.toml"
model = "{model}"
[limits]
disk_reserve_mib = 64
[update]
shadow_for = "5s"
[policy]
healthy_for = "10s"
trial_time_max = "3m"
retry_max = "5s"
"""


class Failed(Exception):
    """One sentence about what did not happen."""


class Fleet:
    def __init__(self):
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        self.key, self.trust = FOLDER / "owner.pem", FOLDER / "owner.pub"
        self.running, self.server, self.operators = [], None, None
        environment = {key: value for key, value in os.environ.items() if not key.startswith("REVOADA_")}
        self.environment = environment | {"REVOADA_ONNXRUNTIME": str(ROOT / ".cache/lib/libonnxruntime.so")}

    def run(self, *words, show=True, may_fail=False, home=FOLDER):
        program, *rest = (str(word) for word in words)
        if show:
            print(f"\n$ {program} {' '.join(rest).replace(str(ROOT) + '/', '')}", flush=True)
        told = subprocess.run(
            [PROGRAMS / program, *rest], env=self.environment | {"HOME": str(home)}, stdout=subprocess.PIPE, text=True
        )
        if show:
            print(told.stdout, end="", flush=True)
        if told.returncode != 0 and not may_fail:
            raise Failed(f"`{program} {rest[0]}` failed with {told.returncode}")
        return told

    def start(self, name, *words, home, stdout):
        log = open(FOLDER / f"{name}.log", "w")
        process = subprocess.Popen(
            [PROGRAMS / words[0], *words[1:]], env=self.environment | {"HOME": str(home)},
            stdin=subprocess.DEVNULL, stdout=stdout or log, stderr=log, text=True,
        )
        self.running.append(process)
        return process

    def operator(self, *words, **how):
        access = ["--server", self.operators, "--token-file", FOLDER / "service/admin.token"]
        return self.run("revoada-fleet", *words, *access, **how)

    def serve(self):
        words = ["revoada-fleet", "serve", "--folder", FOLDER / "service", "--name", "localhost", "--trust", self.trust]
        words += ["--mqtt", "127.0.0.1:0", "--devices", "127.0.0.1:0", "--operators", "127.0.0.1:0"]
        service = self.start("service", *words, home=FOLDER, stdout=subprocess.PIPE)
        lines = [service.stdout.readline() for _ in range(2)]
        if not all(lines):
            raise Failed(f"the service does not start: {(FOLDER / 'service.log').read_text().strip()}")
        self.operators = lines[0].split(": ", 1)[1].strip()
        self.server = f"localhost:{lines[1].split(',')[0].rsplit(':', 1)[1]}"

    def join(self, device, model):
        home = FOLDER / device
        home.mkdir()
        (home / "agent.toml").write_text(AGENT.format(server=self.server, trust=self.trust, model=model))
        (home / "cameras.toml").write_text(PIPELINE)
        token = self.operator("enrolment", "add", device, show=False).stdout.strip()
        config = ["--config", home / "agent.toml"]
        self.run("revoada", "agent", "enrol", "--device", device, "--token", token, *config, show=False, home=home)
        self.start(device, "revoada", "agent", "run", *config, home=home, stdout=None)

    def devices(self):
        return json.loads(self.operator("devices", "list", "--json", show=False).stdout)["devices"]

    def wait_for_video(self):
        deadline = time.monotonic() + WAIT_S
        while True:
            frames = {device: self.stream(device).get("frames", 0) for device in DEVICES}
            if all(frames.values()):
                return
            if time.monotonic() > deadline:
                raise Failed(f"not every device shows video: {frames}; the logs are in `demo/fleet`")
            time.sleep(0.5)

    def stream(self, device):
        told = self.operator("devices", "show", device, "--json", show=False, may_fail=True)
        streams = json.loads(told.stdout or "{}").get("streams", [])
        return streams[0] if streams else {}

    def expect_no_frame_lost(self):
        for device in DEVICES:
            stream = self.stream(device)
            if stream.get("dropped") != 0:
                raise Failed(f"{device} has lost frames: {stream}")
            print(f"{device}: {stream['frames']} frames at {stream['fps']:.0f}/s, none lost")

    def end(self):
        # Pipelines outlive their agents, so that video goes on while an agent is updated; not the demonstration.
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            process.wait()
        for running in FOLDER.glob("*/state/running.json"):
            pid = json.loads(running.read_text())["pid"]
            if Path(f"/proc/{pid}/cmdline").exists() and str(FOLDER) in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGTERM)


def build(fleet):
    """Three versions of a model, each signed by its owner."""
    public = fleet.run("revoada", "key", fleet.key, "--new")
    fleet.trust.write_text(public.stdout)
    wrong = FOLDER / "centerface-wrong.toml"
    wrong.write_text((MODEL.parent / "centerface.toml").read_text().replace("scale = [1.0, 1.0, 1.0]", "scale = [0.0039, 0.0039, 0.0039]"))
    versions = []
    for version, options in [("1", ["--precision", "fp32"]), ("2", ["--precision", "fp16"]),
                             ("3", ["--precision", "fp32", "--manifest", wrong])]:
        path = FOLDER / f"faces-{version}.bundle"
        fleet.run("revoada", "--log", "error", "build", MODEL, *options, "--target", "none", "--key", fleet.key, "--output", path)
        versions.append(path)
    return versions


def story(fleet):
    versions = build(fleet)
    fleet.serve()
    print(f"\nthe console: {fleet.operators}   user: admin   password: {(FOLDER / 'service/admin.password').read_text().strip()}")
    for device in DEVICES:
        fleet.join(device, versions[0])
    print(f"three devices come in, each with a pipeline on {CLIP.name}")
    fleet.wait_for_video()
    for version, path in enumerate(versions, 1):
        fleet.operator("models", "add", path, "--name", "faces", "--version", version)
    waves = ["--wave", "1", "--wave", "100%", "--soak", "3s", "--gate", "outcome", "--gate", "agreement=0.7", "--watch"]
    fleet.operator("rollouts", "start", "faces", "1", "--wave", "100%", "--soak", "1s", "--watch")
    fleet.operator("rollouts", "start", "faces", "2", *waves)
    fleet.expect_no_frame_lost()
    if fleet.operator("rollouts", "start", "faces", "3", *waves, may_fail=True).returncode == 0:
        raise Failed("version 3 finds nothing, and no gate has stopped it")
    fleet.operator("devices", "list")
    fleet.expect_no_frame_lost()
    print(f"\nversion 3 was stopped by its gate, and every device runs version 2. Look around: {fleet.operators}")
    print("Enter ends it all.", flush=True)
    sys.stdin.readline()


def main():
    fleet = Fleet()
    try:
        story(fleet)
    except Failed as failed:
        sys.exit(f"error: {failed}")
    except KeyboardInterrupt:
        print()
    finally:
        fleet.end()


if __name__ == "__main__":
    main()
