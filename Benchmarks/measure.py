#!/usr/bin/env python3
"""Prints the table of docs/performance.md: each row a ratio, both of its sides measured in this run, on this machine and disk.

Loads come from wrk over loopback, on the same cores as the servers; so ratios mean more than absolutes. `run` builds and calls this.
"""

import base64
import contextlib
import io
import json
import os
import re
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Scripts"))
from cofferclient import Server, service_sas, shared_key  # noqa: E402

QUICK = "--quick" in sys.argv
SECONDS = 3
TURNS = 2 if QUICK else 8
FEW, MANY = 100, 10_000 if QUICK else 100_000
CONNECTIONS = 16


def row(what, measured, reference, unit, aim, ratio=None, spread=""):
    ratio = measured / reference if ratio is None else ratio
    print(f"{what:<58} {measured:>12,.1f} {reference:>12,.1f} {unit:<10} {ratio:>6.2f} {spread:<16} aim {aim}", flush=True)


def turns_row(what, ours, theirs, unit, aim):
    """Of turns: the medians of both sides, and of the turns' ratios the median, the least and the greatest."""
    ratios = sorted(one / other for one, other in zip(ours, theirs))
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    row(what, statistics.median(ours), statistics.median(theirs), unit, aim, statistics.median(ratios), spread)


def by_turns(ours, theirs):
    """Measures both sides by turns, each of them first in every other, so that what other machines on the host take is taken from
    both. What a side leaves to be written is on the disk before the next one begins."""
    sides = ([], [])
    for turn in range(TURNS):
        for results, measure in list(zip(sides, (ours, theirs)))[:: -1 if turn % 2 else 1]:
            os.sync()
            results.append(measure())
    return sides


def cpu_seconds(pids):
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def children(pid):
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(child) for child in found]


class Load(NamedTuple):
    rate: float  # requests a second
    p50: float  # microseconds
    cpu: float  # of the server, microseconds a request


def wrk(url, script=None, headers=(), connections=CONNECTIONS, pids=()):
    command = ["wrk", "-t", "2" if connections > 1 else "1", "-c", str(connections), "-d", f"{SECONDS}s", "--latency"]
    for header in headers:
        command += ["-H", header]
    if script:
        command += ["-s", str(script)]
    before = cpu_seconds(pids)
    out = subprocess.run(command + [url], capture_output=True, text=True).stdout
    spent = cpu_seconds(pids) - before
    if "requests in" not in out or "Non-2xx or 3xx responses" in out:
        sys.exit(f"the load failed: {out}")
    total = int(re.search(r"(\d+) requests in", out).group(1))
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
    p50, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", out).groups()
    return Load(rate, float(p50) * {"us": 1, "ms": 1e3, "s": 1e6}[unit], spent / total * 1e6)


def put_script(folder, size, prefix, query, known=False):
    """A wrk script that PUTs random bytes: over the same 2,000 names whenever it is made, or under names of its own."""
    if not known:
        prefix += secrets.token_hex(4) + "-"
    body = folder / f"body{size}"
    body.write_bytes(os.urandom(size))
    script = folder / f"put{size}-{secrets.token_hex(4)}.lua"
    script.write_text(
        f"""
local file = io.open("{body}", "rb"); local body = file:read("*a"); file:close()
local threads = 0
function setup(thread) thread:set("id", threads); threads = threads + 1 end
function init() n = 0 end
function request()
  n = n + 1
  local name = string.format("%d-%06d", id, {"n % 1000" if known else "n"})
  return wrk.format("PUT", "{prefix}" .. name .. "{query}", {{["x-ms-blob-type"] = "BlockBlob", ["Host"] = wrk.headers["Host"]}}, body)
end
"""
    )
    return script


