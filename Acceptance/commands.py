#!/usr/bin/env python3
"""Runs every command of `coffer` the wrong way, and checks the exit code and that the message says what to do. usage: commands.py"""

import os
import json
import re
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent / "Scripts"
sys.path.insert(0, str(SCRIPTS))
from cofferclient import Server, service_sas, shared_key  # noqa: E402

FAILED = []
# Bytes of a blob that is no small one.
LARGE = 8 << 20
# Names of Swift's types and functions in a message help nobody.
NOISE = ("Error Domain=", "UserInfo", "descriptor:", "errno:", "NIO", "HTTPClientError", "Swift.", "Optional(", "Error(")


def check(what, condition, seen=""):
    print(("ok      " if condition else "FAILED  ") + what)
    if not condition:
        FAILED.append(what)
        print("        " + str(seen).strip().replace("\n", "\n        "))


def refused(server, code, advice, *arguments):
    """The command fails with `code`, says `advice` on stderr, and prints nothing else; `env` prints what fails an `eval`."""
    done = server.run(*arguments)
    text = done.stderr
    what = "coffer " + " ".join(arguments)
    printed = "false\n" if arguments[0] == "env" else ""
    fits = done.returncode == code and advice in text and done.stdout == printed and not any(noise in text for noise in NOISE)
    check(f"{what}: {code}, '{advice}'", fits, f"{done.returncode}: {done.stdout}{text}")


def usage(server):
    for arguments, advice in [
        (["nosuch"], "coffer --help"),
        (["serve", "--nosuch"], "coffer serve --help"),
        (["serve", "--https-port", "x"], "httpsPort is 'x'"),
        (["serve", "--address", "foo"], "--address takes an IP address"),
        (["serve", "--log-level", "loud"], "use one of"),
        (["serve", "--worker-network", "none"], "use one of isolated, host"),
        (["serve", "--package-megabytes", "0"], "packageMegabytes is '0'"),
        (["env", "--domain", "single"], "two labels"),
        (["logs"], "Missing expected argument"),
        (["logs", "app", "--lines", "0"], "1 to 10000"),
        (["verify", "surplus"], "coffer verify --help"),
        (["root-key", "protect"], "--root-key-wrapping-key"),
        (["serve", "--root-key-wrapping-key", "token"], "does not begin with 'pkcs11:'"),
        (["config", "--config-file", "/nonexistent.json"], "does not exist"),
    ]:
        refused(server, 64, advice, *arguments)
    broken = server.home / "broken.json"
    broken.write_text("{broken")
    refused(server, 64, "not valid JSON", "config", "--config-file", str(broken))
    for arguments in [[], *([name] for name in ("serve", "env", "status", "config", "verify", "logs", "root-key"))]:
        done = server.run(*arguments, "--help")
        check(f"coffer {' '.join(arguments)} --help", done.returncode == 0 and "OVERVIEW" in done.stdout, done.stderr)


def demo():
    """No server runs: what asks for help gets it, and nothing else."""
    done = subprocess.run([sys.executable, str(SCRIPTS / "demo.py"), "--help"], capture_output=True, text=True)
    check("demo.py --help", done.returncode == 0 and done.stdout.startswith("usage: demo.py") and "--keep" in done.stdout, done.stderr)
    done = subprocess.run([sys.executable, str(SCRIPTS / "demo.py"), "--nosuch"], capture_output=True, text=True)
    check("demo.py --nosuch", done.returncode == 2 and "--nosuch" in done.stderr, done.stdout)


def without_a_server(server):
    for name in (["env"], ["status"], ["logs", "app"]):
        refused(server, 1, "coffer serve", *name)
    unset = server.run("env", "--unset")
    check("coffer env --unset needs no server", unset.returncode == 0 and "HTTPS_PROXY" in unset.stdout, unset.stderr)
    refused(server, 1, "--data-folder", "verify")
    refused(server, 1, "coffer config", "serve", "--data-folder", "/proc/nowhere")
    # A key on a disk that is not there now must not be replaced by a new one.
    key = server.home / "root.key"
    key.unlink(missing_ok=True)
    key.symlink_to(server.home / "unmounted" / "root.key")
    refused(server, 1, "--root-key-file", "serve")
    check("the link to the absent key is still there", key.is_symlink())
    key.unlink()
    key.write_text("no key\n")
    key.chmod(0o600)
    refused(server, 1, "Restore it", "serve")
    key.chmod(0o640)
    refused(server, 1, "chmod 600", "serve")
    key.unlink()


