#!/usr/bin/env python3
"""Writes the test vectors of docs/format.md: an implementation of its own, from the document, in Python.

    Scripts/format-vectors.py           writes Tests/EncryptionAtRestTests/Vectors/format-v1.json
                                        and Tests/EmbeddedEngineTests/Vectors/pages.json
    Scripts/format-vectors.py --check   fails when the files are not what would be written

Needs the package `cryptography`. All randomness is derived from the vectors' names, so the file is always the same.
"""

import hashlib
import hmac
import json
import pathlib
import struct
import sys
import zlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TESTS = pathlib.Path(__file__).resolve().parent.parent / "Tests"


# --- primitives (§1) ---------------------------------------------------------------------------------------------


def fields(label: str, *values: bytes) -> bytes:
    """A field list: each field behind its length."""
    return b"".join(struct.pack(">I", len(v)) + v for v in (label.encode(), *values))


def hkdf(secret: bytes, info: bytes, length: int, salt: bytes = b"") -> bytes:
    prk = hmac.new(salt or bytes(32), secret, hashlib.sha256).digest()
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        out += block
        counter += 1
    return out[:length]


def aes_block(key: bytes, block: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b))


def xaes_key(key: bytes, nonce: bytes) -> bytes:
    l = int.from_bytes(aes_block(key, bytes(16)), "big")
    k1 = ((l << 1) & (2**128 - 1)) ^ (0x87 if l >> 127 else 0)
    k1 = k1.to_bytes(16, "big")
    return b"".join(aes_block(key, xor(bytes([0, i, 0x58, 0]) + nonce[:12], k1)) for i in (1, 2))


def xaes_seal(key: bytes, nonce: bytes, plaintext: bytes, additional: bytes) -> bytes:
    return nonce + AESGCM(xaes_key(key, nonce)).encrypt(nonce[12:], plaintext, additional)


def xaes_open(key: bytes, sealed: bytes, additional: bytes) -> bytes:
    nonce = sealed[:24]
    return AESGCM(xaes_key(key, nonce)).decrypt(nonce[12:], sealed[24:], additional)


def draw(name: str, count: int) -> bytes:
    return hashlib.shake_256(name.encode()).digest(count)


# --- formats -----------------------------------------------------------------------------------------------------


def root_seal(root, label_info: bytes, bound: list, plaintext: bytes, nonce: bytes) -> bytes:
    key, version = root
    header = b"\x01\x01" + struct.pack(">I", version)
    return header + xaes_seal(hkdf(key, label_info, 32), nonce, plaintext, fields(*bound, header))


class DataKey:
    def __init__(self, key: bytes, kind: int, account: bytes, scope: str = ""):
        self.key, self.kind, self.account, self.scope = key, kind, account, scope
        label = {1: "coffer/v1/account-data", 2: "coffer/v1/customer-provided-data", 3: "coffer/v1/scope-data"}[kind]
        derived = hkdf(key, fields(label, *self.place()), 112)
        self.rows, self.inline, self.domain, self.commitment = derived[:32], derived[32:64], derived[64:80], derived[80:]

    def place(self) -> list:
        return [self.account, self.scope.encode()] if self.scope else [self.account]

    def head(self) -> bytes:
        return bytes([1, 1, self.kind]) + self.domain

    def json(self):
        return {"account": self.account.hex(), "kind": self.kind, "scope": self.scope, "key": self.key.hex()}


def sealed_part(key: DataKey, partition: bytes, row_key: bytes, plaintext: bytes, nonce: bytes, bodies: list = []) -> bytes:
    beside = [b"".join(bodies)] if bodies else []
    bound = fields("coffer/v1/sealed-part", key.account, partition, row_key, key.head(), *beside)
    return key.head() + xaes_seal(key.rows, nonce, plaintext, bound)


def wrapped_extent_key(key: DataKey, extent: bytes, dek: bytes, salt: bytes) -> bytes:
    derived = hkdf(key.key, fields("coffer/v1/extent-key", key.account, extent), 64, salt)
    head = key.head() + salt + derived[32:]
    bound = fields("coffer/v1/extent-key", key.account, extent, head)
    return head + AESGCM(derived[:32]).encrypt(bytes(12), dek, bound)


