"""Printed JavaScript, run in node."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from graphsim.symbolic.expr import Expr
from graphsim.symbolic.javascript import Script, runtime

NODE = shutil.which("node")


def run(results: Sequence[Any], points: Sequence[Mapping[str, float]]) -> list[list[float]]:
    """The values of formulas at some points, by node."""
    script, names = Script(), sorted({name for r in results if isinstance(r, Expr) for name in r.free})
    main = script.function(names, results)
    asked = json.dumps([[point[name] for name in names] for point in points])
    return texts_read(said(runtime(), script.text, f"{asked}.map(p => {main}(...p).map(x => Number(x).toString()))"))


def said(*parts: str) -> Any:
    """What the last of some pieces of a script gives, which node runs one behind the other."""
    assert NODE is not None
    script = "\n".join([*parts[:-1], f"console.log(JSON.stringify({parts[-1]}))"])
    done = subprocess.run([NODE, "-"], input=script, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def texts_read(rows: list[list[str]]) -> list[list[float]]:
    return [[float(x.replace("Infinity", "inf")) for x in row] for row in rows]
