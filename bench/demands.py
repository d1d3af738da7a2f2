"""What `make bench` demands of its rows. `python3 -m doctest bench/demands.py` checks it; make test does."""
import re


def missed(rows):
    """The rows whose demand, `≥ 0.9` or `≤ 100 ms`, is not met by the ratio or, without one, by the first figure of ours.

    >>> missed([("a", "9 s", "–", "–", "≤ 5 s"), ("b", "1,500 x/s", "–", "–", "≥ 1,000"), ("c", "5", "6", "0.83", "≥ 0.9")])
    ['a: 9 s, demanded ≤ 5 s', 'c: 0.83, demanded ≥ 0.9']
    >>> missed([("d", "max 88 MB", "–", "–", "≤ 150 MB, flat"), ("e", "5", "–", "–", "reported")])
    []
    >>> missed([("h", "1.2 s", "–", "–", "≤ 100 ms")])
    ['h: 1.2 s is not in the unit of ≤ 100 ms']
    >>> missed([("f", "3", "5", "1.00", "≥ 1"), ("g", "1.0 / 1.4 %", "–", "–", "independent of the size")])
    []
    """
    found = []
    for what, ours, _, ratio, demand in rows:
        bound = re.match(r"([≥≤]) ([\d.,]+)(?: (\w+))?", demand)
        if not bound:
            continue
        shown = ours if ratio == "–" else ratio
        if bound.group(3) and not re.search(rf"\d {bound.group(3)}\b", shown):
            found.append(f"{what}: {shown} is not in the unit of {demand}")
            continue
        value, limit = (float(re.search(r"\d[\d,]*(\.\d+)?", text).group().replace(",", ""))
                        for text in (shown, bound.group(2).rstrip(",")))
        if not (value >= limit if bound.group(1) == "≥" else value <= limit):
            found.append(f"{what}: {shown}, demanded {demand}")
    return found
