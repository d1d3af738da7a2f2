#!/usr/bin/env python3
"""Checks exported tiles (C2SP tlog-tiles) from the entries up: every leaf, every tile, the signed root, and that no file
is missing or too many. Exit code 0: they are the tree of the checkpoint; 1: they are not; 2: wrong usage.

    check_tiles.py DIRECTORY --key KEY
"""

import argparse
import os
import struct
import sys

from audit import Note, Untrue, Usage, leaf_hash, need, tree_root
from check_proof import read_key


def tile_path(level, index, width):
    groups = []
    while True:
        groups.insert(0, f"{index % 1000:03d}")
        index //= 1000
        if index == 0:
            break
    path = "/".join(["x" + group for group in groups[:-1]] + groups[-1:])
    return f"tile/{level}/{path}" + ("" if width == 256 else f".p/{width}")


def check(folder, key):
    present = {
        os.path.relpath(os.path.join(base, name), folder) for base, _, names in os.walk(folder) for name in names}

    def read(path):
        need(path in present, f"{path} is missing")
        present.discard(path)
        with open(os.path.join(folder, path), "rb") as file:
            return file.read()

    note = Note(read("checkpoint"))
    note.check(key)
    widths = [(index, min(256, note.size - 256 * index)) for index in range((note.size + 255) // 256)]
    level, hashes = 0, []
    for index, width in widths:
        bundle, offset = read(tile_path("entries", index, width)), 0
        for _ in range(width):
            need(offset + 2 <= len(bundle), "a bundle is cut off")
            (count,) = struct.unpack_from(">H", bundle, offset)
            need(offset + 2 + count <= len(bundle), "an entry is cut off")
            hashes.append(leaf_hash(bundle[offset + 2:offset + 2 + count]))
            offset += 2 + count
        need(offset == len(bundle), "bytes behind the last entry of a bundle")
    need(tree_root(hashes) == note.root, "the entries do not lead to the signed root")
    while hashes:
        above = []
        for start in range(0, len(hashes), 256):
            tile = hashes[start:start + 256]
            path = tile_path(level, start // 256, len(tile))
            need(read(path) == b"".join(tile), f"{path} is not made of the tiles below")
            if len(tile) == 256:
                above.append(tree_root(tile))
        hashes, level = above, level + 1
    need(not present, f"files that belong to no tile: {sorted(present)[:3]}")
    return note.size


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--key", required=True)
    options = parser.parse_args()
    try:
        size = check(options.directory, read_key(options.key))
    except Untrue as error:
        print(f"these are not the signed tree's tiles: {error}")
        return 1
    except (Usage, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"the tiles are the signed tree of {size} events")
    return 0


if __name__ == "__main__":
    sys.exit(main())
