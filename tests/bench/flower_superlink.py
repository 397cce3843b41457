"""Flower's SuperLink, and the most eager of server apps: `flower_superlink.py PORT`, where flwr 1.42 is.

The Fleet API and the state in memory are those of `flower-superlink --insecure`, in this process. In place of a server app, which
would ask for replies over HTTP every three seconds, a thread beside them gives each SuperNode that is there the next message as
soon as its reply is whole. So what is measured of SuperNodes is the SuperLink's own time. Says `ready` once it listens.
"""

import sys
import threading
import time

import numpy
import uvicorn
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.main import create_app

LOOK_EVERY = 0.001
NUMBERS = 100


def begin(state):
    run = state.create_run(None, None, None, {}, NOOP_FEDERATION_ID, None, None, TaskType.SERVER_APP)
    (task,) = state.get_tasks(run_ids=[run])
    token = state.claim_task(task.task_id)
    assert token and state.activate_task(task.task_id)
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = run, task.task_id, state.get_node_id()
    return run, task.task_id


def post(state, run, node):
    arrays = ArrayRecord([numpy.zeros(NUMBERS, numpy.float32)])
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})})
    message = Message(content, dst_node_id=node, message_type="train")
    # As a grid of Flower's does it.
    message.metadata.__dict__["_message_id"] = message.object_id
    objects = get_all_nested_objects(message)
    session = state.start_session(run)
    stored, lacking = state.store_message_and_object_tree(message, get_object_tree(message), session)
    assert stored, "the SuperLink does not take a message"
    for name in lacking:
        state.store_object(run, session, name, objects[name].deflate())
    return message.object_id


def feed(state):
    run, task = begin(state)
    waiting = {}
    beat = time.monotonic()
    while True:
        for node in state.get_nodes(run) - set(waiting.values()):
            waiting[post(state, run, node)] = node
        if waiting:
            for reply in state.get_message_res(set(waiting), run):
                asked = reply.metadata.reply_to_message_id
                state.delete_messages({asked})
                waiting.pop(asked)
        if time.monotonic() - beat > 5:
            state.acknowledge_task_heartbeat(task)
            beat = time.monotonic()
        time.sleep(LOOK_EVERY)


def main():
    app = create_app()
    state = app.state.linkstate_factory.state()
    threading.Thread(target=feed, args=[state], daemon=True).start()
    config = uvicorn.Config(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="error")
    server = uvicorn.Server(config)

    def tell():
        while not server.started:
            time.sleep(0.01)
        print("ready", flush=True)

    threading.Thread(target=tell, daemon=True).start()
    server.run()


main()
