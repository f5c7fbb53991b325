"""Results as Markdown and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from limits import limit
from machine import Machine
from peers import PEERS
from workloads import find

Results = dict[str, dict[str, dict[str, Any]]]
"""For each workload, for each library, what `rounds.compare` found."""

OURS = "ketgrad"
PICTURE = "performance.png"
MARKERS = {"ketgrad": "*", "ketgrad-one-call": "P", "ketgrad-execute": "^", "ketgrad-backward": "v"}
SMALLEST = 0.01
"""Milliseconds of a limit that says anything: below, a call is all overhead."""
STOPPED = {"over time", "over memory", "out of memory", "only one call"}
SHORT = {
    "over time": "> cap",
    "over memory": "> memory",
    "out of memory": "> memory",
    "not installed": "not installed",
    "not supported": "–",
    "disagrees": "disagrees",
    "only one call": "> cap",
    "failed": "failed",
}


def number(value: float) -> str:
    """Three digits at most."""
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def ours(results: dict[str, dict[str, Any]]) -> str:
    """Which of our ways stands for ketgrad: `kg.compile` where it is there."""
    return next((peer for peer in (OURS, "ketgrad-execute") if "median_ms" in results.get(peer, {})), OURS)


def fastest_peer(results: dict[str, dict[str, Any]]) -> str | None:
    """The fastest library but ketgrad."""
    timed = {peer: r["median_ms"] for peer, r in results.items() if "median_ms" in r and not PEERS[peer].ours}
    return min(timed, key=timed.__getitem__) if timed else None


def bound_ms(name: str, machine: Machine) -> float:
    """The machine's limit for a workload; 0 where there is no formula."""
    found = limit(find(name), machine)
    return found.ms if found else 0.0


def cell(result: dict[str, Any] | None, key: str = "median_ms") -> str:
    """One number, or why there is none."""
    if result is None:
        return ""
    if key in result:
        return number(result[key])
    return SHORT.get(result["status"], result["status"])


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def summary(results: Results, machine: Machine) -> str:
    """Ketgrad beside the fastest peer and the machine's limit."""
    rows = []
    for name, found in results.items():
        mine, peer = found.get(ours(found)), fastest_peer(found)
        bound = bound_ms(name, machine)
        row = [f"`{name}`", cell(mine)]
        measured = mine is not None and "median_ms" in mine
        row.append(f"{number(mine['q1_ms'])} to {number(mine['q3_ms'])}" if mine and measured else "")
        stopped = any(result["status"] in STOPPED for result in found.values())
        row.append(f"{PEERS[peer].label}: {number(found[peer]['median_ms'])}{'*' * stopped}" if peer else "")
        row.append(f"{number(found[peer]['median_ms'] / mine['median_ms'])} ×" if mine and peer and measured else "")
        row.append(number(bound) if bound >= SMALLEST else f"< {SMALLEST}" if bound else "")
        row.append(f"{bound / mine['median_ms']:.0%}" if mine and measured and bound >= SMALLEST else "")
        row += [cell(found.get(way)) for way in ("ketgrad-one-call", "ketgrad-execute", "ketgrad-double")]
        rows.append(row)
    head = ["workload", "ketgrad", "quartiles", "fastest peer", "ratio", "limit", "share of it"]
    return table([*head, "`value_and_grad`", "`kg.execute`", "complex128"], rows)


def matrix(results: Results, key: str, scale: float = 1.0, width: int = 0) -> str:
    """One quantity of all libraries."""
    peers = [peer for peer in PEERS if any(peer in found for found in results.values())]
    rows = []
    for name, found in results.items():
        scaled = {peer: r | ({key: scale * r[key]} if key in r else {}) for peer, r in found.items()}
        rows.append([f"`{name}`", *(cell(scaled.get(peer), key).rjust(width) for peer in peers)])
    return table(["workload", *peers], rows)


def anew(results: Results) -> list[str]:
    """The first calls of circuits that a warm process has not seen yet."""
    chosen = {name: found for name, found in results.items() if any("anew_ms" in r for r in found.values())}
    if not chosen:
        return []
    return [
        "The first call of new circuits in a process that has had others, in milliseconds:\n",
        matrix(chosen, "anew_ms"),
    ]


