#!/usr/bin/env python3
"""Our DataCoord against that of Milvus 2.3.5, and at full size; writes docs/benchmarks-coordinator.md.

    chaos/bench/coordinator.py --quorate FILE --chaos FILE --etcd FILE
        [--only peers,many,own,small,large,nodes]

Stock runs in its Milvus on three nodes of etcd, ours beside the same Milvus on three nodes of its
own; the same client calls both. About an hour in all.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(TOP, "docs", "benchmarks-coordinator.md")
# So many that a stock coordinator is still measurable.
MANY = 200_000
MILLION = 1_000_000
# Stock and ours in turn so often, and the medians told: a machine's speed changes within minutes.
ROUNDS = 3
# No command takes half as long.
HOUR_S = 3600
TITLES = {"peers": "Against stock", "many": f"Against stock, {MANY:,} segments on record",
          "own": f"Against stock, {MANY:,} segments in the collection that is written"}
LAYOUTS = {"own": """\
Milvus is started again on a collection of four shards with an index, of which all the segments are.
Stock's data node asks for them before it watches a channel, and for each one stock's DataCoord walks
through all of them (`meta.GetCompactionTo`) under the lock that an assignment needs. After five
minutes, with the answers still to come, its DataCoord takes the watches for failed.
"""}
NAMES = {"AssignSegmentId": "AssignSegmentID", "SaveBinlogPaths": "SaveBinlogPaths",
         "GetRecoveryInfo": "GetRecoveryInfoV2"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quorate", required=True)
    parser.add_argument("--chaos", required=True)
    parser.add_argument("--etcd", required=True)
    parser.add_argument("--only", default="peers,many,own,small,large,nodes")
    parser.add_argument("--failovers", type=int, default=20)
    # Parts that are not run again are taken from here.
    parser.add_argument("--results", default=os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
        "quorate", "bench-coordinator.json"))
    options = parser.parse_args()
    results = load(options.results)
    for part in options.only.split(","):
        results[part] = PARTS[part](options)
        results[part]["when"] = told_now()
        with open(options.results, "w", encoding="utf-8") as file:
            json.dump(results, file)
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(render(results))
    print(f"written to {PAGE}")


def load(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def peers(segments, layout="spread", rounds=1):
    """Both, in turn, with so many segments on record."""
    def part(options):
        found = {"runs": []}
        for coordinator in ("stock", "quorate") * rounds:
            kind, binary = ("quorate", options.quorate) if coordinator == "quorate" \
                else ("etcd", options.etcd)
            with tempfile.TemporaryDirectory() as out:
                run(os.path.join(TOP, "tests/milvus/run"), "--kind", kind, "--binary", binary,
                    "--coordinator", coordinator, "--scenario", "bench",
                    "--segments", str(segments), "--layout", layout,
                    "--chaos", options.chaos, "--out", out)
                with open(os.path.join(out, "bench.json"), encoding="utf-8") as file:
                    found["runs"].append(json.load(file))
        return found
    return part


def alone(*arguments):
    def part(options):
        line = run(options.chaos, "coordinator", "--quorate", options.quorate, "--json",
                   *(argument.format(failovers=options.failovers) for argument in arguments))
        return {"report": json.loads(line)}
    return part


PARTS = {
    "peers": peers(0, rounds=ROUNDS),
    "many": peers(MANY),
    "own": peers(MANY, "own"),
    "small": alone("--failovers", "{failovers}"),
    "large": alone("--segments", str(MILLION), "--failovers", "{failovers}",
                   # Many short rounds: a disk that stands still falls into few of them.
                   "--rounds", "11", "--seconds", "4"),
    "nodes": alone("--data-nodes", "1000", "--channels", "10000"),
}


def run(*command):
    print(f"$ {' '.join(command)}", flush=True)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          timeout=HOUR_S, check=False)
    if done.returncode != 0:
        sys.exit(f"{command[0]} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout.strip().splitlines()[-1]


def told_now():
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=TOP, text=True,
                            capture_output=True, check=False).stdout.strip()
    return f"{datetime.date.today().isoformat()}, commit {commit}"


def render(results):
    parts = [
        "# Benchmarks of the coordinator\n",
        "Written by `make bench-coordinator`. Every process is on one machine, and the client is,"
        " too. Stock is the\nDataCoord of Milvus 2.3.5 on three nodes of etcd: one process, its"
        " assignments in its memory only. Ours is\nthree nodes with fsync. Both ran beside the same"
        " Milvus.\n",
        f"Machine: {os.cpu_count()} cores of {processor()}, Linux {platform.release()}.\n",
    ]
    parts += [render_peers(name, results[name]) for name in TITLES if name in results]
    parts += [render_alone(name, results[name]) for name in ("small", "large", "nodes")
              if name in results]
    return "\n".join(parts)


def render_peers(name, found):
    lines = [f"## {TITLES[name]} ({found['when']})\n"]
    if name in LAYOUTS:
        lines.append(LAYOUTS[name])
    rounds = len(found["runs"]) // 2
    if rounds > 1:
        lines.append(f"Both ran {rounds} times, in turn; the medians.\n")
    lines += ["| call | clients | ours /s | stock /s | ratio "
              "| p50 ms ours / stock | p99 ms ours / stock |", "|---|---|---|---|---|---|---|"]
    by_case = {}
    for one in found["runs"]:
        for call in one["calls"]:
            case = by_case.setdefault((call["method"], call["n_clients"]), {})
            case.setdefault(one["coordinator"], []).append(call)
    for (method, clients), both in by_case.items():
        if len(both) < 2:
            continue
        ours, stock = medians(both["quorate"]), medians(both["stock"])
        lines.append(
            f"| {NAMES[method]} | {clients} | {ours['per_s']:,.0f}"
            f" | {stock['per_s']:,.1f} | {ours['per_s'] / stock['per_s']:,.1f}x"
            f" | {ours['p50_ms']:.2f} / {stock['p50_ms']:.2f}"
            f" | {ours['p99_ms']:.1f} / {stock['p99_ms']:.1f} |")
    lines.append("\nMilvus answers its first call after its start:\n")
    lines += ["| DataCoord | seconds |", "|---|---|"]
    lines += [f"| {one['coordinator']} | {one['ready_s']:.1f} |" for one in found["runs"]]
    if name in LAYOUTS:
        lines += ["\nIts data node watches all four channels after that:\n",
                  "| DataCoord | seconds |", "|---|---|"]
        lines += [f"| {one['coordinator']} | {told_watched(one)} |" for one in found["runs"]]
    errors = sum(call["n_errors"] for one in found["runs"] for call in one["calls"])
    lines.append(f"\nFailed calls: {errors}.\n")
    return "\n".join(lines)


def medians(calls):
    return {figure: statistics.median(call[figure] for call in calls)
            for figure in ("per_s", "p50_ms", "p99_ms")}


def told_watched(one):
    return "more than 120" if one["watched_s"] is None else f"{one['watched_s']:.1f}"


def render_alone(name, found):
    report = found["report"]
    title = {"small": "Empty", "large": f"{report['n_segments']:,} segments",
             "nodes": f"{report['n_data_nodes']:,} data nodes"}[name]
    lines = [f"## {title} ({found['when']})\n",
             "RootCoord and data nodes are simulated, so that nothing else is measured.\n",
             "| | |", "|---|---|",
             f"| segments of four fields on record | {report['n_segments']:,} |",
             f"| written in | {report['load_s']:.1f} s |",
             f"| data nodes and channels | {report['n_data_nodes']:,} and"
             f" {report['n_channels']:,} |",
             f"| all channels assigned and acknowledged after | {report['watched_s']:.1f} s |",
             *([f"| at rest after that (RocksDB tidies what was written) | {report['rest_s']:.0f} s |"]
               if report.get("rest_s") else []),
             f"| memory of the largest node | {report['memory_mb']:,.0f} MB |"]
    if report["gaps_ms"]:
        gaps = report["gaps_ms"]
        lines.append(f"| leader killed, first assignment after (median and longest of {len(gaps)})"
                     f" | {statistics.median(gaps):.0f} and {max(gaps):.0f} ms |")
        lines.append(f"| killed node serves again after | {report['restart_s']:.1f} s |")
    if report["flush_ms"]:
        took = sorted(report["flush_ms"])
        lines.append(f"| from Flush to the data node, p50 and p99 of {len(took)} |"
                     f" {took[len(took) // 2]:.0f} and {took[int(len(took) * 0.99)]:.0f} ms |")
    for loss in report["losses"]:
        lines.append(f"| data node lost: its {loss['n_channels']} channels assigned and"
                     f" acknowledged after | {loss['assigned_ms']:.0f} and"
                     f" {loss['watched_ms']:.0f} ms |")
    for field, calls in (("passes_paced", "1,000 calls a second"),
                         ("passes_under_load", "as many calls as the machine answers")):
        for one in report.get(field, []):
            lines.append(f"| one look at all records for {one['what']} beside {calls}, mean of"
                         f" {one['n_passes']:.0f} | {one['mean_ms']:,.0f} ms |")
    for query in report["queries"]:
        lines.append(f"| questions about segments a second, {query['node']}"
                     f"{' (leader)' if query['leads'] else ''}, linearizable and local |"
                     f" {query['linearizable_per_s']:,.0f} and {query['local_per_s']:,.0f} |")
    disk = report.get("disk_beside_paced")
    if disk:
        lines.append("| one synced write of four bytes beside the calls at 1,000/s, p50, p99 and"
                     f" longest | {disk['p50_ms']:.2f}, {disk['p99_ms']:.1f} and"
                     f" {disk['longest_ms']:.0f} ms |")
    lines += render_beside(report) if report.get("calls_beside") else render_calls(report)
    return "\n".join(lines) + "\n"


def render_calls(report):
    lines = ["", "| call | clients | per second | p50 ms | p99 ms |", "|---|---|---|---|---|"]
    for call in report["calls"]:
        lines.append(f"| {told_case(call)} | {call['per_s']:,.0f} | {call['p50_ms']:.2f}"
                     f" | {call['p99_ms']:.2f} |")
    return lines


def render_beside(report):
    """Each round of a case has its like on three empty nodes."""
    cases = {}
    for pair in zip(report["calls"], report["calls_beside"]):
        cases.setdefault(told_case(pair[0]), []).append(pair)
    rounds = max(len(pairs) for pairs in cases.values())
    lines = ["", f"Each case ran {rounds} times, in turn with the same one on three nodes without"
             " segments: medians, and the median\nratio of two that ran next to each other, with the"
             " least and the greatest.",
             "", "| call | clients | per second | empty | ratio | p50 ms, empty | p99 ms, empty |",
             "|---|---|---|---|---|---|---|"]
    for case, pairs in cases.items():
        own, empty = medians([own for own, _ in pairs]), medians([empty for _, empty in pairs])
        ratios = sorted(own["per_s"] / empty["per_s"] for own, empty in pairs)
        lines.append(f"| {case} | {own['per_s']:,.0f} | {empty['per_s']:,.0f}"
                     f" | {statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
                     f" | {own['p50_ms']:.2f}, {empty['p50_ms']:.2f}"
                     f" | {own['p99_ms']:.2f}, {empty['p99_ms']:.2f} |")
    return lines


def told_case(call):
    paced = f", at {call['rate']:,}/s" if call["rate"] else ""
    return f"{NAMES[call['method']]}{paced} | {call['n_clients']}"


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return next((line.split(":", 1)[1].strip() for line in file
                     if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
