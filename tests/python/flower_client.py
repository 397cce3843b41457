"""A client of Flower that adds a number to all weights: `flower_client.py ADDRESS --add 1 --examples 3`.

It runs on any `flwr` from 1.0 on. What it is asked it says on standard output, a line each; with `--stall-in 2` it never
answers what it is asked in the second round.
"""

import argparse
import pathlib
import time

import flwr
import numpy


class Client(flwr.client.NumPyClient):
    def __init__(self, add, examples, stall_in):
        self.add, self.examples, self.stall_in = add, examples, stall_in
        self.fits = 0

    def get_parameters(self, config):
        say("parameters")
        return [numpy.zeros((3, 2), numpy.float32), numpy.zeros(4, numpy.float64), numpy.zeros((), numpy.int64)]

    def fit(self, parameters, config):
        say(f"fit {sorted(config.items())}")
        if config["round"] == self.stall_in:
            time.sleep(3600)
        self.fits += 1
        metrics = {"bool": True, "bytes": b"\x00\xff", "double": 0.5, "integer": -self.fits, "text": "\u00e4"}
        return [array + numpy.asarray(self.add, array.dtype) for array in parameters], self.examples, metrics

    def evaluate(self, parameters, config):
        say(f"evaluate {[array.dtype.name for array in parameters]}")
        return float(parameters[0].mean()), self.examples, {"add": self.add}


def say(line):
    print(line, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--add", type=int, required=True)
    parser.add_argument("--examples", type=int, required=True)
    parser.add_argument("--stall-in", type=int, help="the round in which it never answers")
    parser.add_argument("--root-certificates", type=pathlib.Path)
    options = parser.parse_args()
    client = Client(options.add, options.examples, options.stall_in)
    root = options.root_certificates and options.root_certificates.read_bytes()
    if hasattr(client, "to_client"):
        flwr.client.start_client(server_address=options.address, client=client.to_client(), root_certificates=root)
    else:
        flwr.client.start_numpy_client(server_address=options.address, client=client, root_certificates=root)
    say("done")


if __name__ == "__main__":
    main()
