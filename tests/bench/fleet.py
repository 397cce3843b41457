"""The fleet service under load: connections, commands, rollouts, and downloads against nginx.

Run by `cargo xtask bench fleet`, from the root of the repository. Service and load are processes of their own on one
machine, over loopback; each part says what share of the processor time the load took. Parts may be named: `idle`,
`commands`, `rollouts`, `plan`, `downloads`.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

FLEET = Path(os.environ.get("REVOADA_FLEET_PROGRAM", "target/release/revoada-fleet")).resolve()
DEVICE = Path(os.environ.get("REVOADA_PROGRAM", "target/release/revoada")).resolve()
PLANNER = Path("target/release/examples/hundred_thousand").resolve()
IDLE_DEVICES = 15_000
DEVICES = 5_000
COMMANDS = 4_000
COMMANDS_PER_SECOND = 40
DOWNLOADERS = 50
BLOB_BYTES = 100_000_000
ROUNDS = 3
TICKS = os.sysconf("SC_CLK_TCK")
NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; worker_processes auto;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl; root {folder}/www;
    ssl_protocols TLSv1.3; ssl_certificate {folder}/nginx.crt; ssl_certificate_key {folder}/nginx.key;
    ssl_client_certificate {folder}/authority.pem; ssl_verify_client on; ssl_verify_depth 2;
  }}
}}
"""


def status(pid, name):
    found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(found[1])


