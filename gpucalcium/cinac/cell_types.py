"""Types of cells: their names, keywords and codes, as a YAML file or the default says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpucalcium.cinac._optional import optional
from gpucalcium.cinac.rois import PathLike
from gpucalcium.errors import MovieFileError, MovieNotFoundError, ParameterError, UnknownParameterError

BINARY = 1
"""`using_multi_class`: one of two types is predicted, by one probability."""
_MARKS = ("predicted_celll_type", "predicted_cell_type")  # files have the first, with three l


@dataclass(frozen=True)
class CellTypes:
    """Types of cells and the columns in which they are predicted."""

    names: tuple[str, ...]
    """By code, as written."""
    keywords: Mapping[str, int] = field(hash=False)
    """Code of each name and keyword, all in lower case."""
    multi_class: bool | None = None
    """Whether each type has a column of its own; None: the file does not say."""

    @property
    def n_classes(self) -> int:
        """Columns of a prediction: one per type, or a single one for two types that are not multi-class."""
        return len(self.names) if self.multi_class or len(self.names) > 2 else 1

    def code(self, name: str) -> int:
        """Code of a type, by name or keyword, in capitals or not.

        Raises
        ------
        UnknownParameterError
            There is no such type.
        """
        found = self.keywords.get(name.strip().lower())
        if found is None:
            raise UnknownParameterError(
                f"{name!r} is no type of cell; known are {', '.join(sorted(self.keywords))}"
            )
        return found


DEFAULT_CELL_TYPES = CellTypes(
    ("interneuron", "pyramidal", "noise"), {"interneuron": 0, "pyramidal": 1, "noise": 2}, True
)
"""Where no YAML file is given."""


def read_cell_type_categories_yaml_file(
    yaml_file: PathLike, using_multi_class: int = 2
) -> tuple[dict[int, str], dict[str, int], bool | None]:
    """Codes of the types of cells that a file lists.

    Parameters
    ----------
    yaml_file : path
        ``cell_type_categories``: a list of ``{name: {keywords: [...], predicted_celll_type: true}}``; and, if wanted,
        ``config: {multi_class: true or false}``.
    using_multi_class : int
        1: where the file does not say, one of two types is predicted, by one probability; else each by its own.

    Returns
    -------
    from_code : dict of int to str
        Names, as written. Codes are the places in the list; where one probability is predicted, the type that is
        marked as predicted has code 1.
    to_code : dict of str to int
        Codes of names and keywords, all in lower case.
    multi_class : bool or None
        What the file says.

    Raises
    ------
    MovieNotFoundError, MovieFileError
        No such file; no YAML, or not of that form.
    ParameterError
        Fewer than two types; a name or keyword that two types share; two types marked as predicted.
    """
    types = read_cell_types(yaml_file, using_multi_class)
    return dict(enumerate(types.names)), dict(types.keywords), types.multi_class


def read_cell_types(yaml_file: PathLike | None, using_multi_class: int = 2) -> CellTypes:
    """The same as `CellTypes`; the default ones if there is no file."""
    if yaml_file is None:
        return DEFAULT_CELL_TYPES
    path = Path(yaml_file)
    content = _parsed(path)
    config = content.get("config") or {}
    multi_class = config.get("multi_class") if isinstance(config, dict) else config
    if multi_class is not None and not isinstance(multi_class, bool):
        raise MovieFileError(f"{path}: config must be {{multi_class: true}} or {{multi_class: false}}")
    listed = [_category(path, one) for one in _as_list(path, content.get("cell_type_categories"))]
    if len(listed) < 2:
        raise ParameterError(f"{path} lists {len(listed)} types of cells: two at least are needed")
    is_binary = multi_class is False or (multi_class is None and using_multi_class == BINARY)
    if is_binary and len(listed) <= 2:
        listed = _predicted_last(path, listed)
    return CellTypes(tuple(name for name, _, _ in listed), _codes(path, listed), multi_class)


def _parsed(path: Path) -> dict[str, Any]:
    yaml = optional("yaml", "reading types of cells")
    if not path.is_file():
        raise MovieNotFoundError(f"File {path} not found! The working directory is {Path.cwd()}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as err:
        raise MovieFileError(f"{path} is no YAML file: {' '.join(str(err).split())}") from err
    if not isinstance(content, dict):
        raise MovieFileError(f"{path} must have entries cell_type_categories and, if wanted, config")
    return content


def _as_list(path: Path, categories: Any) -> Sequence[Any]:
    if isinstance(categories, dict):
        return [{name: about} for name, about in categories.items()]
    if not isinstance(categories, list):
        raise MovieFileError(f"{path} must have a list cell_type_categories of the types of cells")
    return categories


def _category(path: Path, entry: Any) -> tuple[str, list[str], bool]:
    """Name, keywords and mark of one type."""
    if isinstance(entry, str):
        return entry, [], False
    if not isinstance(entry, dict) or len(entry) != 1:
        raise MovieFileError(f"{path}: each type of cell is {{name: {{keywords: [...]}}}}, not {entry!r:.60}")
    name, about = next(iter(entry.items()))
    about = about or {}
    keywords = (about.get("keywords") or []) if isinstance(about, dict) else None
    keywords = [keywords] if isinstance(keywords, str) else keywords
    if not isinstance(keywords, list):
        raise MovieFileError(f"{path}: of {name!r} a list of keywords is expected")
    return str(name), [str(keyword) for keyword in keywords], any(about.get(mark) is True for mark in _MARKS)


def _predicted_last(
    path: Path, listed: list[tuple[str, list[str], bool]]
) -> list[tuple[str, list[str], bool]]:
    """The two types, the one whose probability is predicted as the second."""
    if all(is_predicted for _, _, is_predicted in listed):
        raise ParameterError(
            f"{path}: both types are marked as predicted; one probability can be only of one"
        )
    return sorted(listed, key=lambda entry: entry[2]) if any(entry[2] for entry in listed) else listed


def _codes(path: Path, listed: Sequence[tuple[str, list[str], bool]]) -> dict[str, int]:
    codes: dict[str, int] = {}
    for code, (name, keywords, _) in enumerate(listed):
        for word in (name, *keywords):
            if codes.setdefault(word.strip().lower(), code) != code:
                raise ParameterError(
                    f"{path}: {word!r} stands for {listed[codes[word.strip().lower()]][0]!r} and for {name!r}"
                )
    return codes
