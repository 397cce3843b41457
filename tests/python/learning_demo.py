"""Devices that learn together: a service, fourteen devices, and pictures that never leave the device that has them.

    learning_demo.py [--seeds N] [--rounds N] [--json FILE] [--folder FOLDER]

Run by `cargo xtask demo learning`, from the root of the repository. Everything is real: the service, an agent with its pipeline
for each device, the children that learn. Four things are shown.

Digits. 1,797 handwritten digits of 8x8 pixels are split by a seed: 360 are held out, the others go to ten devices, each class by
a Dirichlet distribution with alpha 0.3, so that most devices have few classes and no two as many pictures. They learn a head with
a hidden layer by FedAvg. The same head learns from all the pictures in one place, as many passes over them and with the same
settings: what the devices reach is compared with that.

Roll-out. What they have learned becomes a version of the model, which every device tries on held-out pictures before it runs it.

Attack. The programs of two devices turn their update round and make it ten times as large (`attacker.py`). A mean follows them; a
median and a trimmed mean do not, and neither does a mean with a bound on what it takes. A median takes what most devices say, and
of a class that only a few of them have it hears little: it is less often right than an honest mean.

A new class. Four more devices run EfficientNet-Lite0, and each has a handful of pictures of two things. Coins and faces are not
among the thousand classes of ImageNet. The coins are 24 different ones, cut out of one photograph; the faces are of different
people. Of a cat and of a cup there is one photograph each, so that their pictures are views of it: cuts, mirrored, lighter and
darker. All are grey, so that colour gives nothing away.
"""

import argparse
import gzip
import json
import os
import shlex
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import onnx
from fleet import PROGRAMS, ROOT, Failed, play
from onnx import TensorProto, helper, numpy_helper

SOURCES = ROOT / ".cache/learning"
PICTURES = ROOT / ".cache/pictures"
EFFICIENTNET = ROOT / ".cache/models/efficientnet-lite0.onnx"

SEEDS, ROUNDS = 5, 30
# Of one round, on 2 cores that have other work, too.
ROUND_S = 1.2
CLASSES = [str(digit) for digit in range(10)]
DEVICES = [f"digit-{number}" for number in range(1, 11)]
ATTACKERS = DEVICES[:2]
HELD_OUT = 360
# Fewer pictures than this make no lesson.
PICTURES_MIN = 8
UNEVEN = 0.3
HIDDEN, EPOCHS, RATE = 64, 2, 0.01
# Several times what an honest update of this head differs from the weights that it began with, in any round.
NORM_MAX = 8

# What is promised of a run of all rounds.
BEHIND_MAX, ATTACKED_MAX, ROBUST_MIN, NEW_CLASS_MIN = 0.02, 0.5, 0.9, 0.9

CAMERAS = [f"camera-{number}" for number in range(1, 5)]
NEW_ROUNDS, NEW_EPOCHS, NEW_RATE = 5, 5, 0.003
LABELS = ["coin", "face", "cat", "cup"]
# Of each camera: how many pictures of which things it has.
HANDFULS = [{"coin": 4, "cat": 4}, {"coin": 3, "face": 4}, {"face": 5, "cup": 4}, {"cat": 4, "cup": 4}]
# Pixels, in the photograph of coins.
COIN_SIDE = 56
COINS = [
    *((44, 54), (100, 56), (155, 51), (216, 51), (276, 52), (334, 43)),
    *((45, 124), (103, 126), (154, 128), (206, 124), (270, 119), (337, 125)),
    *((44, 198), (102, 196), (155, 198), (213, 193), (273, 194), (347, 187)),
    *((46, 260), (114, 265), (172, 261), (244, 263), (301, 264), (356, 266)),
]
FACES, VIEWS = 40, 24

