"""Documents say what is so: figures come from results, names from the code."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_documents_show_the_measured_figures():
    done = subprocess.run(
        [sys.executable, "benchmarks/render.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_names_every_module():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.split("## Where things are")[1].split("```")[1]
    for path in (ROOT / "src/metaembed").iterdir():
        if path.name.startswith("__") or path.name == "py.typed":
            continue
        name = path.name if path.is_file() else f"{path.name}/"
        assert name in tree, f"{name} is missing from the README's tree"


def test_links_between_documents_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(
            r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")
        ):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_decision_record_is_numbered_once():
    numbers = [path.name[:4] for path in sorted((ROOT / "docs/adr").glob("*.md"))]
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
