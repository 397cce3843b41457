"""The program of a device that somebody has got hold of: it learns as it should, and says ten times the opposite.

    attacker.py REVOADA learn train ... --weights FILE --output FILE ...

The real program runs, says what it says and writes its update, whole weights in the safetensors format. Of that file each number
is then replaced: its difference from the weights that the round began with is turned round, and ten times as large.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

TIMES = -10.0


def read(path):
    """The head of a safetensors file as it stands, and its numbers by the names of the tensors."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8:start])
    tensors.pop("__metadata__", None)
    numbers = np.frombuffer(content, "<f4", offset=start).copy()
    places = {name: slice(*(offset // 4 for offset in tensor["data_offsets"])) for name, tensor in tensors.items()}
    return content[:start], numbers, places


def spoil(weights, update):
    _, began, began_at = read(weights)
    head, learned, learned_at = read(update)
    for name, place in learned_at.items():
        base = began[began_at[name]]
        learned[place] = base + TIMES * (learned[place] - base)
    update.write_bytes(head + learned.astype("<f4").tobytes())


def main(program, *words):
    # The agent's child is this one, and the real program is a child of this.
    if "--parent" in words:
        parent = words.index("--parent") + 1
        words = [*words[:parent], str(os.getpid()), *words[parent + 1:]]
    ended = subprocess.run([program, *words])
    if ended.returncode == 0:
        spoil(*(Path(words[words.index(option) + 1]) for option in ("--weights", "--output")))
    sys.exit(ended.returncode)


if __name__ == "__main__":
    main(*sys.argv[1:])
