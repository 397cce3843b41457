"""Learning together, beside Flower: `learning.py [fold] [join] [nodes] [devices]`.

Run by `cargo xtask bench learning`, from the root of the repository, in the environment where flwr and NumPy are. Both sides take
turns on one machine, over loopback, driven by the same clients. Prints one JSON object for each measurement, then a table.

- fold: averaging of distinct updates that lie in memory as they are sent, decoding included.
- join: rounds of clients that only echo, against our door for `start_client` and against Flower's own server (FedAvg without
  evaluation). A round lasts from the first client that is asked in it to the first that is asked in the next, or sent away.
- nodes: heartbeats and whole messages of SuperNodes, at our door and at a SuperLink.
- devices: one round of virtual devices of our own, each of which fetches the weights and uploads an update.
"""

import argparse
import asyncio
import io
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import table
from fleet import Service, seconds, status, wait

FOLD = Path("target/release/examples/fold").resolve()
NODES = Path("target/release/examples/flower_nodes").resolve()
QUIET = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0"}
REPEATS = 3
ROUNDS = 5
UPDATES, NUMBERS = 1000, 1_000_000
CLIENTS = [(50, 1_000_000), (500, 2_000)]
NODE_SECONDS = 5
NODE_COUNTS = [1, 20]
DEVICES = 10_000

JOIN = "/flwr.proto.FlowerService/Join"
# The first byte of a message of the server: the field of its kind.
RECONNECT, PARAMETERS, FIT = 0x0A, 0x1A, 0x22
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]


def tell(**figures):
    print(json.dumps(figures), flush=True)
    return figures


