#!/usr/bin/env python3
"""Runs a function that tries to see what it must not, and tells. usage: sandbox.py"""

import os
import io
import json
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Scripts"))
from cofferclient import Server, service_sas, shared_key  # noqa: E402

# Listens on both families, as Go, Node and .NET do unless told otherwise.
HANDLER = r'''#!/usr/bin/env python3
import json, os, socket, ssl, urllib.error, urllib.parse, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
def attempt(path):
    try:
        return open(path, "rb").read(64).decode("latin-1")
    except OSError as error:
        return type(error).__name__
def written(path):
    try:
        open(path, "w").write("x"); return True
    except OSError:
        return False
def token(header):
    request = urllib.request.Request(os.environ["IDENTITY_ENDPOINT"] + "?api-version=2019-08-01&resource=https://vault.azure.net",
                                     headers={"X-IDENTITY-HEADER": header})
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code
def status(url):
    tls = ssl.create_default_context(cafile=os.environ["COFFER_CA_FILE"])
    gateway = urllib.request.ProxyHandler({"https": os.environ["COFFER_GATEWAY"]})
    try:
        return urllib.request.build_opener(gateway, urllib.request.HTTPSHandler(context=tls)).open(url, timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return repr(error)
# A program may bind a socket to a device without any privilege: past the loopback of its own namespace.
def answer(family, kind, address, port, device):
    with socket.socket(family, kind) as end:
        end.settimeout(1)
        try:
            if device:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            end.connect((address, port)); end.send(b"GET / HTTP/1.0\r\n\r\n")
            return end.recv(64).decode("latin-1")
        except OSError:
            return ""
def reached(ports):
    gateways = [socket.inet_ntoa(bytes.fromhex(line.split()[2])[::-1]) for line in open("/proc/net/route").readlines()[1:]]
    found = []
    for port in ports:
        for device in [None] + [name for _, name in socket.if_nameindex() if name != "lo"]:
            for address in ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"] + [g for g in gateways if g != "0.0.0.0" and not device]:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    if answer(socket.AF_INET6 if ":" in address else socket.AF_INET, kind, address, port, device):
                        found.append([address, port, device, kind.name])
    return found
def look(query):
    outside = [place.split() for place in query.get("outside", [])]
    return {
        "outside": [answer(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, a, int(p), None) for a, p in outside],
        "port": int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"]), "reached": reached([int(port) for port in query.get("port", [])]),
        "statuses": [status(url) for url in query.get("url", [])], "names": [name for _, name in socket.if_nameindex()],
        "network": os.readlink("/proc/self/ns/net"),
        "authority": attempt(os.environ["COFFER_CA_FILE"]), "root": sorted(os.listdir("/")), "etc": sorted(os.listdir("/etc")),
        "user": os.getuid(), "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()],
        "descriptors": sorted(os.readlink("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")
                              if os.path.exists("/proc/self/fd/" + name)),
        "inherited": [name for name in os.environ if name.startswith("COFFER_") and name not in ("COFFER_GATEWAY", "COFFER_CA_FILE")],
        "first": attempt("/proc/1/environ"), "secrets": {path: attempt(path) for path in PATHS},
        "written": [path for path in ("/home/site/wwwroot/x", "/usr/x", "/etc/x", "/x") if written(path)],
        "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd", "CapPrm"))],
        "token": token(os.environ["IDENTITY_HEADER"]), "forged": token("0" * 64),
    }
class H(BaseHTTPRequestHandler):
    def do_GET(self):
        print("before\x1b[2J\x1b]0;owned\x07after", flush=True)
        body = json.dumps(look(urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query))).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
Server(("::", int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])), H).serve_forever()
'''


def package(paths):
    out = io.BytesIO()
    host = {"version": "2.0", "customHandler": {"description": {"defaultExecutablePath": "handler"}, "enableForwardingHttpRequest": True}}
    trigger = {"type": "httpTrigger", "authLevel": "anonymous", "direction": "in", "name": "req"}
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("host.json", json.dumps(host))
        archive.writestr("F/function.json", json.dumps({"bindings": [trigger, {"type": "http", "direction": "out", "name": "res"}]}))
        executable = zipfile.ZipInfo("handler")
        executable.external_attr = 0o755 << 16
        archive.writestr(executable, HANDLER.replace("PATHS", repr(paths)))
    return out.getvalue()