def markdown(results: Results, machine: Machine, header: dict[str, Any]) -> str:
    """All of it: the part of a document below its headings of the second level."""
    versions: dict[str, str] = {}
    for found in results.values():
        for result in found.values():
            versions |= {k: v for k, v in result.get("versions", {}).items() if k != "python"}
    lines = [
        f"{machine.cpu}, {machine.threads} threads, last-level cache {machine.cache >> 20} MiB; {machine.system}; "
        f"{header['date']}.",
        f"Copies {machine.copy_gb_s:.1f} GB/s (read and written), matrix products {machine.matrix_gflop_s:.0f} GFLOP/s "
        f"in float32, {machine.matrix_double_gflop_s:.0f} in float64.",
        f"{header['rounds']} rounds, a cap of {header['cap']:.0f} s for each library at each workload.",
        ", ".join(f"{package} {version}" for package, version in sorted(versions.items())) + ".",
    ]
    parts = [
        "\n".join(lines) + "\n",
        *([header["warning"] + "\n"] if header.get("warning") else []),
        f"![A row for each workload: the times of all libraries, and the machine's limit]({PICTURE})\n",
        "Milliseconds of one call, medians:\n",
        summary(results, machine),
        "\\* but for those that a cap stopped, which the next table shows.\n",
        "All libraries, medians in milliseconds:\n",
        matrix(results, "median_ms"),
        "The first call, building and compiling included, in seconds:\n",
        matrix(results, "first_s"),
        *anew(results),
        "Most memory in use, above that of the interpreter with the library imported, in MiB:\n",
        matrix(results, "memory", 1 / 2**20),
    ]
    notes = [
        f"- `{name}`, {PEERS[peer].label}: {result['status']}, {result['note']}"
        for name, found in results.items()
        for peer, result in found.items()
        if result.get("note") and result["status"] not in {"not installed", "not supported"}
    ]
    if notes:
        parts += ["What went wrong:\n", "\n".join(notes) + "\n"]
    return "\n".join(parts)


def picture(results: Results, machine: Machine, path: Path) -> None:
    """Times on a logarithmic scale, a row for each workload."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = list(results)
    peers = [p for p in PEERS if any("median_ms" in found.get(p, {}) for found in results.values())]
    others = [p for p in peers if not PEERS[p].ours]
    strong, pale = (plt.get_cmap("tab20").colors[shade::2] for shade in (0, 1))
    colours = dict(zip(others, [*strong, *pale], strict=False))
    figure, axes = plt.subplots(figsize=(10, 1.6 + 0.42 * len(names)), layout="constrained")
    for row, name in enumerate(names):
        found = results[name]
        mine, peer = found.get(ours(found), {}), fastest_peer(found)
        if peer and "median_ms" in mine:
            span = (mine["median_ms"], found[peer]["median_ms"])
            axes.plot(span, (row, row), color="0.85", linewidth=6, solid_capstyle="round", zorder=1)
            ratio = span[1] / span[0]
            axes.annotate(
                f"{number(ratio)} ×",
                ((span[0] * span[1]) ** 0.5, row),
                (0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color="0.35",
            )
        bound = bound_ms(name, machine)
        if bound >= SMALLEST:
            axes.plot(bound, row, "|", color="black", markersize=13)
    for p in peers:
        rows = [
            (r["median_ms"], i, r["q1_ms"], r["q3_ms"])
            for i, n in enumerate(names)
            if "median_ms" in (r := results[n].get(p, {}))
        ]
        style: dict[str, Any] = {"marker": "o", "color": colours.get(p, "0.6"), "markersize": 5}
        if PEERS[p].ours:
            style = {
                "marker": MARKERS.get(p, "D"),
                "color": "crimson",
                "markersize": 6,
            }
            style |= {"markersize": 13} if p == OURS else {"markerfacecolor": "none"}
        x = [r[0] for r in rows]
        spread = [[r[0] - r[2] for r in rows], [r[3] - r[0] for r in rows]]
        axes.errorbar(x, [r[1] for r in rows], xerr=spread, linestyle="", label=PEERS[p].label, zorder=3, **style)
    axes.plot([], [], "|", color="black", markersize=13, label="the machine's limit")
    axes.set_xscale("log")
    axes.set_ylim(-0.7, len(names) - 0.4)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds of one call (median and quartiles; logarithmic)")
    axes.grid(axis="x", which="major", color="0.9")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)
