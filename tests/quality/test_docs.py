"""The documents say what is there: capabilities and the tests that name them, links, pictures, commands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ROWS = re.findall(r"^\| (C\d+) \| .* \| (.*) \|$", (ROOT / "docs" / "capabilities.md").read_text(), re.MULTILINE)


def naming(capability: str) -> set[str]:
    """Test modules that name a capability, as docs/capabilities.md writes them."""
    named = re.compile(rf"\b{capability}\b")
    modules = (ROOT / "tests").rglob("test_*.py")
    return {str(m.relative_to(ROOT / "tests").with_suffix("")) for m in modules if named.search(m.read_text())}


def test_every_capability_has_its_row():
    assert [name for name, _ in ROWS] == [f"C{number}" for number in range(1, 73)]


@pytest.mark.parametrize(("capability", "tests"), ROWS)
def test_the_tests_of_a_capability_name_it(capability: str, tests: str):
    told, there = set(re.findall(r"`([\w/]+)`", tests)), naming(capability)
    if tests.startswith("not built ("):  # a part of it is tested, and need not name the whole
        there |= {name for name in told if (ROOT / "tests" / f"{name}.py").exists()}
    assert told <= there, "listed, and it does not name it"
    assert bool(told) == bool(there), f"named by {there}, and the page says {tests!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    dead = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert links or page.name != "README.md"
    assert not dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_test_files_and_benchmarks_that_are_named_exist(page: Path):
    text = page.read_text()
    modules = set(re.findall(r"-m (benchmarks(?:\.\w+)*)", text))
    places = [ROOT / module.replace(".", "/") for module in modules]
    gone = [place.name for place in places if not place.is_dir() and not place.with_suffix(".py").exists()]
    files = {name for name in re.findall(r"\b((?:tests|benchmarks|training|assets)/[\w/]+\.py)\b", text)}
    assert not gone
    assert not [name for name in files if not (ROOT / name).exists()]