def deploy(client, paths):
    """A function app with an identity, and logs that go to a workspace. Its name and its host."""
    run = secrets.token_hex(3)
    name, group = f"sandbox{run}", f"{client.subscription}/resourceGroups/sandbox-{run}"
    client.arm("PUT", group, {"location": "eastus"})
    account_id = f"{group}/providers/Microsoft.Storage/storageAccounts/{name}"
    made = client.arm("PUT", account_id, {"location": "eastus", "sku": {"name": "Standard_LRS"}, "kind": "StorageV2"}, version="2025-01-01")
    key = client.arm("POST", account_id + "/listKeys", version="2025-01-01")["keys"][0]["value"]
    blobs, sas = made["properties"]["primaryEndpoints"]["blob"], service_sas(name, key, "box")
    headers = shared_key(name, key, "PUT", "/box", {"restype": "container"})
    assert client.call("PUT", blobs + "box?restype=container", headers=headers)[0] == 201
    assert client.call("PUT", f"{blobs}box/app.zip?{sas}", package(paths), {"x-ms-blob-type": "BlockBlob"})[0] == 201
    site, logs = f"{group}/providers/Microsoft.Web/sites/{name}", f"{group}/providers/Microsoft.OperationalInsights/workspaces/logs"
    client.arm("PUT", logs, {"location": "eastus"})
    body = {"location": "eastus", "kind": "functionapp,linux", "identity": {"type": "SystemAssigned"}, "properties": {"reserved": True}}
    host = client.arm("PUT", site, body)["properties"]["defaultHostName"]
    setting = {"workspaceId": logs, "logs": [{"category": "FunctionAppLogs", "enabled": True}]}
    client.arm("PUT", f"{site}/providers/microsoft.insights/diagnosticSettings/d", {"properties": setting})
    client.arm("PUT", f"{site}/config/appsettings", {"properties": {"WEBSITE_RUN_FROM_PACKAGE": f"{blobs}box/app.zip?{sas}"}})
    return name, host, blobs


class Listener:
    """Listens on addresses of the machine, with an answer for whoever comes, and counts them."""

    def __init__(self, *addresses):
        self.port, self.visits, self.ends = 0, [], []
        for address in addresses:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                end = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
                end.bind((address, self.port))
                self.port = end.getsockname()[1]
                if kind == socket.SOCK_STREAM:
                    end.listen()
                self.ends.append(end)
                threading.Thread(target=self.answer, args=(end, kind), daemon=True).start()

    def answer(self, end, kind):
        while True:
            if kind == socket.SOCK_STREAM:
                visitor, peer = end.accept()
                self.visits.append((kind.name, peer))
                visitor.sendall(b"found")
                visitor.close()
            else:
                peer = end.recvfrom(64)[1]
                self.visits.append((kind.name, peer))
                end.sendto(b"found", peer)


def processes_of(server):
    """Processes below the server: number and name."""
    found, rest = {}, [server.process.pid]
    while rest:
        for task in Path(f"/proc/{rest.pop()}/task").glob("*/children"):
            for child in task.read_text().split():
                found[int(child)] = Path(f"/proc/{child}/comm").read_text().strip()
                rest.append(int(child))
    return found


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def network(client, server, host, check):
    """What one app's worker reaches: of another app, of the machine, of Coffer."""
    other, other_host, blobs = deploy(client, [])
    seen = wait_for(client, other_host)
    check("a second app serves beside it", bool(seen), seen)
    port = seen.get("port", 0)
    machine = Listener("127.0.0.1", "::1")
    for target in (port, machine.port):
        with socket.create_connection(("127.0.0.1", target), timeout=5) as visit:
            visit.sendall(b"GET / HTTP/1.0\r\n\r\n")
            check(f"the machine itself reaches port {target}", visit.recv(1) != b"", target)
    machine.visits.clear()
    urls = [f"{blobs}box?restype=container&comp=list", f"https://{other}.vault.coffer.localhost/secrets?api-version=7.4"]
    query = urllib.parse.urlencode([("port", port), ("port", machine.port)] + [("url", url) for url in urls])
    data = client.call("GET", f"https://{host}/api/F?{query}")[2]
    seen = json.loads(data)
    check("it reaches neither another app's handler nor the machine's loopback", seen["reached"] == [], seen["reached"])
    check("nothing of it arrives there either", machine.visits == [], machine.visits)
    check("it has a network of its own", seen["network"] != os.readlink("/proc/self/ns/net"), seen["network"])
    check("it has a way out of it", len(seen["names"]) > 1, seen["names"])
    check("it reaches Coffer's blobs and vaults by name", all(s in (401, 403, 404, 409) for s in seen["statuses"]), seen["statuses"])


