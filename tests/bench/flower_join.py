"""Rounds of clients that only echo, against our door for Flower's `start_client` and against Flower's own server.

    flower_join.py swarm ADDRESS [--clients N] [--floats P]              until whoever asks sends everybody away
    flower_join.py compare ADDRESS [--clients N] [--floats P] [--rounds N]

It runs where `flwr` and NumPy are. `ADDRESS` is where ours listens, and does as many rounds as it likes; Flower's does
`--rounds` of them, in a process of its own, as FedAvg without evaluation. The clients are one process with a connection
each that answer what they are sent with bytes that were made before, so that the time is the server's as far as one machine
allows; what processor time the swarm itself took is said. A round lasts from the first client that is asked in it
to the first that is asked in the next, or sent away. Prints one JSON object a run.
"""

import argparse
import asyncio
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import grpc
import numpy

METHOD = "/flwr.proto.FlowerService/Join"
# The first byte of a message of the server: the field of its kind.
RECONNECT, PARAMETERS, FIT = 0x0A, 0x1A, 0x22
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]


def answers(floats):
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
    """The time of each round, and the processor time that the swarm took for one."""
    canned = answers(floats)
    first = {}

    async def client():
        async with grpc.aio.insecure_channel(address, OPTIONS) as channel:
            await channel.channel_ready()
            call = channel.stream_stream(METHOD)()
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
    return times, spent / max(len(times), 1)


def report(who, clients, floats, times, spent):
    # The first round meets cold caches and connections.
    warm = times[1:] or times
    print(json.dumps({
        "server": who,
        "clients": clients,
        "floats": floats,
        "rounds_s": [round(seconds, 3) for seconds in times],
        "median_s": round(statistics.median(warm), 3),
        "swarm_processor_s_per_round": round(spent, 3),
    }), flush=True)
    return statistics.median(warm)


def theirs(address, clients, rounds):
    from flwr.server import ServerConfig
    from flwr.server.strategy import FedAvg
    try:
        from flwr.server import start_server
    except ImportError:
        from flwr.compat.server.app import start_server

    strategy = FedAvg(fraction_evaluate=0.0, min_fit_clients=clients, min_available_clients=clients)
    start_server(server_address=address, config=ServerConfig(num_rounds=rounds), strategy=strategy)
    print(json.dumps({"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}), flush=True)


def compare(options):
    ours = swarm(options.address, options.clients, options.floats)
    ours = report("ours", options.clients, options.floats, *ours)
    address = f"127.0.0.1:{options.port}"
    command = [sys.executable, __file__, "theirs", address]
    command += ["--clients", str(options.clients), "--rounds", str(options.rounds)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"})
    try:
        flower = swarm(address, options.clients, options.floats)
        assert server.wait(timeout=60) == 0, "Flower's server failed"
    finally:
        server.kill()
    flower = report("flower", options.clients, options.floats, *flower)
    print(json.dumps({"ours_of_flower": round(ours / flower, 3)}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["swarm", "compare", "theirs"])
    parser.add_argument("address")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--floats", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=18_932, help="where Flower's server listens")
    options = parser.parse_args()
    if options.part == "swarm":
        run = swarm(options.address, options.clients, options.floats)
        report("ours", options.clients, options.floats, *run)
    elif options.part == "theirs":
        theirs(options.address, options.clients, options.rounds)
    else:
        compare(options)


if __name__ == "__main__":
    main()