class Nginx:
    def __init__(self, folder):
        self.folder = folder / "nginx"
        for name in ("data", "temp"):
            (self.folder / name).mkdir(parents=True)
        os.chmod(folder, 0o755)
        for path in (self.folder, *self.folder.iterdir()):
            os.chmod(path, 0o777)
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = self.folder / "nginx.conf"
        config.write_text(
            f"""
worker_processes 2; pid {self.folder}/pid; error_log {self.folder}/error.log; daemon off;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_max_body_size 0; client_body_temp_path {self.folder}/temp; keepalive_requests 1000000; sendfile on;
  proxy_temp_path {self.folder}/temp/p; fastcgi_temp_path {self.folder}/temp/f; uwsgi_temp_path {self.folder}/temp/u; scgi_temp_path {self.folder}/temp/s;
  server {{ listen 127.0.0.1:{self.port}; root {self.folder}/data; location / {{ dav_methods PUT DELETE; create_full_put_path on; }} }}
}}
"""
        )
        self.process = subprocess.Popen(["nginx", "-c", str(config), "-p", str(self.folder)], stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        self.pids = [self.process.pid, *children(self.process.pid)]
        self.url = f"http://127.0.0.1:{self.port}/"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        shutil.rmtree(self.folder)

    def put(self, name, data):
        (self.folder / "data" / name).write_bytes(data)

    def get_load(self, name):
        return lambda: wrk(self.url + name, pids=self.pids)

    def put_load(self, size, known):
        return lambda: wrk(self.url, put_script(self.folder, size, "/", "", known), pids=self.pids)


class Store:
    """A Coffer with one account that takes http, and a SAS for its container."""

    def __init__(self, coffer, folder):
        # On the disk that nginx writes to; the machine's folder for temporary files may be memory.
        self.server = Server(folder / f"store-{secrets.token_hex(3)}", coffer).start()
        self.client = self.server.client()
        state = json.loads((self.server.home / "data/run.json").read_text())
        self.pid, self.port = state["pid"], state["httpPort"]
        run = secrets.token_hex(3)
        self.account = f"bench{run}"
        self.group = f"{self.client.subscription}/resourceGroups/bench-{run}"
        self.client.arm("PUT", self.group, {"location": "eastus"})
        self.account_id = f"{self.group}/providers/Microsoft.Storage/storageAccounts/{self.account}"
        body = {
            "location": "eastus", "sku": {"name": "Standard_LRS"}, "kind": "StorageV2", "identity": {"type": "SystemAssigned"},
            "properties": {"supportsHttpsTrafficOnly": False},
        }
        made = self.client.arm("PUT", self.account_id, body, version="2025-01-01")
        self.principal = made["identity"]["principalId"]
        self.host = urllib.parse.urlsplit(made["properties"]["primaryEndpoints"]["blob"]).netloc
        self.blobs = made["properties"]["primaryEndpoints"]["blob"]
        key = self.client.arm("POST", self.account_id + "/listKeys", version="2025-01-01")["keys"][0]["value"]
        headers = shared_key(self.account, key, "PUT", "/box", {"restype": "container"})
        assert self.client.call("PUT", self.blobs + "box?restype=container", headers=headers)[0] == 201
        self.sas = service_sas(self.account, key, "box", protocol="https,http")
        self.url, self.headers = f"http://127.0.0.1:{self.port}", (f"Host: {self.host}",)

    def put(self, name, data):
        status, _, answer = self.client.call("PUT", f"{self.blobs}box/{name}?{self.sas}", data, {"x-ms-blob-type": "BlockBlob"})
        assert status == 201, answer

    def put_load(self, size, known):
        return lambda: wrk(self.url, put_script(self.server.home, size, "/box/", "?" + self.sas, known), self.headers, pids=[self.pid])

    def get_load(self, name):
        return lambda: wrk(f"{self.url}/box/{name}?{self.sas}", headers=self.headers, pids=[self.pid])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.server.process.poll() is None:
            self.server.stop()
        shutil.rmtree(self.server.home, ignore_errors=True)


# Bytes, what they are called, whether names to put are known, aims of get and put.
SIZES = [(4_096, "4 KiB", (True, False), "0.3", "1 (durable)"), (1_048_576, "1 MiB", (True,), "0.5", "-")]


def compare(what, ours, theirs, aim):
    ours, theirs = by_turns(ours, theirs)
    turns_row(what, [load.rate for load in ours], [load.rate for load in theirs], "req/s", aim)
    turns_row("  server CPU a request", [load.cpu for load in ours], [load.cpu for load in theirs], "us", "-")


def against_nginx(folder):
    for size, label, puts, get_aim, put_aim in SIZES:
        with Store(os.environ["COFFER"], folder) as store, Nginx(folder) as nginx:
            data = os.urandom(size)
            for side in (store, nginx):
                side.put("blob", data)
            compare(f"Get Blob {label} against nginx static", store.get_load("blob"), nginx.get_load("blob"), get_aim)
            for known in puts:
                what = f"Put Blob {label}, {'known' if known else 'new'} names, against nginx DAV"
                compare(what, store.put_load(size, known), nginx.put_load(size, known), put_aim)


def encryption_tax(folder):
    if not os.environ.get("COFFER_NULL"):
        print("(the null-cipher build was left out)")
        return
    for size, label, *_ in SIZES:
        with Store(os.environ["COFFER"], folder) as sealed, Store(os.environ["COFFER_NULL"], folder) as plain:
            data = os.urandom(size)
            for side in (sealed, plain):
                side.put("blob", data)
            against = "encrypted against a null cipher"
            compare(f"Get Blob {label}, {against}", sealed.get_load("blob"), plain.get_load("blob"), ">= 0.95")
            compare(f"Put Blob {label}, {against}", sealed.put_load(size, True), plain.put_load(size, True), ">= 0.95")


def make_vault(store):
    client, principal = store.client, store.principal
    vault = f"{store.group}/providers/Microsoft.KeyVault/vaults/bench-{secrets.token_hex(3)}"
    everything = {"keys": ["all"], "secrets": ["all"]}
    policies = [{"tenantId": client.tenant, "objectId": who, "permissions": everything} for who in (client.object_id(), principal)]
    properties = {
        "tenantId": client.tenant, "sku": {"family": "A", "name": "standard"}, "enablePurgeProtection": True,
        "enableRbacAuthorization": False, "accessPolicies": policies,
    }
    uri = client.arm("PUT", vault, {"location": "eastus", "properties": properties})["properties"]["vaultUri"]
    client.vault("POST", uri, "keys/k/create", {"kty": "RSA", "key_size": 2048})
    return uri


def switch_times(store, uri):
    """Medians of (platform to customer key, rotation until followed, customer to platform key), in milliseconds."""
    times = {"switch": [], "rotate": [], "back": []}
    ours = {"keySource": "Microsoft.Keyvault", "keyvaultproperties": {"keyname": "k", "keyvaulturi": uri}}

    def patch(encryption):
        began = time.monotonic()
        store.client.arm("PATCH", store.account_id, {"properties": {"encryption": encryption}}, version="2025-01-01")
        return (time.monotonic() - began) * 1e3

    def current():
        made = store.client.arm("GET", store.account_id, version="2025-01-01")
        return made["properties"]["encryption"]["keyvaultproperties"]["currentVersionedKeyIdentifier"]

    for _ in range(5):
        times["switch"].append(patch(ours))
        before = current()
        store.client.vault("POST", uri, "keys/k/rotate")
        began = time.monotonic()
        while current() == before:
            pass
        times["rotate"].append((time.monotonic() - began) * 1e3)
        times["back"].append(patch({"keySource": "Microsoft.Storage"}))
    return {what: statistics.median(values) for what, values in times.items()}


def customer_keys(store):
    uri = make_vault(store)
    for number in range(FEW):
        store.put(f"few-{number}", os.urandom(100))
    of_few = switch_times(store, uri)
    many = FEW
    while many < MANY:
        script = put_script(store.server.home, 100, "/box/", "?" + store.sas)
        command = ["wrk", "-t", "2", "-c", "64", "-d", "10s", "-s", str(script), "-H", store.headers[0], store.url]
        many += int(re.search(r"(\d+) requests in", subprocess.run(command, capture_output=True, text=True).stdout).group(1))
    of_many = switch_times(store, uri)
    names = {"switch": "to a customer's key", "rotate": "follow a rotation", "back": "back to the platform key"}
    for what, label in names.items():
        row(f"{label}: {many:,} blobs against {FEW}", of_many[what], of_few[what], "ms", "1")
    return uri


def unwrap(store, uri):
    audience = "https://" + urllib.parse.urlsplit(uri).netloc.split(".", 1)[1]
    kid = store.client.vault("GET", uri, "keys/k/")["key"]["kid"]
    path = urllib.parse.urlsplit(kid).path.strip("/")
    value = base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
    wrapped = store.client.vault("POST", uri, f"{path}/wrapkey", {"alg": "RSA-OAEP-256", "value": value})["value"]
    body = json.dumps({"alg": "RSA-OAEP-256", "value": wrapped})
    state = json.loads((store.server.home / "data/run.json").read_text())
    script = store.server.home / "unwrap.lua"
    token = store.client.token(audience)
    script.write_text(
        f"""wrk.method = "POST"; wrk.body = [[{body}]]
wrk.headers["Authorization"] = "Bearer {token}"; wrk.headers["Content-Type"] = "application/json"
wrk.headers["Host"] = "{urllib.parse.urlsplit(uri).netloc}"
"""
    )
    print("(unwrap goes through https and the whole API; openssl speed computes alone)")
    target = (uri, f"/{path}/unwrapkey?api-version=7.4", script, state["httpsPort"])
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        print("(no unwrap rows: unshare is not allowed here)")
        return
    turns = by_turns(lambda: https_load(store, *target), lambda: openssl_speed("-multi", "2"))
    turns_row("unwrapKey over https, on the cores wrk uses too", *turns, "op/s", "0.8")
    if (os.cpu_count() or 1) > 1:
        with on_core(store.pid, 0):
            turns = by_turns(lambda: https_load(store, *target, "taskset -c 1"), lambda: openssl_speed(core=0))
        turns_row("unwrapKey over https, one core each, wrk beside it", *turns, "op/s", "0.8")


def openssl_speed(*options, core=None):
    """Private operations a second, of RSA-2048."""
    command = ["openssl", "speed", "-seconds", str(SECONDS), *options, "rsa2048"]
    done = subprocess.run((["taskset", "-c", str(core)] if core is not None else []) + command, capture_output=True, text=True)
    return float(re.search(r"rsa 2048 bits.*?s\s+.*?s\s+([\d.]+)", done.stdout).group(1))


@contextlib.contextmanager
def on_core(pid, core):
    """All threads of the server on one core, for as long as it lasts."""
    before = os.sched_getaffinity(pid)

    def move(cores):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), cores)

    move({core})
    try:
        yield
    finally:
        move(before)


