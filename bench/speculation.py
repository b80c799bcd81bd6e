#!/usr/bin/env python3
"""Draws speed-up against acceptance from what bench_speculation wrote, as SVG: no library needed.

    python3 bench/speculation.py speculation.json --output speculation.svg

Across: the share of verified guesses that were right; up: how many times faster than plain decoding of the same text. One point a
drafter; shapes are kinds of text, hollow where guesses make a tree. Below the line at 1 a drafter costs more than it gains. Those
that guess always, whether it pays or not, are left out.
"""
import argparse
import json
import pathlib

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#882255", "#117733", "#332288", "#aa4499",
           "#999933", "#44aa99", "#661100"]
CORNERS = {"greedy": None, "sampled": [(-5, -5), (5, -5), (5, 5), (-5, 5)], "copied": [(0, -7), (6.5, 5), (-6.5, 5)],
           "random": [(0, -7), (7, 0), (0, 7), (-7, 0)]}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 570, 64, 660, 40, 514


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    options = parser.parse_args()
    points = json.loads(options.results.read_text())
    points = [p for p in points if "always" not in p["drafter"] and not p["drafter"].startswith("the same")]
    drafters = list(dict.fromkeys(p["drafter"] for p in points))
    highest = max(1.5, *(p["speed_up"] for p in points)) * 1.08
    parts = []

    def x(value):
        return LEFT + value * (RIGHT - LEFT)

    def y(value):
        return BOTTOM - value / highest * (BOTTOM - TOP)

    def text(px, py, words, anchor="start"):
        parts.append(f'<text x="{px:.1f}" y="{py:.1f}" text-anchor="{anchor}" font-size="13" fill="#222222">{escaped(words)}</text>')

    def line(x1, y1, x2, y2, colour):
        parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>')

    def mark(kind, px, py, drafter):
        families = list(dict.fromkeys(name.split(",")[0] for name in drafters))
        colour = COLOURS[families.index(drafter.split(",")[0]) % len(COLOURS)] if drafter else "#222222"
        fill = f'fill="none" stroke="{colour}" stroke-width="2"' if drafter.endswith("tree") else f'fill="{colour}"'
        if CORNERS[kind] is None:
            parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" {fill}/>')
        else:
            corners = " ".join(f"{px + dx:.1f},{py + dy:.1f}" for dx, dy in CORNERS[kind])
            parts.append(f'<polygon points="{corners}" {fill}/>')

    for percent in range(0, 101, 20):
        line(x(percent / 100), TOP, x(percent / 100), BOTTOM, "#dddddd")
        text(x(percent / 100), BOTTOM + 18, f"{percent} %", "middle")
    for half in range(int(highest * 2) + 1):
        line(LEFT, y(half / 2), RIGHT, y(half / 2), "#222222" if half == 2 else "#dddddd")
        text(LEFT - 8, y(half / 2) + 4, f"{half / 2:g}", "end")
    text((LEFT + RIGHT) / 2, HEIGHT - 16, "guesses that were right", "middle")
    text(LEFT, TOP - 16, "times faster than plain")
    for p in points:
        mark(p["text"], x(p["acceptance"]), y(p["speed_up"]), p["drafter"])
    for i, name in enumerate(drafters):
        mark("greedy", RIGHT + 26, TOP + 8 + 20 * i, name)
        text(RIGHT + 40, TOP + 12 + 20 * i, name)
    kinds = list(dict.fromkeys(p["text"] for p in points))
    for i, kind in enumerate(kinds):
        py = TOP + 8 + 20 * (len(drafters) + 1 + i)
        mark(kind, RIGHT + 26, py, "")
        text(RIGHT + 40, py + 4, kind)
    options.output.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n")


if __name__ == "__main__":
    main()