def with_a_server(server):
    server.start()
    refused(server, 1, "Stop", "verify")
    refused(server, 1, "az functionapp list", "logs", "nosuch")
    refused(server, 1, "Stop that server", "serve", "--https-port", "0", "--http-port", "0", "--gateway-port", "0")
    other = Server(server.home / "other", coffer=server.coffer)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        refused(other, 1, "--https-port", "serve", "--https-port", port, "--http-port", "0", "--gateway-port", "0")
    other.start()
    env = other.run("env")
    check("a first start that found no port leaves an administrator to the next", "CLIENT_SECRET" in env.stdout, env.stderr)
    other.stop()
    environment = server.run("env").stdout
    leave = f"{environment}\n{server.run('env', '--unset').stdout}\nexport -p"
    left = subprocess.run(["sh", "-c", leave], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    check("coffer env --unset leaves nothing of coffer env", str(server.home) not in left.stdout and "CLIENT" not in left.stdout, left)
    gateway(server)
    no_logs_yet(server)
    credentials = Path(server.environment["COFFER_CREDENTIALS_FILE"])
    credentials.rename(server.home / "away.json")
    refused(server, 1, "--credentials-file", "env")
    (server.home / "away.json").rename(credentials)
    for name, mode in [("ca.pem", 0o644), ("run.json", 0o600)]:
        found = stat.S_IMODE((server.home / "data" / name).stat().st_mode)
        check(f"{name} has mode {mode:o}", found == mode, oct(found))
    check("the credentials have mode 600", stat.S_IMODE(credentials.stat().st_mode) == 0o600)
    server.kill()
    refused(server, 1, "coffer serve", "status")
    server.start()
    check("a server killed starts again", server.run("status").returncode == 0)
    content = large_blob(server.client())
    stopping(server)
    verifying(server, content)
    warnings(server)
    brackets(server)


def large_blob(client):
    """One that gets a file of its own."""
    name = f"commands{secrets.token_hex(3)}"
    group = f"{client.subscription}/resourceGroups/{name}"
    account = f"{group}/providers/Microsoft.Storage/storageAccounts/{name}"
    client.arm("PUT", group, {"location": "eastus"})
    made = client.arm("PUT", account, {"location": "eastus", "sku": {"name": "Standard_LRS"}, "kind": "StorageV2"}, version="2025-01-01")
    key = client.arm("POST", account + "/listKeys", version="2025-01-01")["keys"][0]["value"]
    blobs, sas = made["properties"]["primaryEndpoints"]["blob"], service_sas(name, key, "box")
    headers = shared_key(name, key, "PUT", "/box", {"restype": "container"})
    status = client.call("PUT", blobs + "box?restype=container", headers=headers)[0]
    check("a container is made", status == 201, status)
    content = os.urandom(LARGE)
    status = client.call("PUT", f"{blobs}box/large?{sas}", content, {"x-ms-blob-type": "BlockBlob"})[0]
    check("a large blob is written", status == 201, status)
    return content


def verifying(server, content):
    quick = server.run("verify", "--metadata-only")
    check("coffer verify --metadata-only", quick.returncode == 0 and quick.stdout.rstrip().endswith("sound"), quick.stdout + quick.stderr)
    done = server.run("verify")
    check("coffer verify", done.returncode == 0 and done.stdout.rstrip().endswith("sound"), done.stdout + done.stderr)
    found = [re.search(r"of (\d+) files \((\d+) bytes", run.stdout) for run in (quick, done)]
    (some, part), (files, whole) = ([int(number) for number in match.groups()] if match else [0, 0] for match in found)
    # The database may shrink a little between the two.
    searched = f"{part} bytes in {some} files, {whole} in {files}"
    check("--metadata-only does not search the extents", 0 < some < files and whole - part > LARGE // 2, searched)
    # The first bytes of the blob, as a careless writer would leave them: not at the start of their file.
    planted = server.home / "data/store/left"
    planted.write_bytes(os.urandom(5_000_000) + content[:100_000])
    seen = server.run("verify")
    check("plaintext in the store is found", seen.returncode == 2 and "PLAINTEXT in left\n" in seen.stdout, seen.stdout + seen.stderr)
    planted.unlink()


def ask_gateway(state, target):
    with socket.create_connection(("127.0.0.1", state["gatewayPort"]), timeout=30) as connection:
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        return connection.makefile("rb").read().decode()


def gateway(server):
    """A client that was led here by mistake finds the reason in what it prints, and its user in the log; a flood fills no log."""
    state = json.loads((server.home / "data" / "run.json").read_text())
    answer = ask_gateway(state, "example.com:443")
    line = answer.split("\r\n")[0]
    check("the gateway's refusal says why in its first line", line == "HTTP/1.1 403 example.com:443 Is Not Served By This Gateway", answer)
    check("and what to do in its body", "GatewayHostNotAllowed" in answer, answer)
    for number in range(200):
        ask_gateway(state, f"flood-{number}.example:443")
    lines = [line for line in (server.home / "log").read_text().splitlines() if "the gateway refused" in line]
    check("the log has the refusal", any("example.com:443" in line for line in lines), lines)
    check("200 more leave a few lines", len(lines) <= 30, len(lines))


def no_logs_yet(server):
    client = server.client()
    run = secrets.token_hex(3)
    group = f"{client.subscription}/resourceGroups/commands-{run}"
    plan, site = (f"{group}/providers/Microsoft.Web/{kind}" for kind in ("serverfarms/plan", f"sites/app-{run}"))
    workspace = f"{group}/providers/Microsoft.OperationalInsights/workspaces/logs-{run}"
    client.arm("PUT", group, {"location": "eastus"})
    client.arm("PUT", plan, {"location": "eastus", "kind": "functionapp", "sku": {"name": "Y1"}, "properties": {"reserved": True}})
    client.arm("PUT", site, {"location": "eastus", "kind": "functionapp,linux", "properties": {"serverFarmId": plan, "reserved": True}})
    client.arm("PUT", workspace, {"location": "eastus", "properties": {}}, version="2023-09-01")
    setting = {"workspaceId": workspace, "logs": [{"category": "FunctionAppLogs", "enabled": True}]}
    path = f"{site}/providers/microsoft.insights/diagnosticSettings/logs"
    client.arm("PUT", path, {"properties": setting}, version="2021-05-01-preview")
    done = server.run("logs", f"app-{run}")
    fits = done.returncode == 0 and not done.stdout and "has logged nothing yet" in done.stderr
    check("coffer logs of an app that has logged nothing says so", fits, f"{done.returncode}: {done.stdout}{done.stderr}")
    client.arm("DELETE", group)


def stopping(server):
    """A request under way holds up a graceful stop; meanwhile the commands say so."""
    client = server.client()
    state = json.loads((server.home / "data" / "run.json").read_text())
    host = urllib.parse.urlsplit(client.environment["AZURE_AUTHORITY_HOST"]).hostname
    with socket.create_connection(("127.0.0.1", state["httpsPort"]), timeout=30) as plain:
        with client.tls.wrap_socket(plain, server_hostname=host) as connection:
            head = f"POST /{client.tenant}/oauth2/v2.0/token HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
            connection.sendall(head.encode())
            answer = connection.recv(1_000)
            check("a request has begun", answer.startswith(b"HTTP/1.1 100 "), answer)
            server.process.terminate()
            deadline = time.monotonic() + 30
            while "is stopping" not in server.run("status").stderr and time.monotonic() < deadline:
                pass
            for name in ("status", "env", "verify"):
                refused(server, 1, "is stopping", name)
    check("the server ends once the request has", server.process.wait(timeout=60) == 0)
    refused(server, 1, "No server runs", "status")


def warnings(server):
    """What is allowed and unwise is said once, at the start."""
    log = (server.home / "log").read_text()
    check("a usual start warns of nothing", " warning " not in log, log[-2000:])
    open_key = Server(server.home / "unwise", coffer=server.coffer, options=["--address", "0.0.0.0"])
    open_key.environment["COFFER_ROOT_KEY_FILE"] = str(open_key.home / "data" / "keys" / "root.key")
    open_key.start()
    open_key.stop()
    log = (open_key.home / "log").read_text()
    check("a root key inside the data folder is warned of", log.count("the root key lies inside the data folder") == 1, log)
    check("an address of the network is warned of", log.count("the server listens beyond this machine") == 1, log)


def brackets(server):
    """An IPv6 address stands in brackets where a port follows it."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        print("left out  this machine has no ::1")
        return
    newer = Server(server.home / "newer", coffer=server.coffer, options=["--address", "::1"]).start()
    try:
        env, status = newer.run("env").stdout, newer.run("status").stdout
        check("coffer env has ::1 in brackets", "export HTTPS_PROXY='http://[::1]:" in env, env.splitlines()[:1])
        check("coffer status has ::1 in brackets", status.count(" [::1]:") == 3, status)
        check("a client gets in by it", newer.client().object_id() != "", env.splitlines()[:1])
    finally:
        newer.stop()


def main():
    server = Server()
    # The caller's own settings would decide instead.
    for name in [name for name in server.environment if name.startswith("COFFER_") and name.endswith("_PORT")]:
        del server.environment[name]
    try:
        usage(server)
        demo()
        without_a_server(server)
        with_a_server(server)
    finally:
        if server.process and server.process.poll() is None:
            server.kill()
        shutil.rmtree(server.home, ignore_errors=True)
    print(f"{len(FAILED)} failed" if FAILED else "all as promised")
    sys.exit(bool(FAILED))


if __name__ == "__main__":
    main()
