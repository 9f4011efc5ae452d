"""The bundler: what is needed and nothing else, and a clear refusal of what cannot stand alone."""

import sys
from pathlib import Path

import pytest

from user_embeddings_dagster.model_export import source
from user_embeddings_dagster.model_export.source import NotStandalone, standalone


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package that passes for ours: write(name, source)."""
    package = tmp_path / "madeup"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(source, "OURS", ("madeup",))
    yield lambda name, text: (package / f"{name}.py").write_text(text)
    for name in [name for name in sys.modules if name.partition(".")[0] == "madeup"]:
        del sys.modules[name]


def test_what_is_needed_comes_along_in_order_and_nothing_else(training) -> None:
    training(
        "a",
        '"""Of a."""\nimport polars as pl\nimport math\nHALF = 0.5\n\ndef unused() -> pl.DataFrame: ...\n\n'
        "def root(x: float) -> float:\n    return math.sqrt(x) * HALF\n",
    )
    training(
        "b",
        "from functools import cache\n\nfrom madeup.a import root\n\n\n@cache\ndef twice(x):\n"
        "    return 2 * root(x)\n\n\nclass Base:\n    pass\n\n\nclass Thing(Base):\n    def keep(self):\n"
        "        return twice(4.0)\n\n    @property\n    def drop(self):\n        return pl.DataFrame()\n",
    )
    whole = standalone([("madeup.b", "Thing")], "Title.", ["Thing.drop"])
    assert not any(word in whole for word in ("polars", "unused", "drop")) and "# Of a." in whole
    made: dict = {}
    exec(whole, made)
    assert made["__doc__"] == "Title." and made["Thing"]().keep() == 2.0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import polars as pl\n\ndef f():\n    return pl.DataFrame()\n", "needs polars"),
        ("def f():\n    import polars\n    return polars\n", "imports polars"),
        ("def f():\n    from madeup.other import thing\n    return thing\n", "imports madeup"),
        ("from madeup import other\n\ndef f():\n    return other.thing\n", "madeup"),
        ("from madeup.other import thing as f2\n\ndef f():\n    return f2\n", "under their own names"),
        ("from madeup.other import g\n\ndef f():\n    return g\n", "both define f"),
        ("x = 1\n", "defines no f"),
    ],
)
def test_what_cannot_stand_alone_is_named(training, text: str, why: str) -> None:
    training("other", "thing = 1\n\ndef f():\n    return 1\n\ndef g():\n    return f()\n")
    training("mine", text)
    with pytest.raises(NotStandalone, match=why):
        standalone([("madeup.mine", "f")], "Title.")


def test_a_method_to_leave_out_that_is_not_there_is_named(training) -> None:
    training("mine", "class C:\n    pass\n")
    with pytest.raises(NotStandalone, match=r"C\.gone"):
        standalone([("madeup.mine", "C")], "Title.", ["C.gone"])