def https_load(store, uri, path, script, port, prefix=""):
    """wrk takes the TLS server name from the URL, so it goes by name, to an address the hosts file gives."""
    host = urllib.parse.urlsplit(uri).netloc
    hosts = store.server.home / "hosts"
    hosts.write_text(f"127.0.0.1 localhost {host}\n")
    load = f"mount --bind {hosts} /etc/hosts && exec {prefix} wrk -t 2 -c 16 -d {SECONDS}s -s {script} 'https://{host}:{port}{path}'"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", load], capture_output=True, text=True)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if not found or "Non-2xx" in done.stdout:
        sys.exit(f"the load failed: {done.stdout}{done.stderr}")
    return float(found.group(1))


HANDLER = """#!/usr/bin/env python3
import asyncio, os
BODY = os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"].encode()
ANSWER = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(BODY), BODY)
async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", int(BODY)) as server: await server.serve_forever()
asyncio.run(main())
"""


def gate(store):
    client = store.client
    out = io.BytesIO()
    host = {"version": "2.0", "customHandler": {"description": {"defaultExecutablePath": "handler"}, "enableForwardingHttpRequest": True}}
    trigger = {"type": "httpTrigger", "authLevel": "anonymous", "direction": "in", "name": "req", "methods": ["get"]}
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("host.json", json.dumps(host))
        archive.writestr("F/function.json", json.dumps({"bindings": [trigger, {"type": "http", "direction": "out", "name": "res"}]}))
        executable = zipfile.ZipInfo("handler")
        executable.external_attr = 0o755 << 16
        archive.writestr(executable, HANDLER)
    store.put("app.zip", out.getvalue())
    plan, site = (f"{store.group}/providers/Microsoft.Web/{kind}" for kind in ("serverfarms/plan", f"sites/{store.account}app"))
    client.arm("PUT", plan, {"location": "eastus", "kind": "functionapp", "sku": {"name": "Y1"}, "properties": {"reserved": True}})
    made = client.arm("PUT", site, {"location": "eastus", "kind": "functionapp,linux", "properties": {"serverFarmId": plan, "reserved": True}})
    settings = {"FUNCTIONS_EXTENSION_VERSION": "~4", "WEBSITE_RUN_FROM_PACKAGE": f"{store.blobs}box/app.zip?{store.sas}"}
    client.arm("PUT", f"{site}/config/appsettings", {"properties": settings})
    name = made["properties"]["defaultHostName"]
    for _ in range(100):
        status, _, port = client.call("GET", f"https://{name}/api/F")
        if status == 200:
            break
        time.sleep(0.2)
    assert status == 200, port
    through, bare = by_turns(
        lambda: wrk(f"{store.url}/api/F", headers=(f"Host: {name}",), connections=1),
        lambda: wrk(f"http://127.0.0.1:{port.decode()}/api/F", connections=1),
    )
    what = "a function call through the gate against the bare handler"
    turns_row(what, [load.p50 for load in through], [load.p50 for load in bare], "us (p50)", "-")