def fold(_):
    """Medians of both, and the memory that ours takes above the updates."""
    import numpy
    from flwr.app import ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    tensors = 10
    random = numpy.random.default_rng(0)
    base = [random.standard_normal(NUMBERS // tensors, dtype=numpy.float32) for _ in range(tensors)]
    records = [
        RecordDict({
            "arrays": ArrayRecord([array + numpy.float32(index) for array in base]),
            "metrics": MetricRecord({"num-examples": 10 + index}),
        })
        for index in range(UPDATES)
    ]
    ours, flower = [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        aggregate_arrayrecords(records, "num-examples")
        flower.append(time.perf_counter() - began)
        said = subprocess.run([FOLD, str(UPDATES), str(NUMBERS), "1"], check=True, capture_output=True, text=True)
        ours.append(json.loads(said.stdout))
    ours, above = statistics.median(run["seconds"] for run in ours), max(run["mib_above_inputs"] for run in ours)
    flower = statistics.median(flower)
    tell(part="fold", updates=UPDATES, numbers=NUMBERS, flower_s=flower, ours_s=ours, mib_above_inputs=above)
    return [row(f"averaging {UPDATES} updates of {NUMBERS / 1e6:g} M numbers", flower, ours, "s")]


def answers(floats):
    import numpy
    from flwr.proto.transport_pb2 import ClientMessage, Parameters, Status

    file = io.BytesIO()
    numpy.save(file, numpy.zeros(floats, numpy.float32), allow_pickle=False)
    parameters = Parameters(tensors=[file.getvalue()], tensor_type="numpy.ndarray")
    first = ClientMessage.GetParametersRes(status=Status(), parameters=parameters)
    fit = ClientMessage.FitRes(status=Status(), parameters=parameters, num_examples=10)
    return {
        PARAMETERS: ClientMessage(get_parameters_res=first).SerializeToString(),
        FIT: ClientMessage(fit_res=fit).SerializeToString(),
    }


def swarm(address, clients, floats):
    """The time of each round, and the processor time that the swarm took for one. Its answers were made before."""
    import grpc

    canned = answers(floats)
    first = {}

    async def client():
        async with grpc.aio.insecure_channel(address, OPTIONS) as channel:
            await channel.channel_ready()
            call = channel.stream_stream(JOIN)()
            fits = 0
            while (kind := (await call.read())[0]) != RECONNECT:
                if kind == FIT:
                    first.setdefault(fits, time.perf_counter())
                    fits += 1
                await call.write(canned[kind])
            first.setdefault(fits, time.perf_counter())
            call.cancel()

    async def everybody():
        await asyncio.gather(*(client() for _ in range(clients)))

    spent = time.process_time()
    asyncio.run(everybody())
    spent = time.process_time() - spent
    times = [first[index + 1] - first[index] for index in range(len(first) - 1)]
    # The first round meets cold caches and connections.
    return times[1:], spent / len(times)


def flower_server(address, clients):
    from flwr.server import ServerConfig
    from flwr.server.strategy import FedAvg
    try:
        from flwr.server import start_server
    except ImportError:
        from flwr.compat.server.app import start_server

    strategy = FedAvg(fraction_evaluate=0.0, min_fit_clients=clients, min_available_clients=clients)
    start_server(server_address=address, config=ServerConfig(num_rounds=ROUNDS), strategy=strategy)
    # What getrusage says is at least what whoever started this process had taken.
    print(status(os.getpid(), "VmHWM") >> 10, flush=True)


def ours_of(scratch, clients, floats):
    with Service(scratch, flower=True) as service:
        form = {"rounds": ROUNDS, "participants_min": clients, "quorum": clients, "evaluate": False}
        service.rest("/api/v1/runs", form)
        times, spent = swarm(service.join, clients, floats)
        return times, spent, status(service.pid, "VmHWM") >> 10


def flower_of(clients, floats):
    address = f"127.0.0.1:{free_port()}"
    words = [sys.executable, "-B", __file__, "flower-server", address, "--clients", str(clients)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=QUIET)
    try:
        times, spent = swarm(address, clients, floats)
        peak, _ = server.communicate(timeout=60)
        assert server.returncode == 0, "Flower's server failed"
    finally:
        server.kill()
    return times, spent, int(peak)


def join(scratch):
    rows = []
    for clients, floats in CLIENTS:
        runs = {"ours": [], "flower": []}
        for index in range(REPEATS):
            runs["ours"].append(ours_of(scratch / f"join-{clients}-{index}", clients, floats))
            runs["flower"].append(flower_of(clients, floats))
        lasted, peaks = {}, {}
        for who, told in runs.items():
            lasted[who] = statistics.median(time for times, _, _ in told for time in times)
            peaks[who] = statistics.median(peak for _, _, peak in told)
            swarm_s = statistics.median(spent for _, spent, _ in told)
            rounds = [[round(time, 3) for time in times] for times, _, _ in told]
            tell(part="join", server=who, clients=clients, floats=floats, round_s=lasted[who], peak_mib=peaks[who],
                 swarm_processor_s=round(swarm_s, 3), rounds_s=rounds)
        name = f"{clients} clients, {floats:,} numbers".replace(",000,000", " M")
        rows.append(row(f"a round of {name}", lasted["flower"], lasted["ours"], "s"))
        rows.append(row("  memory of the server at most", peaks["flower"], peaks["ours"], "MiB"))
    return rows


def nodes(_):
    port = free_port()
    words = [sys.executable, "-B", "tests/bench/flower_superlink.py", str(port)]
    link = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=QUIET)
    try:
        while (line := link.stdout.readline()).strip() != "ready":
            assert line, "the SuperLink does not start"
        words = [NODES, str(NODE_SECONDS), f"127.0.0.1:{port}", *map(str, NODE_COUNTS)]
        said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    finally:
        link.kill()
    rates = {}
    for line in said.stdout.splitlines():
        figures = json.loads(line)
        tell(part="nodes", **figures)
        rates.setdefault((figures["what"], figures["nodes"]), {})[figures["server"]] = figures["per_second"]
    names = {"heartbeats": "heartbeats", "messages": "whole messages"}
    return [
        row(f"{names[what]}, {count} SuperNode{'s' if count > 1 else ''}", rate["flower"], rate["ours"], "/s")
        for (what, count), rate in rates.items()
    ]


def devices(scratch):
    with Service(scratch / "devices") as service:
        words = ["--devices", str(DEVICES), "--rollouts", "0", "--commands", "0", "--heartbeat", "1h", "--hold", "5s"]
        load = service.simulate(*words, "--rounds", "1")
        wait("the first connection", lambda: service.connected() > 0, every=0.2)
        wait("the last connection", lambda: service.connected() >= DEVICES)
        before, spent = status(service.pid, "VmRSS") >> 10, seconds(service.pid)
        summary = load.end()
        spent = seconds(service.pid) - spent
        peak = status(service.pid, "VmHWM") >> 10
        (ended,) = summary["rounds"]
        tell(part="devices", devices=DEVICES, round_s=ended["seconds"], updates=ended["updates"], peak_mib=peak,
             mib_before=before, received=ended["bytes_received"], sent=ended["bytes_sent"],
             service_processor_s=spent)
    name = f"a round of {DEVICES:,} devices of our own"
    megabytes = (ended["bytes_received"] + ended["bytes_sent"]) / 1e6
    return [
        [name, "–", f"{ended['seconds']:.1f} s", ""],
        ["  memory of the service at most", "–", f"{peak} MiB, {peak - before} of it since all were connected", ""],
        ["  weights and updates", "–", f"{megabytes:.0f} MB", ""],
    ]


def row(name, flower, ours, unit):
    """How many times as good ours is: where less is better, or where more is."""
    gain = ours / flower if unit == "/s" else flower / ours
    figure = lambda value: f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
    return [name, figure(flower), figure(ours), f"{gain:.1f}×"]


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


PARTS = {"fold": fold, "join": join, "nodes": nodes, "devices": devices}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--clients", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.parts[:1] == ["flower-server"]:
        return flower_server(options.parts[1], options.clients)
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        sys.exit(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
    tell(processors=os.cpu_count(), model=model[1] if model else None, load_before=os.getloadavg()[0])
    rows = []
    for name in options.parts or PARTS:
        with tempfile.TemporaryDirectory() as scratch:
            rows += PARTS[name](Path(scratch))
    table(["", "Flower", "Revoada", "gain"], rows)


if __name__ == "__main__":
    main()
