"""Execute the notebooks and keep their outputs: `python notebooks/run.py [NAME ...] [--small]`.

Without names all of them, in order, on real data (see each notebook's second cell). The outputs are written back into
the notebook together with a hash of its code, so that tests/test_notebooks.py can tell when code and outputs have come
apart. `--small` runs on made-up texts, in seconds, and writes nothing back.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
NOTEBOOKS = sorted(HERE.glob("[0-9][0-9]_*.ipynb"))
SMALL = "ULMFIT_NOTEBOOK_SMALL"
COLAB = "google.colab"
"""What only the cell that installs the package asks for."""


def code_hash(notebook: nbformat.NotebookNode) -> str:
    """16 hexadecimal digits that change with any code cell, wherever it takes the package and its results from.

    Left out is what changes no output: how the package is installed on Colab, where a name of it lies, and where the
    committed results do.
    """
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code" and COLAB not in cell.source]
    elsewhere = r"^(from ulmfit_fastai[\w.]* import|import ulmfit_fastai$|RESULTS =).*\n"
    code = re.sub(elsewhere, "", "\n# cell\n".join(cells), flags=re.M)
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def execute(path: Path, *, small: bool, folder: Path, timeout: float | None = None) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run in `folder`; an error in a cell is raised. `timeout`: seconds a cell."""
    notebook = nbformat.read(path, as_version=4)
    environment = {**os.environ, SMALL: "1" if small else ""}
    started = time.monotonic()
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", record_timing=False,
                            resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [relative(output) for output in cell.outputs if not is_progress(output)]
    notebook.metadata["ulmfit"] = {"code": code_hash(notebook), "small": small, "executed": str(date.today()),
                                   "seconds": round(time.monotonic() - started)}
    return notebook


def is_progress(output: nbformat.NotebookNode) -> bool:
    """Whether an output is a progress bar, or the empty lines one left behind: those are for whoever waits."""
    html = output.get("data", {}).get("text/html", output.get("text"))
    return html is not None and (not html.strip() or "<progress" in html)


def relative(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The output with paths of this repository as seen from its root, wherever that lies on this machine."""
    if "text" in output:
        output.text = output.text.replace(f"{HERE.parent}/", "")
    for kind, content in output.get("data", {}).items():
        if kind.startswith("text/"):
            output.data[kind] = content.replace(f"{HERE.parent}/", "")
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="beginnings of names, such as 01 (default: all)")
    parser.add_argument("--small", action="store_true", help="on made-up texts; writes nothing back")
    options = parser.parse_args()
    chosen = [path for path in NOTEBOOKS if not options.names or path.name.startswith(tuple(options.names))]
    if not chosen:
        parser.error(f"no notebook begins with {' or '.join(options.names)}; there are "
                     f"{', '.join(path.stem for path in NOTEBOOKS)}")
    for path in chosen:
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, small=options.small, folder=Path(folder))
        if not options.small:
            nbformat.write(notebook, path)
        print(f"{path.name}: {notebook.metadata['ulmfit']['seconds']} s", file=sys.stderr)


if __name__ == "__main__":
    main()