def ip(*arguments):
    """What ip(8) prints; None where it is missing or may not."""
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def way_out(client, host, check):
    """What is not loopback is reached. The machine gets an address for this: those it has, the worker's network takes over."""
    for family, address, length in (("-4", "198.51.100.1", 32), ("-6", "2001:db8::1", 128)):
        # Some have one that says "unreachable".
        if not (ip(family, "route", "show", "default") or "").startswith("default"):
            print(f"left out  no default route ({family}), so none for a worker")
            continue
        if ip("address", "add", f"{address}/{length}", "dev", "lo") is None:
            print(f"left out  {address} cannot be given to this machine for a while: only root may")
            continue
        try:
            machine = Listener(address)
            query = urllib.parse.urlencode({"outside": f"{address} {machine.port}"})
            data = client.call("GET", f"https://{host}/api/F?{query}")[2]
            # Whether the answer or the end of the connection comes first is not what is asked here.
            check(f"it reaches the machine's address {address}", machine.visits != [], data)
        finally:
            ip("address", "del", f"{address}/{length}", "dev", "lo")


def wait_for(client, host):
    """What the worker tells once it serves; nothing if it does not."""
    for _ in range(60):
        status, _, data = client.call("GET", f"https://{host}/api/F")
        if status == 200:
            return json.loads(data)
        time.sleep(0.5)
    print(f"        {data[:600]}")
    return {}


def main():
    server = Server().start()
    failed = []

    def check(what, condition, seen):
        print(("ok      " if condition else "FAILED  ") + what)
        if not condition:
            failed.append(what)
            print(f"        {str(seen)[:600]}")

    try:
        client = server.client()
        paths = [server.environment[name] for name in ("COFFER_ROOT_KEY_FILE", "COFFER_CREDENTIALS_FILE")]
        paths += [server.environment["COFFER_DATA_FOLDER"] + "/run.json", "/etc/shadow", "/etc/passwd", os.path.expanduser("~/.bashrc")]
        name, host, _ = deploy(client, paths)
        seen = wait_for(client, host)
        check("a handler that listens on both families serves", bool(seen), seen)
        check("the worker reads the certificate authority", "BEGIN CERTIFICATE" in seen.get("authority", ""), seen.get("authority"))
        unread = all(value in ("FileNotFoundError", "PermissionError", "NotADirectoryError") for value in seen["secrets"].values())
        check("it reads neither Coffer's files nor the machine's", unread, seen["secrets"])
        check("it writes nowhere but in its memory", not seen["written"], seen["written"])
        check("it sees its own processes only", max(seen["processes"]) < 100 and len(seen["processes"]) < 10, seen["processes"])
        closed = [link for link in seen["descriptors"] if not link.startswith(("/dev/null", "pipe:", "socket:", "/proc/"))]
        check("it inherits no descriptors", not closed and len(seen["descriptors"]) < 9, seen["descriptors"])
        check("it inherits none of Coffer's settings", not seen["inherited"], seen["inherited"])
        check("its first process holds no secret", "COFFER" not in seen["first"] and "KEY" not in seen["first"], seen["first"])
        check("it is not root and holds no capability", seen["user"] != 0 and not any(int(c, 16) for c in seen["capabilities"]), seen)
        check("its identity endpoint answers to its own header only", (seen["token"], seen["forged"]) == (200, 401), seen)
        network(client, server, host, check)
        way_out(client, host, check)
        for _ in range(50):
            printed = server.run("logs", name).stdout
            if "before" in printed:
                break
            time.sleep(0.2)
        check("coffer logs prints no control characters", "before" in printed and "\x1b" not in printed and "\x07" not in printed, repr(printed[-300:]))
        log = (server.home / "log").read_text()
        check("the server's own work left no errors", " error " not in log, log[-600:])
        left = processes_of(server)
        check("both workers run below the server", sum(name.startswith("pas") for name in left.values()) == 2, left)
        groups = [str(group) for folder in ("", "memory/") for group in Path("/sys/fs/cgroup").glob(f"{folder}coffer-{name}-*")]
        server.stop()
        # Without a group to wait for, a worker's last processes may take a moment more.
        if groups:
            left = [process for process in left if is_alive(process)] + [group for group in groups if os.path.exists(group)]
            check("a server that stops leaves neither processes nor groups", not left, left)
        server.start()
        check("a worker starts again", bool(wait_for(server.client(), host)), host)
        left = processes_of(server)
        server.kill()
        for _ in range(50):
            left = {process: name for process, name in left.items() if is_alive(process)}
            if not left:
                break
            time.sleep(0.1)
        check("a killed server leaves no process of a worker", not left, left)
    finally:
        server.kill()
        shutil.rmtree(server.home, ignore_errors=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
