"""What the documentation says is true: its examples run, its pages hang together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def python_of(page: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_are_python_and_links_lead_somewhere(page):
    compile(python_of(page), str(page), "exec")
    for address in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / address).exists(), f"{page.name} links to {address}"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/tutorials/first_movie.md"])
def test_examples_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUCALCIUM_TEMP", str(tmp_path))
    exec(compile(python_of(ROOT / page), page, "exec"), {})
    shown = capsys.readouterr().out
    if "first_movie" in page:
        assert float(shown) >= 0.95
    else:
        assert int(shown.split()[0]) >= 25
    assert list(tmp_path.rglob("results.hdf5"))


def test_pictures_are_small():
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < 300_000
