#!/usr/bin/env python3
"""Checks a proof of refold's. Exit code 0: it holds; 1: it does not; 2: the question was put wrongly.

    check_proof.py FILE --key KEY [--witness KEY]...     KEY: a vkey, or a file that holds one
    check_proof.py --table TABLE                         TABLE: a JSON list of lists of such arguments; prints a code and
                                                         a reason for each
"""

import argparse
import json
import os
import sys

from audit import (
    RECORD_MAX, Key, Note, Untrue, Usage, canonical, check_consistency, decimal, inclusion_root, leaf_hash, need, unbase64)


def line(data):
    text, newline, rest = data.partition(b"\n")
    need(newline and len(text) < 200, "a line is missing")
    try:
        return text.decode("ascii"), rest
    except UnicodeDecodeError as error:
        raise Untrue("a line that is not ASCII") from error


def number(data, label, limit=2**64):
    text, rest = line(data)
    need(text.startswith(label + " "), f"no {label}")
    return decimal(text[len(label) + 1:], limit), rest


def hashes(data):
    found = []
    while True:
        text, data = line(data)
        if text == "":
            return found, data
        value = unbase64(text)
        need(len(value) == 32 and len(found) < 64, "a path with what is no hash, or too long")
        found.append(value)


def check(data, key, witnesses):
    label, data = line(data)
    if label == "refold-proof/1":
        count, data = number(data, "record", RECORD_MAX + 1)
        record, data = data[:count], data[count:]
        need(len(record) == count and data[:1] == b"\n", "the record is cut off")
        entry = canonical(record)
        label, data = line(data[1:])
        need(label == "c2sp.org/tlog-proof@v1", "no tlog-proof behind the record")
        index, data = number(data, "index")
        path, data = hashes(data)
        note = Note(data)
        note.check(key)
        need(inclusion_root(leaf_hash(entry), index, note.size, path) == note.root, "another root than the signed one")
    elif label == "refold-consistency/1":
        old_count, data = number(data, "old", 2**32)
        new_count, data = number(data, "new", 2**32)
        path, data = hashes(data)
        need(len(data) == old_count + new_count, "other lengths than it says")
        old, note = Note(data[:old_count]), Note(data[old_count:])
        old.check(key)
        note.check(key)
        check_consistency(old.size, old.root, note.size, note.root, path)
    else:
        raise Untrue("no proof")
    for witness in witnesses:
        witness.verify(note)


def read_key(text):
    if os.path.isfile(text):
        with open(text, encoding="utf-8") as file:
            text = file.readline()
    return Key(text)


def answer(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--key", required=True)
    parser.add_argument("--witness", action="append", default=[])
    options = parser.parse_args(arguments)
    try:
        key, witnesses = read_key(options.key), [read_key(text) for text in options.witness]
        if key.kind != 1 or any(witness.kind != 4 for witness in witnesses):
            raise Usage("--key takes a log's key, --witness a witness's")
        with open(options.file, "rb") as file:
            data = file.read(RECORD_MAX + (1 << 20))
        check(data, key, witnesses)
    except Untrue as error:
        return 1, f"the proof does not hold: {error}"
    except (Usage, OSError) as error:
        return 2, str(error)
    return 0, "the proof holds"


def main():
    if sys.argv[1:2] == ["--table"]:
        with open(sys.argv[2], encoding="utf-8") as file:
            for arguments in json.load(file):
                code, reason = answer(arguments)
                print(code, reason)
        return 0
    code, reason = answer(sys.argv[1:])
    print(reason)
    return code


if __name__ == "__main__":
    sys.exit(main())
