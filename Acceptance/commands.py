#!/usr/bin/env python3
"""Runs every command of `coffer` the wrong way, and checks the exit code and that the message says what to do. usage: commands.py"""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent / "Scripts"
sys.path.insert(0, str(SCRIPTS))
from cofferclient import Server  # noqa: E402

FAILED = []
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
        (["serve", "--log-level", "loud"], "use one of"),
        (["serve", "--worker-network", "none"], "use one of isolated, host"),
        (["serve", "--package-megabytes", "0"], "packageMegabytes is '0'"),
        (["env", "--domain", "single"], "two labels"),
        (["logs"], "Missing expected argument"),
        (["logs", "app", "--lines", "0"], "1 to 10000"),
        (["verify", "surplus"], "coffer verify --help"),
        (["config", "--config-file", "/nonexistent.json"], "does not exist"),
    ]:
        refused(server, 64, advice, *arguments)
    broken = server.home / "broken.json"
    broken.write_text("{broken")
    refused(server, 64, "not valid JSON", "config", "--config-file", str(broken))
    for arguments in [[], *([name] for name in ("serve", "env", "status", "config", "verify", "logs"))]:
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
    gateway(server)
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
    server.stop()
    done = server.run("verify")
    check("coffer verify", done.returncode == 0 and done.stdout.rstrip().endswith("sound"), done.stdout + done.stderr)


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