def starts(store):
    """A second start, with data there; and memory after a rest."""
    store.server.stop()
    times = []
    for _ in range(5):
        began = time.monotonic()
        process = subprocess.Popen(
            [store.server.coffer, "serve", "--https-port", "0", "--http-port", "28999", "--gateway-port", "0"],
            env=store.server.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        while True:
            try:
                urllib.request.urlopen("http://127.0.0.1:28999/healthz", timeout=1).read()
                break
            except OSError:
                time.sleep(0.002)
        times.append((time.monotonic() - began) * 1e3)
        time.sleep(1)
        memory = int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text()).group(1)) / 1024
        process.terminate()
        process.wait()
    row("start to ready", statistics.median(times), 500, "ms", "<= 1 (500 ms)")
    row("resident memory, idle", memory, 80, "MiB", "<= 1 (80 MiB)")


def main():
    folder = Path(os.environ.get("BENCH_FOLDER") or f"{os.getcwd()}/.build/bench-{os.getpid()}")
    folder.mkdir(parents=True)
    print(f"{'row':<58} {'coffer':>12} {'reference':>12} {'unit':<10} {'ratio':>6} least to greatest")
    try:
        against_nginx(folder)
        encryption_tax(folder)
        with Store(os.environ["COFFER"], folder) as store:
            uri = customer_keys(store)
            unwrap(store, uri)
            gate(store)
            starts(store)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
