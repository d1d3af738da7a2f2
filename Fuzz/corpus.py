#!/usr/bin/env python3
"""The kept corpora: one file a fuzzer, one input a line, in base64, sorted.

    corpus.py unpack FILE FOLDER    writes each line's input to a file of FOLDER, named by its digest
    corpus.py pack FOLDER FILE      the other way
"""
import base64, hashlib, pathlib, sys


def unpack(file, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for line in file.read_text().split():
        data = base64.b64decode(line, validate=True)
        (folder / hashlib.sha256(data).hexdigest()[:20]).write_bytes(data)


def pack(folder, file):
    inputs = {path.read_bytes() for path in folder.iterdir() if path.stat().st_size > 0}
    lines = [base64.b64encode(data).decode() for data in sorted(inputs, key=lambda data: (len(data), data))]
    file.write_text("".join(line + "\n" for line in lines))


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("pack", "unpack"):
        sys.exit(__doc__)
    {"pack": pack, "unpack": unpack}[sys.argv[1]](pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
