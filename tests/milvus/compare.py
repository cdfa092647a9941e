"""Compares what two runs of a scenario left: with stock's DataCoord and with ours.

    python compare.py STOCK OURS

Of `coordinator`: status 1 when a client was told something else, or when the metastores differ in
a way that `coordinator/differences.py` gives no reason for. Of `experiments`: status 1 when ours
takes longer for a flush.
"""

import argparse
import difflib
import json
import os
import statistics
import sys

from coordinator import differences, normalise

METASTORES = ("metastore-full.txt", "metastore-end.txt")
FLUSHES = "flushes.json"
# pymilvus looks every half second whether a flush is done.
POLL_MS = 500
SHOWN_MAX = 60


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stock")
    parser.add_argument("ours")
    options = parser.parse_args()
    if os.path.exists(os.path.join(options.stock, FLUSHES)):
        sys.exit(0 if as_fast(options.stock, options.ours) else 1)
    equal = same_transcript(options.stock, options.ours)
    for name in METASTORES:
        equal = same_metastore(options.stock, options.ours, name) and equal
    sys.exit(0 if equal else 1)


def read(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return file.read().splitlines()


def same_transcript(stock, ours):
    left, right = (read(folder, "transcript.txt") for folder in (stock, ours))
    changed = list(difflib.unified_diff(left, right, "stock", "ours", lineterm="", n=1))
    print(f"transcript: {len(left)} lines, {'equal' if not changed else 'DIFFERENT'}")
    print("\n".join(changed[:SHOWN_MAX]))
    return not changed


def same_metastore(stock, ours, name):
    left, right = (read(folder, name) for folder in (stock, ours))
    allowed, rest = differences.sort_out(normalise.compare(left, right))
    print(f"{name}: {len(left)} lines of stock, {len(right)} of ours,"
          f" {sum(map(len, allowed.values()))} allowed differences, {len(rest)} others")
    for reason, found in sorted(allowed.items()):
        print(f"  {len(found):5} {reason}")
    for place, before, after in rest[:SHOWN_MAX]:
        print(f"  {place}: {shown(before)}, ours {shown(after)}")
    return not rest


def as_fast(stock, ours):
    """Medians of how long a flush took, from the call to its end."""
    medians = []
    for folder in (stock, ours):
        with open(os.path.join(folder, FLUSHES), encoding="utf-8") as file:
            medians.append(statistics.median(json.load(file)["flush_ms"]))
    print(f"flush: median {medians[0]:.0f} ms with stock, {medians[1]:.0f} ms with ours")
    return medians[1] <= medians[0] + POLL_MS / 2


def shown(value):
    return "nothing" if value is None else value


if __name__ == "__main__":
    main()
