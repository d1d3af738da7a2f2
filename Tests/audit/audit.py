"""What the independent checkers share, written from schemas/audit-proof.md and the C2SP and RFC texts alone: no code of
refold's, and another way of computing wherever there is one. Standard library and `cryptography` only."""

import base64
import binascii
import hashlib
import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

NOTE_MAX = 64 << 10
RECORD_MAX = 8 << 20
NAMES_MAX = 65471


class Untrue(Exception):
    """The proof does not hold."""


class Usage(Exception):
    """The question was put wrongly."""


def need(condition, why):
    if not condition:
        raise Untrue(why)


def unbase64(text):
    """Standard base64 in the one form that encoding gives."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Untrue("bad base64") from error
    need(base64.b64encode(value) == (text if isinstance(text, bytes) else text.encode()), "base64 in another form")
    return value


def decimal(text, limit=2**64):
    need(text.isascii() and text.isdigit() and (text == "0" or text[0] != "0") and int(text) < limit, "bad number")
    return int(text)


# The tree (RFC 6962, 2.1)

EMPTY = hashlib.sha256(b"").digest()


def leaf_hash(entry):
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(n):
    """The largest power of two below n."""
    return 1 << (n - 1).bit_length() - 1


def tree_root(leaves):
    if not leaves:
        return EMPTY
    level = list(leaves)
    while len(level) > 1:
        pairs = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def inclusion_root(leaf, index, size, path):
    """By the recursive definition of PATH, from the root down: the last of the path is the root's child."""
    need(0 <= index < size, "the position lies beyond the checkpoint")
    path = list(path)

    def walk(m, n):
        if n == 1:
            return leaf
        need(path, "the path is too short")
        k, sibling = split(n), path.pop()
        return node_hash(walk(m, k), sibling) if m < k else node_hash(sibling, walk(m - k, n - k))

    root = walk(index, size)
    need(not path, "the path is too long")
    return root


def check_consistency(first, first_root, second, second_root, path):
    need(first <= second, "the older checkpoint has more events: rolled back")
    path = list(path)
    if first == 0:
        need(first_root == EMPTY and not path, "not the empty tree")
        return
    if first == second:
        need(first_root == second_root and not path, "two roots for one size")
        return

    def walk(m, n, whole):
        if m == n:
            if whole:
                return first_root, first_root
            need(path, "the path is too short")
            same = path.pop()
            return same, same
        need(path, "the path is too short")
        k, other = split(n), path.pop()
        if m <= k:
            old, new = walk(m, k, whole)
            return old, node_hash(new, other)
        old, new = walk(m - k, n - k, False)
        return node_hash(other, old), node_hash(other, new)

    old, new = walk(first, second, True)
    need(not path, "the path is too long")
    need(old == first_root and new == second_root, "one history is not the beginning of the other")


# Signed notes and checkpoints (C2SP signed-note, tlog-checkpoint, tlog-cosignature)


def name_ok(name):
    return name != "" and "+" not in name and not any(c.isspace() or ord(c) < 32 or ord(c) == 127 for c in name)


class Key:
    def __init__(self, text):
        parts = text.strip("\n").split("+", 2)
        try:
            need(len(parts) == 3, "three parts")
            material = unbase64(parts[2])
            need(len(material) == 33 and material[0] in (1, 4) and name_ok(parts[0]), "type and name")
            self.name, self.kind, self.public = parts[0], material[0], material[1:]
            self.id = hashlib.sha256(self.name.encode() + b"\n" + material).digest()[:4]
            need(self.id.hex() == parts[1].lower(), "its id")
        except Untrue as error:
            raise Usage(f"{text!r} is no key: {error}") from error

    def verify(self, note):
        """Every signature under this name and id must be right, and there must be one. A witness's time, or None."""
        found, time = False, None
        for name, key_id, signature in note.signatures:
            if (name, key_id) != (self.name, self.id):
                continue
            message = note.text
            if self.kind == 4:
                need(len(signature) == 72, "a cosignature of another length")
                (time,) = struct.unpack(">Q", signature[:8])
                need(time < 2**63, "a time beyond all times")
                message, signature = b"cosignature/v1\ntime %d\n" % time + note.text, signature[8:]
            try:
                Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
            except InvalidSignature as error:
                raise Untrue(f"the signature of {self.name} is wrong") from error
            found = True
        need(found, f"not signed by {self.name}")
        return time


class SignedText:
    """Text and the signatures under it, nothing said about who."""

    def __init__(self, raw):
        need(len(raw) <= NOTE_MAX, "the note is too long")
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            raise Untrue("the note is not UTF-8") from error
        need(all(byte >= 32 or byte == 10 for byte in raw), "control characters in the note")
        head, separator, tail = raw.rpartition(b"\n\n")
        need(separator and tail.endswith(b"\n"), "no signatures under the note")
        self.text = head + b"\n"
        self.signatures = []
        for line in tail[:-1].split(b"\n"):
            need(line.startswith("— ".encode()), "a signature line without its dash")
            name, space, value = line[4:].decode().rpartition(" ")
            signature = unbase64(value)
            need(space and name_ok(name) and len(signature) > 4, "a signature line of another form")
            self.signatures.append((name, signature[:4], signature[4:]))
        need(len(self.signatures) <= 64, "too many signatures")


class Note(SignedText):
    """A checkpoint."""

    def __init__(self, raw):
        super().__init__(raw)
        lines = self.text[:-1].decode().split("\n")
        need(len(lines) >= 3 and all(lines), "the note is no checkpoint")
        self.origin, self.size, self.root = lines[0], decimal(lines[1]), unbase64(lines[2])
        need(len(self.root) == 32, "the root is no hash")
        need(self.size > 0 or self.root == EMPTY, "an empty tree with a root that is none")

    def check(self, key):
        need(self.origin == key.name, "the checkpoint is of another log")
        key.verify(self)


# Records (schemas/audit-proof.md)


def canonical(record):
    need(len(record) >= 32, "a record shorter than its header")
    length, kind, verdict, _, broker = struct.unpack_from("<IBBBB", record)
    topic, properties, payload = struct.unpack_from("<HII", record, 18)
    names = broker + topic + properties
    need(length == len(record) == 32 + names + payload, "the record's lengths do not add up")
    need(1 <= kind <= 5 and verdict <= 6, "a kind or verdict that there is not")
    middle = record[32:32 + names]
    if names > NAMES_MAX:
        middle = hashlib.sha256(middle).digest()
    return record[:32] + middle + hashlib.sha256(record[32 + names:]).digest()
