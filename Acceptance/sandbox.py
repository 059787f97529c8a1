#!/usr/bin/env python3
"""Runs a function that tries to see what it must not, and tells. usage: sandbox.py"""

import os
import io
import json
import secrets
import shutil
import sys
import time
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Scripts"))
from cofferclient import Server, service_sas, shared_key  # noqa: E402

# Listens on both families, as Go, Node and .NET do unless told otherwise.
HANDLER = r'''#!/usr/bin/env python3
import json, os, socket, subprocess, urllib.error, urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
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
def look():
    return {
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
        body = json.dumps(look()).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
class Server(HTTPServer):
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
    return name, host


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
        name, host = deploy(client, paths)
        for _ in range(60):
            status, _, data = client.call("GET", f"https://{host}/api/F")
            if status == 200:
                break
            time.sleep(0.5)
        check("a handler that listens on both families serves", status == 200, data)
        seen = json.loads(data) if status == 200 else {}
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
        for _ in range(50):
            printed = server.run("logs", name).stdout
            if "before" in printed:
                break
            time.sleep(0.2)
        check("coffer logs prints no control characters", "before" in printed and "\x1b" not in printed and "\x07" not in printed, repr(printed[-300:]))
        log = (server.home / "log").read_text()
        check("the server's own work left no errors", " error " not in log, log[-600:])
    finally:
        server.kill()
        shutil.rmtree(server.home, ignore_errors=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