def extent_header(key: DataKey, extent: bytes, k: int) -> bytes:
    bytes_ = b"XE01" + bytes([1, 1, k, 0]) + extent + key.account + key.domain + bytes(4)
    return bytes_ + struct.pack(">I", zlib.crc32(bytes_))


def chunk_parameters(key: DataKey, extent: bytes, k: int, index: int, total):
    nonce = bytes(7) + bytes([0 if total is None else 1]) + struct.pack(">I", index)
    bound = b"extent/v1" + b"\x01" + key.account + key.domain + extent + bytes([k]) + struct.pack(">I", index)
    return nonce, bound + (b"" if total is None else struct.pack(">Q", total))


def extent_seal(key: DataKey, extent: bytes, dek: bytes, k: int, plaintext: bytes) -> bytes:
    size, out = 1 << k, extent_header(key, extent, k)
    count = max(1, -(-len(plaintext) // size))
    for index in range(count):
        total = len(plaintext) if index == count - 1 else None
        nonce, bound = chunk_parameters(key, extent, k, index, total)
        out += AESGCM(dek).encrypt(nonce, plaintext[index * size : (index + 1) * size], bound)
    return out


def extent_open(key: DataKey, extent: bytes, dek: bytes, k: int, total: int, sealed: bytes) -> bytes:
    size = 1 << k
    count = max(1, -(-total // size))
    if sealed[:64] != extent_header(key, extent, k) or len(sealed) != 64 + total + 16 * count:
        raise InvalidTag
    out = b""
    for index in range(count):
        nonce, bound = chunk_parameters(key, extent, k, index, total if index == count - 1 else None)
        out += AESGCM(dek).decrypt(nonce, sealed[64 + index * (size + 16) :][: min(size, total - index * size) + 16], bound)
    return out


def field16(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def optional(text) -> bytes:
    return b"\x00" if text is None else b"\x01" + field16(text.encode())


# --- vectors -----------------------------------------------------------------------------------------------------

ROOT = (draw("root key", 32), 1)
ACCOUNT = draw("account", 16)
AEK = DataKey(draw("account key", 32), 1, ACCOUNT)
CPK = DataKey(draw("customer-provided key", 32), 2, ACCOUNT)
SCOPE = DataKey(draw("scope key", 32), 3, ACCOUNT, "contoso-scope")


def flip(sealed: bytes, bit: int) -> bytes:
    out = bytearray(sealed)
    out[bit // 8] ^= 1 << (bit % 8)
    return bytes(out)


def xaes_vectors():
    published = [
        (b"\x01" * 32, b"ABCDEFGHIJKLMNOPQRSTUVWX", b"XAES-256-GCM", b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (b"\x03" * 32, b"ABCDEFGHIJKLMNOPQRSTUVWX", b"XAES-256-GCM", b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ]
    out = []
    for key, nonce, plaintext, additional, expected in published:
        sealed = xaes_seal(key, nonce, plaintext, additional)
        assert sealed[24:].hex() == expected, "the published vectors of C2SP"
        out.append((key, nonce, plaintext, additional, sealed))
    for count in (0, 1, 1000):
        name = f"xaes {count}"
        key, nonce, plaintext = draw(name + " key", 32), draw(name + " nonce", 24), draw(name, count)
        out.append((key, nonce, plaintext, b"additional", xaes_seal(key, nonce, plaintext, b"additional")))
    return [
        {"key": k.hex(), "random": n.hex(), "plaintext": p.hex(), "additional": a.hex(), "sealed": s.hex()} for k, n, p, a, s in out
    ]


def derivation_vectors():
    out = []
    # The last: another scope's name makes another domain of the same key.
    for key in (AEK, CPK, SCOPE, DataKey(SCOPE.key, 3, ACCOUNT, "contoso-other")):
        out.append(
            {**key.json(), "rows": key.rows.hex(), "inline": key.inline.hex(), "domain": key.domain.hex(), "commitment": key.commitment.hex()}
        )
    return {
        "rootKey": ROOT[0].hex(),
        "metadataPages": hkdf(ROOT[0], fields("coffer/v1/metadata-pages"), 32).hex(),
        "dataKeys": out,
    }


def record_vectors():
    out = []

    def add(name, expect, domain, partition, key, value, sealed, nonce=b"", root=ROOT):
        out.append(
            {
                "name": name, "expect": expect, "rootKey": root[0].hex(), "rootKeyVersion": root[1], "domain": domain,
                "partition": partition, "key": key, "value": value.hex(), "random": nonce.hex(), "sealed": sealed.hex(),
            }
        )

    def seal(domain, partition, key, value, nonce):
        info = fields("coffer/v1/records", domain.encode(), partition.encode())
        return root_seal(ROOT, info, ["coffer/v1/record", domain.encode(), partition.encode(), key.encode()], value, nonce)

    for name, where, value in (
        ("a value", ("vault", "vault-1", "secrets/a"), b"a secret"),
        ("an empty value, empty names", ("identity", "", ""), b""),
        ("text beyond ASCII", ("sites", "größe", "キー"), bytes(range(256))),
    ):
        nonce = draw(name, 24)
        add(name, "opens", *where, value, seal(*where, value, nonce), nonce)
    value, nonce = b"a secret", draw("a value", 24)
    good = seal("vault", "vault-1", "secrets/a", value, nonce)
    place = ("vault", "vault-1", "secrets/a")
    add("the last bit of the tag", "corrupt: not authentic", *place, b"", flip(good, len(good) * 8 - 1))
    add("the first bit of the nonce", "corrupt: not authentic", *place, b"", flip(good, 6 * 8))
    add("another key", "corrupt: not authentic", "vault", "vault-1", "secrets/b", b"", good)
    add("another partition", "corrupt: not authentic", "vault", "vault-2", "secrets/a", b"", good)
    add("another domain", "corrupt: not authentic", "sites", "vault-1", "secrets/a", b"", good)
    add("the boundary of two fields moved", "corrupt: not authentic", "vault", "vault-1s", "ecrets/a", b"", good)
    add("another root key", "corrupt: not authentic", *place, b"", good, root=(draw("another root", 32), 1))
    add("another root key version", "corrupt: root key version", *place, b"", good, root=(ROOT[0], 2))
    add("an unknown version", "corrupt: unknown format", *place, b"", b"\x02" + good[1:])
    add("an unknown algorithm", "corrupt: unknown format", *place, b"", good[:1] + b"\x02" + good[2:])
    add("cut by one", "corrupt: not authentic", *place, b"", good[:-1])
    add("one byte short of the least", "corrupt: unknown format", *place, b"", good[:45])
    add("nothing", "corrupt: unknown format", *place, b"", b"")
    return out


def account_key_vectors():
    out = []
    platform_key = hkdf(ROOT[0], fields("coffer/v1/platform", ACCOUNT), 32)
    wrap_nonce = draw("platform wrap", 24)

    def wrap(key):
        wrapping_key = hkdf(ROOT[0], fields("coffer/v1/platform", *key.place()), 32)
        return xaes_seal(wrapping_key, wrap_nonce, key.key, fields("coffer/v1/platform-wrap", *key.place(), key.commitment))

    wrapped = wrap(AEK)

    def record(state, generation, micros, wrapping, key=AEK):
        return bytes([1, state]) + struct.pack(">Q", generation) + key.commitment + struct.pack(">q", micros) + wrapping

    def seal(plaintext, slot, nonce, key=AEK):
        row_key = ACCOUNT + key.scope.encode() + slot
        return root_seal(
            ROOT, fields("coffer/v1/account-key-records"), ["coffer/v1/account-key-record", row_key], plaintext, nonce
        )

    customer = (
        b"\x02" + field16(b"https://vault1.vault.azure.net/") + field16(b"cmk") + optional(None) + field16(b"managedIdentity")
        + field16(b"11111111-1111-1111-1111-111111111111") + field16(b"22222222-2222-2222-2222-222222222222") + optional("app")
        + field16(b"https://vault1.vault.azure.net/keys/cmk/v1") + field16(draw("rsa", 256))
    )
    platform = b"\x01" + wrapped

    def add(name, expect, plaintext, slot, sealed=None, nonce=b"", key=AEK):
        nonce = nonce or draw(name, 24)
        out.append(
            {
                "name": name, "expect": expect, "account": ACCOUNT.hex(), "scope": key.scope, "slot": slot.decode(),
                "plaintext": plaintext.hex(), "random": nonce.hex(), "sealed": (sealed or seal(plaintext, slot, nonce, key)).hex(),
                "accountKey": key.key.hex(),
            }
        )

    active = record(1, 1, 1_700_000_000_000_000, platform)
    add("wrapped by the platform", "opens", active, b"A")
    add("wrapped by a customer's key", "decodes", record(1, 7, 1_700_000_000_000_000, customer), b"B")
    add("prepared only", "corrupt: no active slot", record(2, 2, 0, platform), b"B")
    add("a trailing byte", "corrupt: unknown format", active + b"\x00", b"A")
    add("an unknown state", "corrupt: unknown format", record(3, 1, 0, platform), b"A")
    add("an unknown source", "corrupt: unknown format", record(1, 1, 0, b"\x03" + wrapped), b"A")
    add("text that is not UTF-8", "corrupt: unknown format", record(1, 1, 0, b"\x02" + field16(b"\xff") + customer[34:]), b"A")
    add("the other slot's", "corrupt: not authentic", active, b"B", seal(active, b"A", draw("x", 24)))
    wrong = active[:10] + flip(AEK.commitment, 0) + active[42:]
    add("another commitment", "corrupt: wrong key", wrong, b"A")
    scoped = record(1, 1, 1_700_000_000_000_000, b"\x01" + wrap(SCOPE), SCOPE)
    add("a scope's, wrapped by the platform", "opens", scoped, b"A", key=SCOPE)
    add("the account's record as a scope's", "corrupt: not authentic", active, b"A", seal(active, b"A", draw("y", 24)), key=SCOPE)
    add("the account's wrapping as a scope's", "corrupt: wrong key", active, b"A", key=SCOPE)
    return {"platformKey": platform_key.hex(), "platformWrapRandom": wrap_nonce.hex(), "platformWrapped": wrapped.hex(), "records": out}


def inline_body(name: str, key: DataKey, plaintext: bytes):
    """What is drawn, the reference with the body inside (form 2), the body beside (§8.2), and the reference to it (form 3)."""
    extent, nonce = draw(name, 16), draw(name + " nonce", 24)
    head = bytes([key.kind]) + key.domain
    length = struct.pack(">Q", len(plaintext))
    sealed = head + xaes_seal(key.inline, nonce, plaintext, fields("coffer/v1/inline-extent", key.account, head, extent, length))
    beside = b"\x01" + extent + length[4:] + sealed
    return extent + nonce, b"\x01\x02" + extent + length + sealed, beside, b"\x01\x03" + extent + length


def volume_vectors():
    rows, parts = [], []
    rows_info = fields("coffer/v1/volume-rows", ACCOUNT)

    def seal_row(partition, row_key, plaintext, nonce):
        return root_seal(ROOT, rows_info, ["coffer/v1/volume-row", ACCOUNT, partition.encode(), row_key], plaintext, nonce)

    def frame(value, bodies, length=None):
        return b"\x02" + struct.pack(">I", len(value) if length is None else length) + value + bodies

    def add_row(name, expect, partition, row_key, visible, sealed, row=None, bodies=b""):
        nonce = draw(name, 24)
        plaintext = b"\x01" + struct.pack(">I", len(visible)) + visible + sealed
        value = row or seal_row(partition, b"d" + row_key, plaintext, nonce)
        rows.append(
            {
                "name": name, "expect": expect, "partition": partition, "key": row_key.hex(), "visible": visible.hex(),
                "sealedPart": sealed.hex(), "bodies": bodies.hex(), "random": nonce.hex(),
                "sealed": (frame(value, bodies) if bodies else value).hex(),
            }
        )

    add_row("both parts", "opens", "container-1", b"blob\x00v1", b"visible", b"sealed part")
    add_row("no parts, the account's partition", "opens", "", b"", b"", b"")
    add_row("small bodies beside", "opens", "container-1", b"blob\x00v2", b"visible", b"sealed part", bodies=inline_body("beside", AEK, b"small")[2])
    nonce = draw("r", 24)
    empty = seal_row("c", b"d1", b"\x01\0\0\0\0", nonce)
    add_row("a frame with nothing beside", "corrupt: unknown format", "c", b"1", b"", b"", frame(empty, b""))
    add_row("a frame longer than the row", "corrupt: unknown format", "c", b"1", b"", b"", frame(empty, b"body", len(empty) + 5))
    add_row("a frame that cuts the value", "corrupt: not authentic", "c", b"1", b"", b"", frame(empty, b"", len(empty) - 1))
    add_row("another row", "corrupt: not authentic", "c", b"2", b"", b"", seal_row("c", b"d1", b"\x01\0\0\0\0", nonce))
    add_row("a link row's seal", "corrupt: not authentic", "c", b"1", b"", b"", seal_row("c", b"l1", b"\x01\0\0\0\0", nonce))
    add_row("a length beyond the end", "corrupt: unknown format", "c", b"1", b"", b"", seal_row("c", b"d1", b"\x01\0\0\0\x01", nonce))
    add_row("an unknown version", "corrupt: unknown format", "c", b"1", b"", b"", seal_row("c", b"d1", b"\x02\0\0\0\0", nonce))

    def add_part(name, expect, key, partition, row_key, plaintext, sealed, nonce=b"", bodies=()):
        parts.append(
            {
                "name": name, "expect": expect, **key.json(), "partition": partition, "rowKey": row_key.hex(),
                "plaintext": plaintext.hex(), "random": nonce.hex(), "sealed": sealed.hex(), "bodies": [b.hex() for b in bodies],
            }
        )

    for name, key in (("under the account's key", AEK), ("under a customer-provided key", CPK), ("under a scope's key", SCOPE)):
        nonce = draw(name, 24)
        add_part(name, "opens", key, "c", b"k", b"manifest", sealed_part(key, b"c", b"k", b"manifest", nonce), nonce)
    good = sealed_part(AEK, b"c", b"k", b"manifest", draw("under the account's key", 24))
    nonce, ids = draw("with bodies", 24), [draw("first body", 16), draw("second body", 16)]
    beside = sealed_part(AEK, b"c", b"k", b"manifest", nonce, ids)
    add_part("with two bodies beside", "opens", AEK, "c", b"k", b"manifest", beside, nonce, ids)
    add_part("the bodies in another order", "corrupt: not authentic", AEK, "c", b"k", b"", beside, bodies=ids[::-1])
    add_part("a body left out", "corrupt: not authentic", AEK, "c", b"k", b"", beside, bodies=ids[:1])
    add_part("bodies beside a part without", "corrupt: not authentic", AEK, "c", b"k", b"", good, bodies=ids)
    add_part("another row key", "corrupt: not authentic", AEK, "c", b"l", b"", good)
    add_part("another partition", "corrupt: not authentic", AEK, "d", b"k", b"", good)
    add_part("a flipped bit", "corrupt: not authentic", AEK, "c", b"k", b"", flip(good, 8 * 50))
    add_part("the customer's key for the account's", "keyMismatch", CPK, "c", b"k", b"", good)
    add_part("the account's key brought by a customer", "keyMismatch", DataKey(AEK.key, 2, ACCOUNT), "c", b"k", b"", good)
    add_part("an unknown algorithm", "corrupt: unknown format", AEK, "c", b"k", b"", good[:1] + b"\x02" + good[2:])
    return {"account": ACCOUNT.hex(), "rows": rows, "sealedParts": parts}


def pattern(length: int) -> bytes:
    return bytes((i * 31 + (i >> 8) * 7 + 5) & 0xFF for i in range(length))


def extent_vectors():
    wrapped, extents = [], []
    for name, key in (("wrapped under the account's key", AEK), ("wrapped under a customer-provided key", CPK), ("wrapped under a scope's key", SCOPE)):
        extent, dek, salt = draw(name, 16), draw(name + " dek", 32), draw(name + " salt", 32)
        sealed = wrapped_extent_key(key, extent, dek, salt)

        def add(case, expect, sealed, extent=extent, key=key):
            wrapped.append({"name": f"{name}: {case}", "expect": expect, **key.json(), "extentID": extent.hex(), "dek": dek.hex(), "wrapped": sealed.hex()})

        add("as it is", "opens", sealed)
        add("another extent's", "corrupt: not authentic", sealed, extent=draw("x", 16))
        add("the commitment changed", "corrupt: not authentic", flip(sealed, 8 * 60))
        add("the key changed", "corrupt: not authentic", flip(sealed, 8 * 90))
        add("another key", "keyMismatch", sealed, key=CPK if key is AEK else AEK)
        add("cut", "corrupt: unknown format", sealed[:-1])

    for name, key, length, k in (
        ("empty", AEK, 0, 14), ("one byte", AEK, 1, 14), ("one chunk exactly", AEK, 16384, 14), ("two chunks", CPK, 16385, 14),
        ("three chunks", AEK, 40000, 14), ("large chunks", AEK, 65536 * 2 + 9, 16),
    ):
        extent, dek, salt = draw(name, 16), draw(name + " dek", 32), draw(name + " salt", 32)
        plaintext = pattern(length)
        sealed = extent_seal(key, extent, dek, k, plaintext)
        assert extent_open(key, extent, dek, k, length, sealed) == plaintext
        forgeries, size = [], (1 << k) + 16

        def forge(case, forged, total=length):
            try:
                extent_open(key, extent, dek, k, total, forged)
                raise SystemExit(f"{name}: {case} opened")
            except InvalidTag:
                pass
            forgeries.append({"name": case, "expect": "corrupt", "plaintextBytes": total, "sha256": hashlib.sha256(forged).hexdigest()})
            return forged

        chunks = [sealed[64 + i : 64 + i + size] for i in range(0, len(sealed) - 64, size)]
        edits = []

        def edit(case, how, forged, total=length):
            forge(case, forged, total)
            edits.append({**forgeries[-1], **how})

        edit("a bit of the header", {"flipBit": 8 * 8}, flip(sealed, 64))
        edit("the last bit of the last tag", {"flipBit": len(sealed) * 8 - 1}, flip(sealed, len(sealed) * 8 - 1))
        if len(chunks) > 1:
            edit("the last chunk missing", {"chunks": list(range(len(chunks) - 1))}, sealed[:64] + b"".join(chunks[:-1]), (len(chunks) - 1) << k)
        if len(chunks) > 2:
            order = [1, 0] + list(range(2, len(chunks)))
            edit("two chunks swapped", {"chunks": order}, sealed[:64] + b"".join(chunks[i] for i in order))
            order = [0] + list(range(2, len(chunks)))
            edit("a chunk left out", {"chunks": order}, sealed[:64] + b"".join(chunks[i] for i in order), length - (1 << k))
        reference = (
            b"\x01\x01" + extent + struct.pack(">Q", length) + bytes([k, 8]) + struct.pack(">Q", 1) + wrapped_extent_key(key, extent, dek, salt)
        )
        vector = {
            "name": name, **key.json(), "log2ChunkBytes": k, "plaintextBytes": length, "random": (extent + dek + salt).hex(),
            "header": sealed[:64].hex(), "sealedBytes": len(sealed), "sealedSHA256": hashlib.sha256(sealed).hexdigest(),
            "referenceAtLocation1": reference.hex(), "forgeries": edits,
        }
        if len(sealed) < 200:
            vector["sealed"] = sealed.hex()
        extents.append(vector)

    inline = []
    for name, key, plaintext in (("inline, empty", AEK, b""), ("inline, small", AEK, b"small body"), ("inline, largest", CPK, pattern(16384))):
        random, inside, beside, reference = inline_body(name, key, plaintext)
        vector = {
            "name": name, **key.json(), "plaintextBytes": len(plaintext), "random": random.hex(), "reference": reference.hex(),
            "bodySHA256": hashlib.sha256(beside).hexdigest(),
        }
        if len(plaintext) < 100:
            vector["plaintext"], vector["body"], vector["referenceWithBodyInside"] = plaintext.hex(), beside.hex(), inside.hex()
        inline.append(vector)
    return {"pattern": "(i * 31 + (i >> 8) * 7 + 5) & 255", "wrappedKeys": wrapped, "extents": extents, "inline": inline}


def reference_vectors():
    """Encodings a decoder must refuse."""
    extent = draw("reference", 16)
    wrapped = wrapped_extent_key(AEK, extent, draw("dek", 32), draw("salt", 32))

    def reference(version=1, form=1, length=100, k=14, location=b"location", wrapped=wrapped):
        return bytes([version, form]) + extent + struct.pack(">Q", length) + bytes([k, len(location)]) + location + wrapped

    cases = [
        ("as it is", "decodes", reference()),
        ("a trailing byte", "refused", reference() + b"\0"),
        ("an unknown version", "refused", reference(version=2)),
        ("an unknown form", "refused", reference(form=4)),
        ("a length beyond the limit", "refused", reference(length=(1 << 45) + 1)),
        ("the largest length", "decodes", reference(length=1 << 45)),
        ("an unknown chunk size", "refused", reference(k=15)),
        ("no location", "refused", reference(location=b"")),
        ("a location too long", "refused", reference(location=bytes(65))),
        ("a wrapped key too short", "refused", reference(wrapped=wrapped[:-1])),
        ("a body beside that is not there", "refused", b"\x01\x03" + extent + struct.pack(">Q", 5)),
        ("a body inside of another length", "refused", b"\x01\x02" + extent + struct.pack(">Q", 5) + bytes(57 + 4)),
        ("a body inside, too large", "refused", b"\x01\x02" + extent + struct.pack(">Q", 16385) + bytes(57 + 16385)),
        ("nothing", "refused", b""),
    ]
    out = []
    for name, expect, encoded in cases:
        # The one long case is all zeros after its head.
        entry = {"name": name, "expect": expect, "encoded": encoded[:400].hex()}
        if len(encoded) > 400:
            entry["thenZeros"] = len(encoded) - 400
        out.append(entry)
    links = []
    for name, expect, encoded in (
        ("a link", "decodes", b"\x01" + struct.pack(">I", 3) + reference()),
        ("no holders", "refused", b"\x01" + struct.pack(">I", 0) + reference()),
        ("an inline body", "refused", b"\x01" + struct.pack(">I", 1) + b"\x01\x02" + extent + struct.pack(">Q", 0) + bytes(57)),
        ("an unknown version", "refused", b"\x02" + struct.pack(">I", 1) + reference()),
    ):
        links.append({"name": name, "expect": expect, "encoded": encoded.hex()})
    garbage = [
        {"name": "garbage", "expect": "decodes", "encoded": (b"\x01" + struct.pack(">q", 1_700_000_000_000_000)).hex()},
        {"name": "a trailing byte", "expect": "refused", "encoded": (b"\x01" + struct.pack(">q", 0) + b"\0").hex()},
        {"name": "cut", "expect": "refused", "encoded": (b"\x01" + struct.pack(">q", 0))[:-1].hex()},
    ]
    return {"references": out, "links": links, "garbage": garbage}


# --- database pages (§10) ----------------------------------------------------------------------------------------


def page_vectors():
    key, database, epoch, counter, position = b"\x42" * 32, b"\x17" * 16, bytes(range(16)), 1, 5
    formats = []
    for number, size, suffix in ((1, 8192, b""), (2, 4096, struct.pack(">I", 2))):
        page_key = hkdf(key, b"coffer/embedded/v1/page" + epoch, 32, database)
        additional = database + struct.pack(">QB", position, 1)
        plaintext = bytes(7 * i % 256 for i in range(size - 40))
        sealed = AESGCM(page_key).encrypt(struct.pack(">IQ", 0, counter), plaintext, additional)
        page = sealed[:-16] + epoch + struct.pack(">Q", counter) + sealed[-16:]
        formats.append({
            "format": number, "pageBytes": size, "page": hashlib.sha256(page).hexdigest(),
            "keyCheck": hkdf(key, b"coffer/embedded/v1/key-check" + suffix, 32, database).hex(),
        })
    mask = hkdf(key, b"coffer/embedded/v1/log-header", 64, database)
    offset, header = 8248, bytes(range(16))
    white = aes_block(mask[:32], bytes(8) + struct.pack(">Q", offset))
    masked = xor(aes_block(mask[32:], xor(header, white)), white)
    return {
        "pageKey": key.hex(), "databaseID": database.hex(), "epoch": epoch.hex(), "position": position, "formats": formats,
        "logHeader": {"offset": offset, "plaintext": header.hex(), "masked": masked.hex()},
    }


def keep(name: str, document):
    file = TESTS / name
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv:
        if file.read_text() != text:
            raise SystemExit(f"{file.name} is not what this script writes")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def main():
    keep("EmbeddedEngineTests/Vectors/pages.json", page_vectors())
    keep("EncryptionAtRestTests/Vectors/format-v1.json", {
        "format": "docs/format.md, version 1",
        "xaes256gcm": xaes_vectors(),
        "derivation": derivation_vectors(),
        "records": record_vectors(),
        "accountKeys": account_key_vectors(),
        "volume": volume_vectors(),
        "extents": extent_vectors(),
        "encodings": reference_vectors(),
    })


if __name__ == "__main__":
    main()