PIPELINE = """[[stream]]
id = "camera"
uri = "test://ball?width=64&height=64&fps=1&live=true"

[model]
path = "deployed"
threads = 1
"""
AGENT = """heartbeat = "2s"
{program}
[default]
pipeline = "cameras.toml"
model = "{model}"
[limits]
disk_reserve_mib = 64
[learning]
data = "pictures"
[update]
shadow_for = "2s"
{labelled}
[policy]
healthy_for = "5s"
trial_time_max = "5m"
retry_max = "5s"
"""
MANIFEST = f"""version = 1
name = "digits"
labels = {json.dumps(CLASSES)}
[input]
size = [8, 8]
mean = [76.5, 76.5, 76.5]
scale = [0.01568627450980392, 0.01568627450980392, 0.01568627450980392]
[output]
decoder = "classification"
"""


def read_digits():
    """Pictures as bytes, and what each shows."""
    with gzip.open(SOURCES / "digits.csv.gz", "rt") as lines:
        table = np.loadtxt(lines, delimiter=",")
    return (table[:, :64] * (255 / 16)).round().astype(np.uint8).reshape(-1, 8, 8), table[:, 64].astype(int)


def write(folder, label, name, picture):
    (folder / label).mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(folder / label / f"{name}.png"), picture):
        raise Failed(f"cannot write a picture to `{folder}`")


def split(classes, seed):
    """The numbers of the pictures that are held out, and those of each device."""
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(classes))
    held_out, rest = shuffled[:HELD_OUT], shuffled[HELD_OUT:]
    while True:
        parts = [[] for _ in DEVICES]
        for digit in range(len(CLASSES)):
            pictures = random.permutation(rest[classes[rest] == digit])
            shares = random.dirichlet([UNEVEN] * len(DEVICES))
            ends = (np.cumsum(shares)[:-1] * len(pictures)).astype(int)
            for part, some in zip(parts, np.split(pictures, ends), strict=True):
                part.extend(some.tolist())
        if min(len(part) for part in parts) >= PICTURES_MIN:
            return held_out.tolist(), parts


def make_model(path):
    """Sees the pixels as they are, and has a head that knows nothing."""
    constants = {
        "grey": np.full([1, 3, 1, 1], 1 / 3, np.float32),
        "weight": np.zeros([len(CLASSES), 64], np.float32),
        "bias": np.zeros(len(CLASSES), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "grey"], ["picture"]),
        helper.make_node("Flatten", ["picture"], ["pixels"]),
        helper.make_node("Gemm", ["pixels", "weight", "bias"], ["y"], transB=1),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", len(CLASSES)])
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "digits", [given], [answer], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    path.with_suffix(".toml").write_text(MANIFEST)


def coins_and_more():
    """Grey pictures of each label."""
    grey = {name: cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for name, path in [
        ("coins", SOURCES / "coins.png"), ("cat", PICTURES / "chelsea.png"), ("cup", PICTURES / "coffee.png")]}
    height, width = grey["coins"].shape
    half, coins = COIN_SIDE // 2, []
    for x, y in COINS:
        left, top = min(max(x - half, 0), width - COIN_SIDE), min(max(y - half, 0), height - COIN_SIDE)
        coins.append(grey["coins"][top : top + COIN_SIDE, left : left + COIN_SIDE])
    # The first half of the set is faces, the other half is what was behind them.
    faces = [(face * 255).astype(np.uint8) for face in np.load(SOURCES / "faces.npy")[:FACES]]
    random = np.random.default_rng(0)
    return {"coin": coins, "face": faces} | {label: views(grey[label], random) for label in ("cat", "cup")}


def views(photograph, random):
    """Cuts of one photograph, some mirrored, some lighter or darker."""
    height, width = photograph.shape
    found = []
    for _ in range(VIEWS):
        side = int(min(height, width) * random.uniform(0.6, 1.0))
        top, left = random.integers(height - side + 1), random.integers(width - side + 1)
        view = photograph[top : top + side, left : left + side] * random.uniform(0.6, 1.3)
        view = np.clip(view, 0, 255).astype(np.uint8)
        found.append(view[:, ::-1] if random.random() < 0.5 else view)
    return found


