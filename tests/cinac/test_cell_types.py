"""Types of cells as YAML files list them."""

from __future__ import annotations

import pytest

from gpucalcium.cinac import read_cell_type_categories_yaml_file
from gpucalcium.cinac.cell_types import read_cell_types
from gpucalcium.errors import MovieFileError, MovieNotFoundError, ParameterError, UnknownParameterError

THREE = """
config: {multi_class: true}
cell_type_categories:
  - Pyramidal: {keywords: [pyr, "Red Cell"]}
  - interneuron: {keywords: [INs, gaba]}
  - noise:
"""
TWO = """
cell_type_categories:
  - interneuron: {keywords: [in], predicted_celll_type: %s}
  - pyramidal: {keywords: [pyr]%s}
"""


@pytest.fixture
def read(tmp_path):
    def reader(text, **options):
        path = tmp_path / "types.yaml"
        path.write_text(text)
        return read_cell_type_categories_yaml_file(path, **options)

    return reader


def test_order_keywords_and_capitals(read, tmp_path):
    from_code, to_code, multi_class = read(THREE)
    assert from_code == {0: "Pyramidal", 1: "interneuron", 2: "noise"}
    assert to_code == {
        "pyramidal": 0,
        "pyr": 0,
        "red cell": 0,
        "interneuron": 1,
        "ins": 1,
        "gaba": 1,
        "noise": 2,
    }
    assert multi_class is True
    types = read_cell_types(tmp_path / "types.yaml")
    assert [types.code(name) for name in ("PYRAMIDAL", " Ins ", "Red cell")] == [0, 1, 0]
    assert types.n_classes == 3
    with pytest.raises(UnknownParameterError, match=r"'glia' is no type of cell; known are .*gaba"):
        types.code("glia")


@pytest.mark.parametrize(
    ("config", "using", "marks", "order"),
    [
        ("", 1, ("true", ""), ["pyramidal", "interneuron"]),
        ("", 1, ("false", ", predicted_celll_type: true"), ["interneuron", "pyramidal"]),
        ("", 1, ("false", ""), ["interneuron", "pyramidal"]),
        ("", 1, ("false", ", predicted_cell_type: true"), ["interneuron", "pyramidal"]),
        ("", 2, ("true", ""), ["interneuron", "pyramidal"]),
        ("config: {multi_class: false}\n", 2, ("true", ""), ["pyramidal", "interneuron"]),
        ("config: {multi_class: true}\n", 1, ("true", ""), ["interneuron", "pyramidal"]),
    ],
)
def test_the_predicted_type_of_two_has_code_1(read, config, using, marks, order):
    from_code, to_code, multi_class = read(config + TWO % marks, using_multi_class=using)
    assert [from_code[0], from_code[1]] == order
    assert to_code["in"] == order.index("interneuron")
    assert multi_class is {"": None}.get(config, "true" in config)


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        (THREE, 3),
        (THREE.replace("true", "false"), 3),
        (THREE.replace("config: {multi_class: true}", ""), 3),
        (TWO % ("true", ""), 1),
        ("config: {multi_class: true}" + TWO % ("true", ""), 2),
    ],
)
def test_how_many_columns_a_prediction_has(tmp_path, text, classes):
    (tmp_path / "types.yaml").write_text(text)
    assert read_cell_types(tmp_path / "types.yaml").n_classes == classes


def test_the_default():
    types = read_cell_types(None)
    assert types.names == ("interneuron", "pyramidal", "noise")
    assert types.multi_class is True
    assert types.n_classes == 3


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("cell_type_categories: [{noise: {}}]", ParameterError, "lists 1 types"),
        ("cell_type_categories: []", ParameterError, "lists 0 types"),
        ("config: {}", MovieFileError, "must have a list"),
        ("- a\n- b", MovieFileError, "must have entries"),
        ("a: [", MovieFileError, "is no YAML file"),
        ("cell_type_categories: [{a: {}}, {A: {}}]", ParameterError, "'A' stands for 'a' and for 'A'"),
        (
            "cell_type_categories: [{a: {keywords: [x]}}, {b: {keywords: [X]}}]",
            ParameterError,
            "'X' stands for",
        ),
        ("cell_type_categories: [{a: {keywords: 3}}, b]", MovieFileError, "list of keywords"),
        ("cell_type_categories: [{a: {}, b: {}}, c]", MovieFileError, "each type of cell is"),
        ("config: {multi_class: maybe}\ncell_type_categories: [a, b]", MovieFileError, "multi_class"),
        (
            "config: {multi_class: false}" + TWO % ("true", ", predicted_cell_type: true"),
            ParameterError,
            "both types",
        ),
        ("cell_type_categories: [a, !!python/object/apply:os.getcwd []]", MovieFileError, "is no YAML file"),
    ],
)
def test_files_that_say_no_types(read, text, error, words):
    with pytest.raises(error, match=words):
        read(text)


def test_plain_names_and_mappings_are_types_too(read):
    assert read("cell_type_categories: [a, b]")[0] == {0: "a", 1: "b"}
    assert read("cell_type_categories: {a: {keywords: x}, b: }")[1] == {"a": 0, "x": 0, "b": 1}


def test_no_file(tmp_path):
    with pytest.raises(MovieNotFoundError, match="not found"):
        read_cell_type_categories_yaml_file(tmp_path / "none.yaml")
