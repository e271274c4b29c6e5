"""How fast each case was in the runs that were kept, the oldest first.

python benchmarks/history.py [--case compact] [--device EPYC]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

from speed import record
from speed.command import Parser


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="", help="only presets or data sets with this in their name")
    parser.add_argument("--device", default="", help="only devices with this in their name")
    arguments = parser.parse_args()
    rows: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for run in record.read_history():
        facts = run["machine"]
        for case in run["cases"]:
            if arguments.device in facts["device"] and (
                arguments.case in case["preset"] or arguments.case in case["data"]
            ):
                device = f"{facts['device']}, {facts['threads']} threads, {case['precision']}"
                rows[device, case["preset"], case["data"], case["batch"]].append(row(facts, case))
    if not rows:
        print("no such run")
    for (device, preset, data, batch), lines in sorted(rows.items()):
        print(f"{preset}, {data}, batch {batch} ({device})")
        print("\n".join(lines))


def row(facts: dict[str, Any], case: dict[str, Any]) -> str:
    parts = [
        f"{title} {case[part]['seconds'] * 1000:7.1f} ms {case[part]['of_floor']:5.0%} of floor"
        for title, part in (("pass", "pass"), ("step", "step"))
        if part in case
    ]
    made = case.get("generation")
    if made:
        parts.append(f"made {made['crystals_per_second']:.3g}/s ({made['default_passes']} passes)")
    return f"  {facts['date']}  {facts['revision'] or '-':9} " + "   ".join(parts)


if __name__ == "__main__":
    main()
