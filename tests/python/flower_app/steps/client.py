"""A client whose training is known beforehand: it adds its step to every weight."""

import pathlib
import time

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

# How long a client that is held waits to be let go on.
HOLD_S_MAX = 60


def hold(context: Context) -> None:
    """Where the node says so: tells that it has begun, and waits until it may go on."""
    folder = context.node_config.get("hold")
    if folder is None:
        return
    folder = pathlib.Path(str(folder))
    (folder / "begun").touch()
    end = time.monotonic() + HOLD_S_MAX
    while not (folder / "go").exists() and time.monotonic() < end:
        time.sleep(0.05)


def step_from(array: np.ndarray, step: int) -> np.ndarray:
    return np.asarray(array + np.asarray(step, array.dtype))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Adds the node's step to every weight; says how many examples it has, ten for a step of one."""
    hold(context)
    step = int(context.node_config["step"])
    config = message.content["config"]
    if step == 0 or bool(config.get("fail", False)):
        raise ValueError("this client cannot learn")
    arrays = message.content["arrays"]
    learnt = {name: Array(step_from(array.numpy(), step)) for name, array in arrays.items()}
    metrics = {"num-examples": 10 * step, "train_loss": 1.0 / step, "round": config["server-round"]}
    content = {"arrays": ArrayRecord(learnt), "metrics": MetricRecord(metrics)}
    return Message(content=RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Says how far from zero the weights are."""
    arrays = [array.numpy() for array in message.content["arrays"].values()]
    loss = max(float(np.abs(array).max()) for array in arrays)
    metrics = {"num-examples": 10 * int(context.node_config["step"]), "eval_loss": loss, "accuracy": 0.5}
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
