"""Averaging of distinct updates that lie in memory, by Flower and by ours, in one run: `flower_fold.py PROGRAM [UPDATES] [NUMBERS]`.

PROGRAM is `target/release/examples/fold` of revoada-federated; flwr (1.40 or later) and NumPy are in the environment that runs
this. Both begin with arrays as they are sent, and the time is that of decoding and averaging, interleaved, as medians of five.
Prints one JSON object: seconds of both, their ratio, and for ours the share of the machine's read bandwidth and the memory above
the inputs.
"""

import json
import statistics
import subprocess
import sys
import time

import numpy
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

TENSORS = 10
REPEATS = 5


def main():
    program = sys.argv[1]
    updates, numbers = (int(text) for text in (sys.argv[2:4] + ["1000", "1000000"][len(sys.argv) - 2 :]))
    random = numpy.random.default_rng(0)
    base = [random.standard_normal(numbers // TENSORS, dtype=numpy.float32) for _ in range(TENSORS)]
    records = [
        RecordDict(
            {
                "arrays": ArrayRecord([array + numpy.float32(index) for array in base]),
                "metrics": MetricRecord({"num-examples": 10 + index}),
            }
        )
        for index in range(updates)
    ]
    ours, flower = [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        aggregate_arrayrecords(records, "num-examples")
        flower.append(time.perf_counter() - began)
        said = subprocess.run([program, str(updates), str(numbers), "1"], check=True, capture_output=True, text=True)
        ours.append(json.loads(said.stdout))
    seconds = statistics.median(run["seconds"] for run in ours)
    print(
        json.dumps(
            {
                "updates": updates,
                "numbers": numbers,
                "flower_seconds": round(statistics.median(flower), 4),
                "seconds": seconds,
                "ratio": round(statistics.median(flower) / seconds, 2),
                "of_read": statistics.median(run["of_read"] for run in ours),
                "mib_above_inputs": max(run["mib_above_inputs"] for run in ours),
            }
        )
    )


main()
