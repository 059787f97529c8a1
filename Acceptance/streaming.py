#!/usr/bin/env python3
"""A blob many times larger than what the server may hold of it goes up and comes down over https, sealed and opened on its way; the
server's memory stays flat. usage: streaming.py [MEBIBYTES]"""

import http.client
import json
import os
import re
import secrets
import shutil
import sys
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Scripts"))
from cofferclient import Server, service_sas, shared_key  # noqa: E402

MEBIBYTES = int(sys.argv[1]) if len(sys.argv) > 1 else 384
# Of memory, beyond what the server took before; both ways together.
MOST = 64 << 20


def container(client):
    """An account with a container: its URL, and a SAS for it."""
    name = f"streaming{secrets.token_hex(3)}"
    group = f"{client.subscription}/resourceGroups/{name}"
    account = f"{group}/providers/Microsoft.Storage/storageAccounts/{name}"
    client.arm("PUT", group, {"location": "eastus"})
    made = client.arm("PUT", account, {"location": "eastus", "sku": {"name": "Standard_LRS"}, "kind": "StorageV2"}, version="2025-01-01")
    key = client.arm("POST", account + "/listKeys", version="2025-01-01")["keys"][0]["value"]
    blobs = made["properties"]["primaryEndpoints"]["blob"]
    headers = shared_key(name, key, "PUT", "/box", {"restype": "container"})
    assert client.call("PUT", blobs + "box?restype=container", headers=headers)[0] == 201
    return blobs + "box", service_sas(name, key, "box")


def mebibyte(number, filling):
    """One that stands in its own place only."""
    return number.to_bytes(8, "big") + filling


def connection(client, url):
    made = http.client.HTTPSConnection(client.gateway.hostname, client.gateway.port, context=client.tls, timeout=300)
    parts = urllib.parse.urlsplit(url)
    made.set_tunnel(parts.hostname, parts.port or 443)
    return made


def most_memory(server):
    """The most that the server ever held, in bytes."""
    pid = json.loads((server.home / "data/run.json").read_text())["pid"]
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()).group(1)) << 10


def main():
    server = Server().start()
    try:
        client = server.client()
        url, sas = container(client)
        target = f"{urllib.parse.urlsplit(url).path}/large?{sas}"
        filling = os.urandom((1 << 20) - 8)
        before = most_memory(server)
        up = connection(client, url)
        headers = {"x-ms-blob-type": "BlockBlob", "Content-Length": str(MEBIBYTES << 20)}
        up.request("PUT", target, (mebibyte(number, filling) for number in range(MEBIBYTES)), headers)
        status = up.getresponse().status
        assert status == 201, status
        after_up = most_memory(server)
        down = connection(client, url)
        down.request("GET", target)
        answer = down.getresponse()
        for number in range(MEBIBYTES):
            assert answer.read(1 << 20) == mebibyte(number, filling), f"mebibyte {number} is another one"
        assert answer.read() == b""
        grown = most_memory(server) - before
        print(f"{MEBIBYTES} MiB up and down: {(after_up - before) >> 20} and {grown >> 20} MiB of memory more than before")
        assert grown < MOST, "that is not flat"
    finally:
        server.stop()
        shutil.rmtree(server.home, ignore_errors=True)


main()