def seconds(pid):
    """Processor time of a process and of those that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:15]) / TICKS


def wait(what, is_so, at_most=600.0, every=0.05):
    deadline = time.monotonic() + at_most
    while not (answer := is_so()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(every)
    return answer


class Service:
    """`revoada-fleet serve` in a folder of its own, with a door for clients of Flower where it is asked for."""

    def __init__(self, folder, flower=False):
        self.folder = folder
        folder.mkdir()
        self.key = folder / "owner.pem"
        public = subprocess.run([DEVICE, "key", self.key, "--new"], stdout=subprocess.PIPE, check=True, text=True)
        (folder / "fleet.toml").write_text(
            f'folder = "state"\nnames = ["localhost"]\ntrusted = ["{public.stdout.strip()}"]\n'
            'mqtt = "127.0.0.1:0"\ndevices = "127.0.0.1:0"\n[operators]\naddress = "127.0.0.1:0"\n'
            "[connections]\nmax = 19000\nper_second_max = 1000000\nenrolments_per_second_max = 1000000\n"
            "[limits]\nin_flight_max = 1000000\norders_per_minute_max = 100000000\n"
            + ('[flower]\njoin = "127.0.0.1:0"\ntls = false\n' if flower else "")
        )
        words = [FLEET, "serve", "--config", folder / "fleet.toml"]
        self.log = open(folder / "log", "w")
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.operators = self.process.stdout.readline().split(": ", 1)[1].strip()
        port = re.match(r"devices: 127\.0\.0\.1:(\d+)", self.process.stdout.readline())[1]
        self.devices = f"localhost:{port}"
        self.join = self.process.stdout.readline().split(": ", 1)[1].strip() if flower else None
        self.pid = self.process.pid
        self.token = (folder / "state/admin.token").read_text().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()

    def words(self, *arguments):
        return [FLEET, *arguments, "--server", self.operators, "--token-file", self.folder / "state/admin.token"]

    def ask(self, *arguments):
        asked = subprocess.run(self.words(*arguments), stdout=subprocess.PIPE, check=True, text=True)
        return asked.stdout.strip()

    def rest(self, path, form=None):
        body = None if form is None else json.dumps(form).encode()
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.operators}{path}", body, headers)) as answer:
            return answer.read()

    def metric(self, name):
        found = re.search(rf"^revoada_fleet_{re.escape(name)} (\d+)", self.rest("/metrics").decode(), re.M)
        return int(found[1]) if found else 0

    def simulate(self, *arguments):
        words = self.words("simulate", "--at", self.devices, "--key", self.key, "--json", "--patience", "10m", *arguments)
        return Load(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))

    def connected(self):
        return self.metric('connections{port="mqtt"}')

    def register(self, name, path, version):
        self.ask("models", "sign", path, "--kind", "pipeline", "--key", self.key)
        return self.ask("models", "add", path, "--kind", "pipeline", "--name", name, "--version", version).split()[-1]


class Load:
    """Virtual devices in a process of their own."""

    def __init__(self, process):
        self.process, self.pid = process, process.pid

    def end(self):
        told, _ = self.process.communicate()
        summary = json.loads(told)
        assert summary["failures_count"] == 0, summary["failures"]
        return summary


class Shares:
    """Processor time of a service and its load from here on."""

    def __init__(self, service, load):
        self.pids = (service.pid, load.pid)
        self.began = [seconds(pid) for pid in self.pids]

    def told(self):
        service, load = (seconds(pid) - began for pid, began in zip(self.pids, self.began))
        return f"service {service:.1f} s, load {load:.1f} s of processor time ({load / max(service + load, 0.01):.0%} load)"


def idle(scratch):
    with Service(scratch / "idle") as service:
        load = service.simulate(
            "--devices", str(IDLE_DEVICES), "--rollouts", "0", "--commands", "0", "--heartbeat", "1h", "--hold", "20s"
        )
        # Devices connect once all of them are enrolled.
        wait("the first connection", lambda: service.connected() > 0, every=0.2)
        shares, before = Shares(service, load), status(service.pid, "VmRSS")
        began = time.monotonic()
        wait("the last connection", lambda: service.connected() >= IDLE_DEVICES)
        took = time.monotonic() - began
        connecting = shares.told()
        time.sleep(10)
        grown = status(service.pid, "VmRSS") - before
        summary = load.end()
        print(f"idle: {IDLE_DEVICES} devices with TLS, session, subscriptions and a facts report each")
        print(f"  {grown / IDLE_DEVICES:.1f} KiB each in the service ({status(service.pid, 'VmHWM') >> 10} MiB at most in all)")
        print(f"  {summary['connects_per_second']:.0f} connects/s ({took:.1f} s): {connecting}")
        print(f"  enrolled before at {summary['enrolments_per_second']:.0f}/s")


def commands(scratch):
    with Service(scratch / "commands") as service:
        load = service.simulate(
            *("--devices", str(DEVICES), "--rollouts", "0", "--commands", str(COMMANDS)),
            *("--commands-per-second", str(COMMANDS_PER_SECOND), "--heartbeat", "60s", "--hold", "5s"),
        )
        wait("every connection", lambda: service.connected() >= DEVICES)
        shares = Shares(service, load)
        time.sleep(4 + COMMANDS / COMMANDS_PER_SECOND)
        told = shares.told()
        latency = load.end()["command_latency"]
        print(f"commands: {COMMANDS} at {COMMANDS_PER_SECOND}/s to {DEVICES} devices with a heartbeat a minute")
        print("  from the operator's request to the device's doing: " + ", ".join(
            f"{name} {latency[f'{name}_ms']:.0f} ms" for name in ("p50", "p99", "max")))
        print(f"  {told}")


def rollouts(scratch):
    with Service(scratch / "rollouts") as service:
        load = service.simulate(
            "--devices", str(DEVICES), "--rollouts", "0", "--commands", "0", "--heartbeat", "60s", "--hold", "60s"
        )
        for version in ("1", "2"):
            path = scratch / f"cameras-{version}.toml"
            path.write_text(f"# {version}\nversion = 1\n")
            service.register("cameras", path, version)
        wait("every connection", lambda: service.connected() >= DEVICES)
        time.sleep(3)

        def start(version):
            form = {
                "title": version, "kind": "pipeline", "name": "cameras", "version": version, "gates": [],
                "waves": [{"size": "100%", "soak": "0s"}],
            }
            return json.loads(service.rest("/api/v1/rollouts", form))["id"]

        def sent():
            return service.metric('messages_sent{what="order"}') or service.metric('messages_sent_total{what="order"}')

        def rollout(number):
            return json.loads(service.rest(f"/api/v1/rollouts/{number}"))

        shares, began, first = Shares(service, load), time.monotonic(), sent()
        number = start("1")
        wait("every order", lambda: sent() - first >= DEVICES)
        dispatched = time.monotonic() - began
        wait("the end", lambda: rollout(number)["phase"] == "finished")
        finished, told = time.monotonic() - began, shares.told()
        print(f"rollouts: {DEVICES} devices in one wave")
        print(f"  dispatched in {dispatched:.2f} s ({DEVICES / dispatched:.0f} orders/s), all done and known after {finished:.2f} s")
        print(f"  {told}")

        first, number = sent(), start("2")
        wait("some orders", lambda: sent() - first >= DEVICES // 10, every=0.005)
        asked = time.monotonic()
        service.rest(f"/api/v1/rollouts/{number}/abort", {"rolls_back": False})
        answered = time.monotonic() - asked
        wait("the abort", lambda: rollout(number)["phase"] not in ("new", "running"), every=0.005)
        seen = time.monotonic() - asked
        time.sleep(2)
        last = sent()
        time.sleep(2)
        assert sent() == last, "orders are sent after an abort"
        print(f"  aborted in the midst: answered after {answered * 1e3:.0f} ms, visible after {seen * 1e3:.0f} ms; "
              f"{last - first} of {DEVICES} orders were out")
        load.end()


def plan(_):
    print("plan: a rollout for 100,000 targets, the planner alone")
    told = subprocess.run([PLANNER], stdout=subprocess.PIPE, check=True, text=True).stdout
    print("\n".join(f"  {line}" for line in told.splitlines()))


def downloads(scratch):
    with Service(scratch / "downloads") as service:
        blob = scratch / "blob.toml"
        blob.write_bytes(os.urandom(BLOB_BYTES))
        service.ask("models", "sign", blob, "--kind", "package", "--key", service.key)
        digest = service.ask(*f"models add {blob} --kind package --name blob --version 1.0.0".split()).split()[-1]
        digest = digest.removeprefix("sha256:")
        certificates = [enrolled(service, scratch, index) for index in range(DOWNLOADERS)]
        port = nginx(scratch, certificates[0], blob, digest)
        try:
            urls = {
                "revoada-fleet": (f"https://{service.devices}/v1/blobs/{digest}", [service.pid]),
                "nginx": (f"https://localhost:{port[0]}/v1/blobs/{digest}", port[1]),
            }
            rates = {name: [] for name in urls}
            for turn in range(ROUNDS):
                for name, (url, pids) in list(urls.items())[:: 1 if turn % 2 == 0 else -1]:
                    rates[name].append(fetched(url, certificates, pids))
        finally:
            subprocess.run(["kill", str(port[2])], check=True)
        print(f"downloads: {DOWNLOADERS} devices fetch {BLOB_BYTES // 10**6} MB each with TLS 1.3 and their certificates")
        medians = {}
        for name, rounds in rates.items():
            medians[name] = statistics.median(rate for rate, _, _ in rounds)
            server = statistics.median(server for _, server, _ in rounds)
            load = statistics.median(load for _, _, load in rounds)
            print(f"  {name:<13} {medians[name]:.0f} MB/s (median of {ROUNDS}): server {server:.1f} s, "
                  f"load {load:.1f} s of processor time ({load / (server + load):.0%} load)")
        print(f"  ratio {medians['revoada-fleet'] / medians['nginx']:.2f}")


def enrolled(service, scratch, index):
    """A device's certificate and key, as files."""
    name, folder = f"downloader-{index}", scratch / f"device-{index}"
    folder.mkdir()
    (folder / "agent.toml").write_text(f'server = "{service.devices}"\nfolder = "state"\ntrust = "none.pub"\n')
    token = service.ask("enrolment", "add", name)
    words = [DEVICE, "agent", "enrol", "--device", name, "--token", token, "--config", folder / "agent.toml"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (found,) = (folder / "state").glob("identity*.json")
    identity = json.loads(found.read_text())
    path = folder / "both.pem"
    path.write_text(identity["certificates"] + identity["key"])
    return path, identity["authority"]


def nginx(scratch, certificate, blob, digest):
    folder = scratch / "nginx"
    (folder / "www/v1/blobs").mkdir(parents=True)
    os.chmod(scratch, 0o755)
    (folder / "www/v1/blobs" / digest).hardlink_to(blob)
    (folder / "www/v1/blobs" / digest).chmod(0o644)
    (folder / "authority.pem").write_text(certificate[1])
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost".split()
    words += ["-keyout", folder / "nginx.key", "-out", folder / "nginx.crt"]
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    port = 18443
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
    program = "/usr/sbin/nginx"
    process = subprocess.Popen([program, "-c", folder / "nginx.conf"], stderr=subprocess.DEVNULL)
    workers = wait("nginx", lambda: children(process.pid), at_most=10)
    time.sleep(0.5)
    return port, [process.pid, *children(process.pid)] if workers else [], process.pid


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def fetched(url, certificates, pids):
    """Megabytes a second of all downloads together, and what they cost the server and the load."""
    before, spent = sum(seconds(pid) for pid in pids), os.times()
    began = time.monotonic()
    words = ["curl", "--silent", "--fail", "--insecure", "--http1.1", "--output", "/dev/null"]
    running = [subprocess.Popen([*words, "--cert", path, url]) for path, _ in certificates]
    codes = [process.wait() for process in running]
    took = time.monotonic() - began
    assert not any(codes), f"curl ended with {codes}"
    now = os.times()
    load = now.children_user + now.children_system - spent.children_user - spent.children_system
    return BLOB_BYTES * len(certificates) / took / 1e6, sum(seconds(pid) for pid in pids) - before, load


def main():
    parts = {"idle": idle, "commands": commands, "rollouts": rollouts, "plan": plan, "downloads": downloads}
    asked = sys.argv[1:] or list(parts)
    unknown = [name for name in asked if name not in parts]
    if unknown:
        sys.exit(f"no such part: {', '.join(unknown)}; there are {', '.join(parts)}")
    model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
    print(f"{os.cpu_count()} processors{f', {model[1]}' if model else ''}")
    for name in asked:
        with tempfile.TemporaryDirectory() as scratch:
            parts[name](Path(scratch))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
