#!/usr/bin/env python3
"""Draws the roofline picture of what bench_cpu --json wrote, as SVG: no library needed.

    python3 bench/roofline.py Q8_0.json Q4_0.json ... --output roofline.svg [--title "..."]

Across: operations for each byte that has to be read; up: operations a second; both logarithmic. The slope is the machine's read
bandwidth, the levels its peaks: a point can lie on the lower of the two at most. Filled points are effinfer's, hollow ones the
peer's at the same work, medians both, a thin line from one to the other. Colours are weight formats, shapes are kinds of work.
"""
import argparse
import json
import math
import pathlib
import statistics

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555"]  # told apart by the colour-blind too
WORK = {"decode": "decode, 1 sequence", "decode-deep": "decode behind a long context", "batch-4": "decode, 4 sequences",
        "batch-16": "decode, 16 sequences", "prefill": "prefill, 512 tokens"}
PEAKS = {"f32": "f32 multiply-add", "bf16": "bf16 dot product", "int8": "int8 dot product"}
WIDTH, HEIGHT = 960, 560
LEFT, RIGHT, TOP, BOTTOM = 84, 690, 56, 496  # of the plot


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class Picture:
    """SVG elements, and the axes' scales."""

    def __init__(self, x_range, y_range):
        self.x_range, self.y_range = x_range, y_range
        self.parts = []

    def x(self, value):
        low, high = map(math.log10, self.x_range)
        return LEFT + (math.log10(value) - low) / (high - low) * (RIGHT - LEFT)

    def y(self, value):
        low, high = map(math.log10, self.y_range)
        return BOTTOM - (math.log10(value) - low) / (high - low) * (BOTTOM - TOP)

    def line(self, x1, y1, x2, y2, colour, width=1.0, dash=""):
        dash = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"{dash}/>')

    def text(self, x, y, text, anchor="start", size=13, colour="#222222", more=""):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"{more}>{escaped(text)}</text>')

    def mark(self, work, x, y, colour, filled):
        paint = f'fill="{colour if filled else "#ffffff"}" stroke="{colour}" stroke-width="1.8"'
        corners = {"batch-4": [(-5, -5), (5, -5), (5, 5), (-5, 5)], "batch-16": [(0, -7), (7, 0), (0, 7), (-7, 0)],
                   "prefill": [(0, -7), (6.5, 5), (-6.5, 5)], "decode-deep": [(0, 7), (6.5, -5), (-6.5, -5)]}.get(work)
        if corners is None:
            self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" {paint}/>')
        else:
            points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
            self.parts.append(f'<polygon points="{points}" {paint}/>')

    def svg(self):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
                f'font-family="Helvetica, Arial, sans-serif">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n'
                + "\n".join(self.parts) + "\n</svg>\n")


def amount(value):
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= scale:
            return f"{value / scale:g} {unit}"
    return f"{value:g}"


def steps(low, high):
    """1, 2 and 5 times the powers of ten within a range."""
    power = math.floor(math.log10(low))
    while 10**power <= high:
        yield from (m * 10**power for m in (1, 2, 5) if low <= m * 10**power <= high)
        power += 1


def median_limits(reports):
    return {kind: statistics.median(v for r in reports for f in r["figures"] for v in f["limits"][kind]) for kind in ("read", *PEAKS)}