class Show:
    """What is shown, and what has come of it."""

    def __init__(self, fleet, seeds, rounds):
        self.fleet, self.folder, self.seeds, self.rounds = fleet, fleet.folder, seeds, rounds
        self.pictures, self.classes = read_digits()
        self.model = self.folder / "digits.onnx"
        self.labelled = self.folder / "labelled"
        self.report, self.missed = {}, []

    def promise(self, holds, sentence):
        """Of a run of fewer rounds nothing is promised: its numbers speak for themselves."""
        if not holds and self.rounds >= ROUNDS:
            self.missed.append(sentence)

    def begin(self):
        fleet = self.fleet
        for number, (picture, digit) in enumerate(zip(self.pictures, self.classes, strict=True)):
            write(self.folder / "digits", CLASSES[digit], number, picture)
        make_model(self.model)
        fleet.new_key(fleet.key)
        learning = self.folder / "learning.pem"
        fleet.new_key(learning)
        bundle = self.build(self.model, "digits")
        self.deal(1)
        self.put(self.labelled, split(self.classes, 1)[0])
        fleet.serve("--learning-key", learning)
        labelled = f"labelled = {json.dumps(str(self.labelled))}"
        for device in DEVICES:
            program = self.tampered(device) if device in ATTACKERS else ""
            fleet.join(device, AGENT.format(model=bundle, labelled=labelled, program=program), PIPELINE)
        print(f"{len(DEVICES)} devices come in, each with a pipeline", flush=True)
        fleet.wait_for_video(DEVICES)
        fleet.operator("models", "add", bundle, "--name", "digits", "--version", "1")
        waves = ["--wave", "100%", "--soak", "1s", "--watch"]
        fleet.operator("rollouts", "start", "digits", "1", "--filter", f"id in ({', '.join(DEVICES)})", *waves)

    def build(self, model, name):
        bundle = self.folder / f"{name}.bundle"
        how = ["--precision", "fp32", "--target", "none", "--key", self.fleet.key, "--output", bundle]
        self.fleet.run("revoada", "--log", "error", "build", model, *how, show=False)
        return bundle

    def tampered(self, device):
        """A program that is the real one, until there is a file beside it that says otherwise."""
        home = self.folder / device
        real, flag = shlex.quote(str(PROGRAMS / "revoada")), shlex.quote(str(home / "attacks"))
        attacker = f"{shlex.quote(sys.executable)} -B {shlex.quote(str(ROOT / 'tests/python/attacker.py'))}"
        script = home / "revoada"
        script.write_text(
            f'#!/bin/sh\nif [ "$1 $2" = "learn train" ] && [ -e {flag} ]; then exec {attacker} {real} "$@"; fi\nexec {real} "$@"\n'
        )
        script.chmod(0o755)
        return f"program = {json.dumps(str(script))}"

    def put(self, folder, numbers):
        """Makes these the folder's pictures, each in the folder of its label."""
        for label in CLASSES:
            shutil.rmtree(folder / label, ignore_errors=True)
        for number in numbers:
            label = CLASSES[self.classes[number]]
            (folder / label).mkdir(parents=True, exist_ok=True)
            os.link(self.folder / "digits" / label / f"{number}.png", folder / label / f"{number}.png")

    def deal(self, seed):
        """Gives each device its pictures; where those that are held out lie, and all the others in one place."""
        held_out, parts = split(self.classes, seed)
        for device, part in zip(DEVICES, parts, strict=True):
            self.put(self.folder / device / "pictures", part)
        aside, pooled = self.folder / "held-out", self.folder / "pooled"
        self.put(aside, held_out)
        self.put(pooled, sum(parts, []))
        sizes = sorted(len(part) for part in parts)
        print(f"\nseed {seed}: {len(held_out)} pictures are held out, a device has {sizes[0]} to {sizes[-1]}", flush=True)
        return aside, pooled

    def learn(self, title, *options, rounds=None, settings=()):
        """A run of rounds on the devices that are named: its number, and the file of its last weights."""
        words = ["runs", "start", "--title", title, "--rounds", rounds or self.rounds, "--timeout", "5m", *options]
        for setting in [*settings, "held_out=0"]:
            words += ["--config", setting]
        said = self.fleet.operator(*words, "--watch").stdout
        run = int(said.split("run ", 1)[1].split()[0])
        weights = self.folder / f"run-{run}.safetensors"
        self.fleet.operator("runs", "weights", run, "--output", weights, show=False)
        return run, weights

    def learn_digits(self, title, *options, least=len(DEVICES)):
        which = ["--model", "digits", "--model-version", "1", "--filter", f"id in ({', '.join(DEVICES)})", "--min", least, "--quorum", least]
        settings = [f"hidden={HIDDEN}", f"epochs={EPOCHS}", f"rate={RATE}", "balanced=true"]
        return self.learn(title, *which, *options, settings=settings)

    def evaluate(self, model, weights, data, *options):
        told = self.fleet.run("revoada", "--log", "error", "learn", "evaluate", model, "--data", data, "--weights", weights,
                              *options, "--json", show=False)
        return json.loads(told.stdout)

    def accuracy(self, weights, held_out):
        return self.evaluate(self.model, weights, held_out)["accuracy"]

    def digits(self):
        found = []
        for seed in range(1, self.seeds + 1):
            held_out, pooled = self.deal(seed)
            run, weights = self.learn_digits(f"seed {seed}")
            together = self.accuracy(weights, held_out)
            output = self.folder / f"pooled-{seed}.safetensors"
            how = ["--epochs", EPOCHS * self.rounds, "--rate", RATE, "--hidden", HIDDEN,
                   "--class-weights", "balanced", "--held-out", "0", "--seed", seed]
            self.fleet.run("revoada", "--log", "error", "learn", "train", self.model, "--data", pooled, *how,
                           "--output", output, show=False)
            alone = self.accuracy(output, held_out)
            print(f"seed {seed}: {together:.1%} together, {alone:.1%} in one place", flush=True)
            found.append({"seed": seed, "run": run, "federated": together, "pooled": alone})
        self.report["digits"] = found
        together, alone = (float(np.mean([seed[how] for seed in found])) for how in ("federated", "pooled"))
        self.report["mean"] = {"federated": together, "pooled": alone}
        self.promise(together >= alone - BEHIND_MAX, f"the devices reach {together:.1%}, and one place {alone:.1%}")

    def roll_out(self):
        fleet, run = self.fleet, self.report["digits"][0]["run"]
        digest = fleet.ask("runs", "release", str(run), "--version", "2")["digest"]
        gates = ["--gate", "outcome", "--gate", "accuracy=0.8", "--over", "1s"]
        waves = ["--wave", "2", "--wave", "100%", "--soak", "1s"]
        where = ["--filter", f"id in ({', '.join(DEVICES)})"]
        fleet.operator("rollouts", "start", "digits", "2", *where, *waves, *gates, "--watch")
        devices = [device for device in fleet.devices() if device["device"] in DEVICES]
        running = sum(digest in (device["running"] or {}).values() for device in devices)
        tried = [device["figures"]["accuracy"] for device in devices]
        # One of each, named by the program and the bundle that a device runs.
        hexadecimal = digest.removeprefix("sha256:")
        [slot] = (self.folder / DEVICES[-1] / "state/model").glob(f"?/{hexadecimal}")
        pictures = [min((self.labelled / label).iterdir()) for label in CLASSES]
        named = self.classify(slot, pictures, "--trust", fleet.trust)
        right = sum(name == label for name, label in zip(named, CLASSES, strict=True))
        print(f"{running} devices run it; {DEVICES[-1]} takes a picture of each digit for {' '.join(named)}", flush=True)
        self.report["rolled_out"] = {"devices": running, "accuracy_min": min(tried), "accuracy_max": max(tried), "right": right}
        self.promise(running == len(DEVICES), f"only {running} devices run what they have learned")

    def classify(self, model, pictures, *options):
        """What a model takes pictures for."""
        words = ["--log", "error", "classify", "--json", "--model", model, *options, *pictures]
        told = self.fleet.run("revoada", *words, show=False).stdout.splitlines()
        return [json.loads(line)["classifications"][0]["label"] for line in told]

    def attack(self):
        flags = [self.folder / device / "attacks" for device in ATTACKERS]
        for flag in flags:
            flag.touch()
        found = {}

        def attacked(name, *options):
            _, weights = self.learn_digits(f"attacked {name}, seed {seed}", "--strategy", *options)
            found.setdefault(name, []).append(self.accuracy(weights, held_out))
            print(f"{name}, attacked: {found[name][-1]:.1%}", flush=True)

        # The first last, where more is tried.
        for seed in range(self.seeds, 0, -1):
            held_out, _ = self.deal(seed)
            attacked("FedAvg", "FedAvg")
            attacked("FedMedian", "FedMedian")
        attacked("FedTrimmedAvg", "FedTrimmedAvg", "--option", "beta=0.2")
        # Who is refused too often is not invited any more, so that eight have to be enough.
        bound = ["--norm-max", NORM_MAX]
        run, weights = self.learn_digits("attacked FedAvg, bounded", *bound, least=len(DEVICES) - len(ATTACKERS))
        found["FedAvg, bounded"] = [self.accuracy(weights, held_out)]
        first = self.fleet.ask("runs", "participants", str(run), "1")
        refused = sorted(member["participant"] for member in first if member["status"] == "set-aside")
        honest = max(member["norm"] for member in first if member["norm"] is not None)
        print(f"FedAvg with a bound of {NORM_MAX}: refuses {' and '.join(refused) or 'nobody'}, ends at "
              f"{found['FedAvg, bounded'][0]:.1%}; the largest update that counted had {honest:.2f}", flush=True)
        for flag in flags:
            flag.unlink()
        mean = {name: float(np.mean(accuracies)) for name, accuracies in found.items()}
        self.report["attack"] = {"accuracy": mean, "of_each": found, "refused": refused}
        self.promise(mean["FedAvg"] < ATTACKED_MAX, f"FedAvg reaches {mean['FedAvg']:.1%} though it is attacked")
        for name in ("FedMedian", "FedTrimmedAvg", "FedAvg, bounded"):
            self.promise(mean[name] > ROBUST_MIN, f"{name} reaches no more than {mean[name]:.1%} where it is attacked")
        self.promise(refused == sorted(ATTACKERS), f"of the attackers, those refused are {refused}")

    def new_class(self):
        fleet, pictures = self.fleet, coins_and_more()
        used, held_out = Counter(), self.folder / "new-held-out"
        for camera, handful in zip(CAMERAS, HANDFULS, strict=True):
            for label, count in handful.items():
                for number in range(used[label], used[label] + count):
                    write(self.folder / camera / "pictures", label, number, pictures[label][number])
                used[label] += count
        for label in LABELS:
            for number in range(used[label], len(pictures[label])):
                write(held_out, label, number, pictures[label][number])
        bundle = self.build(EFFICIENTNET, "photographs")
        for camera in CAMERAS:
            fleet.join(camera, AGENT.format(model=bundle, labelled="", program=""), PIPELINE)
        print(f"\n{len(CAMERAS)} devices with EfficientNet-Lite0 come in", flush=True)
        fleet.wait_for_video(CAMERAS)
        fleet.operator("models", "add", bundle, "--name", "photographs", "--version", "1")
        where = ["--filter", f"id in ({', '.join(CAMERAS)})"]
        fleet.operator("rollouts", "start", "photographs", "1", *where, "--wave", "100%", "--soak", "1s", "--watch")
        parent = {label: Counter(self.classify(EFFICIENTNET, sorted((held_out / label).iterdir()))) for label in LABELS}
        names = [word for label in LABELS for word in ("--label", label)]
        which = ["--model", "photographs", "--model-version", "1", *where, *names, "--min", len(CAMERAS)]
        settings = [f"epochs={NEW_EPOCHS}", f"rate={NEW_RATE}"]
        _, weights = self.learn("a new class", *which, rounds=NEW_ROUNDS, settings=settings)
        (self.folder / "labels.txt").write_text("\n".join(LABELS))
        judged = self.evaluate(EFFICIENTNET, weights, held_out, "--labels", self.folder / "labels.txt")
        known = (ROOT / ".cache/models/imagenet.txt").read_text().splitlines()
        self.report["new_class"] = [
            {
                "label": of["label"],
                "is_new": of["label"] in ("coin", "face") and of["label"] not in known,
                "learned_from": used[of["label"]],
                "held_out": of["examples"],
                "recognised": of["right"] / of["examples"],
                "parent_says": [name for name, _ in parent[of["label"]].most_common(3)],
            }
            for of in judged["classes"]
        ]
        for of in self.report["new_class"]:
            sentence = f"of the held-out pictures of `{of['label']}` {of['recognised']:.0%} are recognised"
            self.promise(of["recognised"] >= NEW_CLASS_MIN, sentence)

    def tell(self):
        """One table of it all."""
        print(f"\nten devices, {self.rounds} rounds     together   in one place   behind, points")
        rows = [(f"seed {of['seed']}", of) for of in self.report["digits"]] + [("mean", self.report["mean"])]
        for name, of in rows:
            behind = (of["pooled"] - of["federated"]) * 100
            print(f"{name:25} {of['federated']:9.1%} {of['pooled']:14.1%} {behind:16.1f}")
        of = self.report["rolled_out"]
        print(f"\nrolled out to {of['devices']} devices, which found {of['accuracy_min']:.1%} to {of['accuracy_max']:.1%}")
        print("\ntwo of ten attack          accuracy   seeds")
        attack = self.report["attack"]
        for name, accuracy in attack["accuracy"].items():
            print(f"{name:25} {accuracy:9.1%} {len(attack['of_each'][name]):7}")
        print("\na new class   new   learned from   recognised   of   the parent takes it for")
        for of in self.report["new_class"]:
            new = "yes" if of["is_new"] else "no"
            print(f"{of['label']:13} {new:3} {of['learned_from']:14} {of['recognised']:12.1%} {of['held_out']:4}   "
                  f"{', '.join(of['parent_says'])}")
        print("the pictures of cat and cup are views of one photograph each", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="cargo xtask demo learning", description="Shows devices that learn together.")
    parser.add_argument("--seeds", type=int, default=SEEDS, choices=range(1, 101), metavar="N", help="splits of the digits")
    parser.add_argument("--rounds", type=int, default=ROUNDS, choices=range(1, 1001), metavar="N",
                        help=f"of each run on digits; of fewer than {ROUNDS} nothing is promised")
    parser.add_argument("--json", metavar="FILE", help="where to write the numbers")
    parser.add_argument("--folder", type=Path, help="where everything is to lie; it must not exist. `demo/learning` otherwise")
    arguments = parser.parse_args()
    if arguments.folder and arguments.folder.exists():
        parser.error(f"`{arguments.folder}` exists already: name a folder that does not")

    def story(fleet):
        began = time.monotonic()
        show = Show(fleet, arguments.seeds, arguments.rounds)
        rounds = (3 * arguments.seeds + 2) * arguments.rounds
        print(f"{rounds} rounds on ten devices: about {2 + rounds * ROUND_S / 60:.0f} minutes on 2 cores", flush=True)
        for part in (show.begin, show.digits, show.roll_out, show.attack, show.new_class, show.tell):
            part()
        print(f"that took {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
        if arguments.json:
            with open(arguments.json, "w") as file:
                json.dump(show.report, file)
        if show.missed:
            raise Failed(show.missed[0])

    play(arguments.folder or ROOT / "demo/learning", story)


if __name__ == "__main__":
    main()
