#!/usr/bin/env python3
"""Checks an audit bundle of refold's (schemas/audit-bundle.md): every event against the signed checkpoint, the bundle as
a whole against the log owner's statement, and that rows go on where they ended. Exit code 0: it holds; 1: it does not; 2:
the question was put wrongly. What it cannot do is fold the events again: `refold audit check` does.

    check_bundle.py BUNDLE --key KEY [--witness KEY]... [--unsigned]
    check_bundle.py --table TABLE        TABLE: a JSON list of lists of such arguments; prints a code and a reason for each
"""

import argparse
import base64
import bisect
import hashlib
import json
import sys

from audit import Note, SignedText, Untrue, Usage, canonical, decimal, leaf_hash, need, node_hash, split, unbase64
from check_proof import read_key


class Number:
    """A JSON number as it was written: 1.50 is not 1.5, and no number is too large."""

    def __init__(self, text):
        self.text = text

    def __eq__(self, other):
        return isinstance(other, Number) and self.text == other.text

    def __repr__(self):
        return self.text


class Members(list):
    """An object's members in their order. What a device sent may hold a name twice; nothing else may."""


def refuse(word):
    raise ValueError(word)


def parse(line):
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=Members, parse_int=Number, parse_float=Number,
                          parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Untrue("a line that is no JSON") from error


def members(value):
    """An object of the bundle itself."""
    need(isinstance(value, Members), "something that is no object")
    need(len(dict(value)) == len(value), "a name twice in one object")
    return dict(value)


def strict(line):
    return members(parse(line))


def whole(value):
    need(isinstance(value, Number), "something that is no number")
    return decimal(value.text, 2**63)


def statement(data, key):
    """The statement is the last line, about all bytes before it. Returns what is left."""
    head, _, last = data[:-1].rpartition(b"\n")
    text = strict(last).get("statement")
    need(isinstance(text, str) and len(strict(last)) == 1, "not signed as a whole")
    note, digest = SignedText(text.encode()), hashlib.sha256(head + b"\n").digest()
    said = f"refold-audit/1\n{key.name}\n{base64.b64encode(digest).decode()}\n"
    need(note.text == said.encode(), "the statement is about another bundle")
    key.verify(note)
    return head + b"\n"


def tree(leaves, order, lower, upper, hashes):
    """The root of [lower, upper): the events' leaves where there are some, the proof's hashes elsewhere."""
    first = bisect.bisect_left(order, lower)
    if first == len(order) or order[first] >= upper:
        need(hashes, "the proof has too few hashes")
        return hashes.pop(0)
    if upper - lower == 1:
        return leaves[lower]
    middle = lower + split(upper - lower)
    return node_hash(tree(leaves, order, lower, middle, hashes), tree(leaves, order, middle, upper, hashes))


def check(data, key, witnesses, unsigned):
    need(data.endswith(b"\n"), "cut off")
    signed = not unsigned or b'\n{"statement":' in data
    if signed:
        data = statement(data, key)
    lines = [strict(line) for line in data[:-1].split(b"\n")]
    header = lines.pop(0)
    need(header.get("format") == "refold-audit/1" and header["log"] == key.name, "no bundle of this log")
    first, end = whole(header["from"]), whole(header["end"])
    keys = {name: whole(count) for name, count in members(header["keys"]).items()}
    leaves, rows, lost, events, last = {}, {}, [], 0, 0

    def key_of(table, row):
        members(row)
        return table, repr(row[:keys[table]])

    def note_row(table, row):
        rows[key_of(table, row)] = row

    while "start" in lines[0]:
        start = members(lines.pop(0)["start"])
        note_row(start["table"], start["row"])
    while "position" in lines[0]:
        event = lines.pop(0)
        position, record = whole(event["position"]), unbase64(event["record"])
        need(first <= position < end and position not in leaves, "an event out of place")
        need(not leaves or position > last, "events out of order")
        last, leaves[position] = position, leaf_hash(canonical(record))
        for change in map(members, event["changes"]):
            before = rows.get(key_of(change["table"], change["after"]))
            need(change["before"] == before, f"the row before position {position} is not the one that was left")
            note_row(change["table"], change["after"])
        events += 1
    while "gap" in lines[0]:
        gap = members(lines.pop(0)["gap"])
        lost.append((whole(gap["from"]), whole(gap["to"])))
    need(len(lines) == 2 and "proof" in lines[0] and "checkpoint" in lines[1], "lines missing, or out of order")
    proof, note = members(lines[0]["proof"]), Note(lines[1]["checkpoint"].encode())
    note.check(key)
    for witness in witnesses:
        witness.verify(note)
    need(note.size == whole(proof["size"]) and end <= note.size, "a checkpoint of another size")
    hashes = [unbase64(text) for text in proof["hashes"]]
    need(all(len(value) == 32 for value in hashes), "a hash of another length")
    root = tree(leaves, sorted(leaves), 0, note.size, hashes) if note.size else hashlib.sha256(b"").digest()
    need(not hashes, "the proof has too many hashes")
    need(root == note.root, "another root than the signed one")
    if members(header["subject"])["kind"] == "range":
        for position in range(first, end):
            need(position in leaves or any(a <= position <= b for a, b in lost), f"position {position} is left out")
    return f"{events} events are in the log of {note.size} events" + (", and the owner signed the rows" if signed else "")


def answer(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("--key", required=True)
    parser.add_argument("--witness", action="append", default=[])
    parser.add_argument("--unsigned", action="store_true")
    options = parser.parse_args(arguments)
    try:
        with open(options.bundle, "rb") as file:
            data = file.read()
        key, witnesses = read_key(options.key), [read_key(text) for text in options.witness]
        return 0, check(data, key, witnesses, options.unsigned)
    except (Untrue, KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        return 1, f"the bundle does not hold: {error!r}"
    except (Usage, OSError) as error:
        return 2, str(error)


def main():
    # Payloads nest 512 levels deep.
    sys.setrecursionlimit(10_000)
    if sys.argv[1:2] == ["--table"]:
        with open(sys.argv[2], encoding="utf-8") as file:
            for arguments in json.load(file):
                print(*answer(arguments))
        return 0
    code, reason = answer(sys.argv[1:])
    print(reason)
    return code


if __name__ == "__main__":
    sys.exit(main())