def draw(reports, labels, title):
    limits = median_limits(reports)
    points = []  # label, work, whether ours, operations a byte, operations a second
    for report, label in zip(reports, labels):
        for f in report["figures"]:
            for is_ours, speeds, moved in ((False, f["theirs"], f["peer_bytes"]), (True, f["ours"], f["bytes"])):
                if speeds:
                    rate = f["operations"] / f["tokens"] * statistics.median(speeds)
                    points.append((label, f["name"], is_ours, f["operations"] / moved, rate))
    peak = max(limits[k] for k in PEAKS)
    xs, ys = [p[3] for p in points], [p[4] for p in points]
    picture = Picture((min(xs) / 2, max([*xs, peak / limits["read"]]) * 2), (min(ys) / 2, max(peak, *ys) * 1.5))

    for value in steps(*picture.x_range):
        x = picture.x(value)
        picture.line(x, TOP, x, BOTTOM, "#ececec")
        picture.text(x, BOTTOM + 18, f"{value:g}", "middle", 12)
    for value in steps(*picture.y_range):
        y = picture.y(value)
        picture.line(LEFT, y, RIGHT, y, "#ececec")
        picture.text(LEFT - 8, y + 4, amount(value), "end", 12)
    picture.line(LEFT, BOTTOM, RIGHT, BOTTOM, "#222222")
    picture.line(LEFT, TOP, LEFT, BOTTOM, "#222222")
    picture.text((LEFT + RIGHT) / 2, BOTTOM + 44, "operations per byte read", "middle", 14)
    middle = (TOP + BOTTOM) / 2
    picture.text(20, middle, "operations per second", "middle", 14, more=f' transform="rotate(-90 20 {middle})"')
    picture.text(LEFT, 28, title, size=16, more=' font-weight="bold"')

    # The roofs: one slope, from the left or lower edge to the highest level, and a level for each kind of instruction.
    low_x = max(picture.x_range[0], picture.y_range[0] / limits["read"])
    ridge = peak / limits["read"]
    picture.line(picture.x(low_x), picture.y(low_x * limits["read"]), picture.x(ridge), picture.y(peak), "#222222", 2)
    at = math.sqrt(low_x * min(limits[k] for k in PEAKS if limits[k] > 0) / limits["read"])
    x, y = picture.x(at), picture.y(at * limits["read"])
    angle = -math.degrees(math.atan2(picture.y(1e9) - picture.y(1e10), picture.x(10) - picture.x(1)))
    picture.text(x, y - 9, f"memory reads: {limits['read'] / 1e9:.0f} GB/s", "middle", 13, more=f' transform="rotate({angle:.1f} {x:.1f} {y:.1f})"')
    # The levels' names stand where no point does: between the batches and prefill.
    sides = [max((p[3] for p in points if p[1] != "prefill"), default=ridge), min((p[3] for p in points if p[1] == "prefill"), default=picture.x_range[1])]
    between = picture.x(max(math.sqrt(sides[0] * sides[1]), ridge * 2.5))
    for kind, name in PEAKS.items():
        if limits[kind] > 0:
            y = picture.y(limits[kind])
            picture.line(picture.x(limits[kind] / limits["read"]), y, RIGHT, y, "#222222", 2 if limits[kind] == peak else 1.2, "" if limits[kind] == peak else "7 4")
            rate = f"{limits[kind] / 1e12:.2f} T/s" if limits[kind] >= 1e12 else f"{limits[kind] / 1e9:.0f} G/s"
            picture.text(between, y - 6, f"{name}: {rate}", "middle")

    colour = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}
    for label, work, is_ours, x, rate in points:
        if is_ours:
            for other in points:
                if other[:3] == (label, work, False):
                    picture.line(picture.x(other[3]), picture.y(other[4]), picture.x(x), picture.y(rate), colour[label], 1)
    for label, work, is_ours, x, rate in points:
        picture.mark(work, picture.x(x), picture.y(rate), colour[label], is_ours)

    x, y = RIGHT + 28, TOP + 6
    picture.text(x, y, "weights", size=13, more=' font-weight="bold"')
    for label in labels:
        y += 22
        picture.parts.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{colour[label]}"/>')
        picture.text(x + 22, y, label)
    y += 36
    picture.text(x, y, "work", size=13, more=' font-weight="bold"')
    for work in [w for w in WORK if any(p[1] == w for p in points)]:
        y += 22
        picture.mark(work, x + 6, y - 4, "#444444", True)
        picture.text(x + 22, y, WORK[work])
    y += 36
    picture.text(x, y, "program", size=13, more=' font-weight="bold"')
    peers = [reports[0]["peer"]] if any(not p[2] for p in points) else []
    for i, name in enumerate(["effinfer", *peers]):
        y += 22
        picture.mark("decode", x + 6, y - 4, "#444444", i == 0)
        picture.text(x + 22, y, name)
    r = reports[0]
    y = BOTTOM - 22
    picture.text(x, y, r["processor"] or "processor unknown", size=12, colour="#555555")
    picture.text(x, y + 18, f"{r['threads']} threads, {r['instruction_set']}", size=12, colour="#555555")
    return picture.svg()


def label_of(report):
    name = report["model"].removesuffix(".gguf")
    stored = name.rsplit("-", 1)[-1] if report["model"].endswith(".gguf") else report["format"]
    return stored if report["weights"] == "none" else f"{stored}, quantized to {report['weights']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("roofline.svg"))
    parser.add_argument("--title", help="the model's name by default")
    options = parser.parse_args()
    reports = [json.loads(f.read_text()) for f in options.files]
    title = options.title or reports[0]["model"].removesuffix(".gguf").rsplit("-", 1)[0]
    options.output.write_text(draw(reports, [label_of(r) for r in reports], title))


if __name__ == "__main__":
    main()
