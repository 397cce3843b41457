"""A fleet on one machine: a service, three devices with real pipelines on a clip, and three versions of a model.

Run by `cargo xtask demo fleet`, from the root of the repository. Version 1 finds faces. Version 2 is the same network in FP16:
a canary tries it, then everybody gets it, and the video goes on. Version 3 was built with a mistake in its manifest and finds
nothing: its canary disagrees with version 2, the gate stops it, and the fleet is as it was. The console can be looked at all
the while, and afterwards until Enter is pressed.
"""

import json
import sys

from fleet import ROOT, Failed, play

FOLDER = ROOT / "demo/fleet"
MODEL = ROOT / ".cache/models/centerface.onnx"
CLIP = ROOT / ".cache/clips/carphone_pristine.mp4"
DEVICES = ["door-1", "door-2", "door-3"]
PIPELINE = f"""[[stream]]
id = "door"
uri = {json.dumps(str(CLIP))}
repeat = "forever"

[model]
path = "deployed"
size = "192x160"
threads = 1
"""
AGENT = """heartbeat = "1s"
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


def expect_no_frame_lost(fleet):
    for device in DEVICES:
        stream = fleet.stream(device)
        if stream.get("dropped") != 0:
            raise Failed(f"{device} has lost frames: {stream}")
        print(f"{device}: {stream['frames']} frames at {stream['fps']:.0f}/s, none lost")


def build(fleet):
    """Three versions of a model, each signed by its owner."""
    fleet.new_key(fleet.key)
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
    for device in DEVICES:
        fleet.join(device, AGENT.format(model=versions[0]), PIPELINE)
    print(f"three devices come in, each with a pipeline on {CLIP.name}")
    fleet.wait_for_video(DEVICES)
    for version, path in enumerate(versions, 1):
        fleet.operator("models", "add", path, "--name", "faces", "--version", version)
    waves = ["--wave", "1", "--wave", "100%", "--soak", "3s", "--gate", "outcome", "--gate", "agreement=0.7", "--watch"]
    fleet.operator("rollouts", "start", "faces", "1", "--wave", "100%", "--soak", "1s", "--watch")
    fleet.operator("rollouts", "start", "faces", "2", *waves)
    expect_no_frame_lost(fleet)
    if fleet.operator("rollouts", "start", "faces", "3", *waves, may_fail=True).returncode == 0:
        raise Failed("version 3 finds nothing, and no gate has stopped it")
    fleet.operator("devices", "list")
    expect_no_frame_lost(fleet)
    print(f"\nversion 3 was stopped by its gate, and every device runs version 2. Look around: {fleet.operators}")
    print("Enter ends it all.", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    play(FOLDER, story)
