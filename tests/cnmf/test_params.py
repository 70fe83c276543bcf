"""CNMFParams: the table, what is derived, round trips, and what is refused."""

import copy
import json
import pickle

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.cnmf.params_convert import from_json, same
from gpucalcium.cnmf.params_table import TABLE
from gpucalcium.cnmf.storage import read
from gpucalcium.errors import MovieNotFoundError, MovieShapeError, ParameterError, UnknownParameterError

OWN_KEYS = {
    ("data", "mmap_F"),
    ("data", "mmap_C"),
    ("merging", "max_merge_area"),
    ("spatial", "block_size_spat"),
    ("temporal", "memory_efficient"),
    ("init", "candidates"),
    ("quality", "rval_contrast"),
    ("spatial", "noise_thr"),
}
"""Documented keys that CaImAn 1.12.1 no longer has, and three that it never had."""


def test_preset_has_every_key_and_value_of_the_reference(shared):
    stored = json.loads((shared / "data/caiman_reference/default_params.json").read_text())
    ours = CNMFParams.preset("caiman-1.12").to_dict()
    assert ours.keys() == stored.keys()
    for group, values in stored.items():
        extra = {(group, key) for key in ours[group].keys() - values.keys()}
        assert values.keys() <= ours[group].keys()
        assert extra <= OWN_KEYS
        for key, value in values.items():
            if key not in ("caiman_version", "last_commit", "indices"):
                assert same(ours[group][key], value), (group, key)


def test_a_file_of_the_reference_keeps_its_own_values(shared):
    """Also where its defaults differ from ours, which a value of our own would hide."""
    path = shared / "data/caiman_reference/cnmf_saved.hdf5"
    params = read(path)[1]
    with h5py.File(path) as file:
        stored = file["params"]
        assert bool(stored["temporal/bas_nonneg"][()]) is params.temporal["bas_nonneg"] is False
        assert stored["init/alpha_snmf"][()] == params.init["alpha_snmf"] == 0.5
        assert stored["init/snmf_l1_ratio"][()] == params.init["snmf_l1_ratio"] == 0.0
        compared = 0
        for group, rows in TABLE.items():
            for key in rows.keys() & stored[group].keys():
                value = stored[group][key]
                if isinstance(value, h5py.Dataset) and value.dtype.kind in "bif":
                    assert same(np.asarray(params.get(group, key)), value[()]), (group, key)
                    compared += 1
    assert compared > 100


def test_defaults_are_the_documented_ones():
    params = CNMFParams()
    assert params.init["alpha_snmf"] == 100
    assert params.temporal["bas_nonneg"] is True
    assert params.online["movie_name_online"] == "online_movie.avi"
    assert params.init["gSiz"] == (11, 11)
    assert params.online["N_samples_exceptionality"] == 12
    assert params.online["thresh_fitness_raw"] == pytest.approx(-60.97977932734429, rel=1e-12)


def test_every_default_passes_its_own_check_and_has_a_meaning():
    for rows in TABLE.values():
        for row in rows.values():
            assert row.check.passes(row.default), (row.group, row.key)
            assert row.meaning


@pytest.mark.parametrize(
    ("keyword", "value", "places"),
    [
        ("k", 7, ["init.K"]),
        ("gnb", 2, ["init.nb", "spatial.nb", "temporal.nb"]),
        ("merge_thresh", 0.5, ["merging.merge_thr"]),
        ("only_init_patch", False, ["patch.only_init"]),
        ("p", 1, ["preprocess.p", "temporal.p"]),
        ("n_pixels_per_process", 99, ["preprocess.n_pixels_per_process", "spatial.n_pixels_per_process"]),
        ("min_SNR", 3.5, ["quality.min_SNR", "online.min_SNR"]),
        ("rval_thr", 0.7, ["quality.rval_thr", "online.rval_thr"]),
        ("ssub", 1, ["init.ssub"]),
        ("s_min", -1, ["temporal.s_min"]),
    ],
)
def test_keywords_set_their_keys_and_nothing_else(keyword, value, places):
    params = CNMFParams(**{keyword: value})
    default = CNMFParams()
    changed = {
        f"{group}.{key}"
        for group, values in params.to_dict().items()
        for key, new in values.items()
        if not same(new, default.get(group, key))
    }
    assert set(places) <= changed
    assert changed - set(places) <= {"online.thresh_fitness_raw"}  # follows online.min_SNR
    assert all(params.get(*place.split(".")) == value for place in places)
    assert CNMFParams.from_keywords({keyword: value}) == params


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"gSig": [4, 3]}, (9, 7)),
        ({"gSiz": [10, 10]}, (11, 11)),
        ({"gSiz": 12}, (13, 13)),
        ({"gSig": 3}, (7, 7)),
        ({"gSig": [2.5, 3.2]}, (7, 7)),
        ({"gSig": [3, 3, 2]}, (7, 7, 5)),
        ({"gSig": None}, (-1, -1)),
    ],
)
def test_box_follows_cell_size(asked, expected):
    assert CNMFParams(params_dict={"init": asked}).init["gSiz"] == expected


def test_background_number_couples_groups():
    none = CNMFParams(params_dict={"nb": 0})
    assert none.patch["nb_patch"] == 0
    assert none.patch["low_rank_background"] is None
    assert none.spatial["update_background_components"] is True
    exact = CNMFParams(gnb=-1)
    assert (exact.patch["nb_patch"], exact.spatial["nb"], exact.temporal["nb"]) == (-1, -1, -1)
    assert exact.spatial["update_background_components"] is False
    exact.change_params({"init": {"nb": 2}})  # what was derived from -1 is gone again
    assert exact == CNMFParams(gnb=2)


def test_ring_background_turns_normalisation_off():
    assert CNMFParams(method_init="corr_pnr").init["normalize_init"] is False
    assert CNMFParams(method_init="corr_pnr", ring_size_factor=None).init["normalize_init"] is True


def test_volumes_need_three_entries():
    params = CNMFParams(params_dict={"motion": {"is3D": True}})
    assert params.motion["max_shifts"] == (6, 6, 6)
    assert params.motion["indices"] == (slice(None),) * 3
    with pytest.raises(ParameterError, match=r"motion\.strides.*three axes"):
        params.change_params({"motion": {"strides": (96, 48)}})
    assert params.motion["strides"] == (96, 96, 96)


def test_no_new_components_if_none_may_be_added():
    assert CNMFParams(max_num_added=0).online["update_num_comps"] is False
    assert CNMFParams(min_num_trial=0).online["update_num_comps"] is False


def test_small_patches_are_warned_of():
    with pytest.warns(UserWarning, match="use a larger rf") as warned:
        CNMFParams(rf=8, gSig=(5, 5))
    assert warned[0].filename == __file__


def test_files_give_dims_and_splits(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((350, 6, 5), np.float32))
    np.save(tmp_path / "b.npy", np.zeros((10, 6, 5), np.float32))
    np.save(tmp_path / "c.npy", np.zeros((10, 6, 4), np.float32))
    params = CNMFParams(fnames=tmp_path / "a.npy")
    assert params.data["fnames"] == [str(tmp_path / "a.npy")]
    assert params.data["dims"] == (6, 5)
    assert (params.motion["splits_els"], params.motion["splits_rig"]) == (4, 4)
    assert params.online["movie_name_online"] == str(tmp_path / "online_movie.avi")
    params.change_params({"fnames": [str(tmp_path / "b.npy").encode()], "num_frames_split": 4})
    assert params.data["fnames"] == [str(tmp_path / "b.npy")]
    assert params.motion["splits_rig"] == 1
    with pytest.raises(MovieShapeError):
        CNMFParams(fnames=[tmp_path / "a.npy", tmp_path / "c.npy"])
    with pytest.raises(MovieNotFoundError):
        params.change_params({"fnames": [str(tmp_path / "missing.npy")]})
    assert params.data["fnames"] == [str(tmp_path / "b.npy")]


@pytest.mark.parametrize(
    "changes",
    [
        {"ds_factor": 2, "max_shifts_online": 11},
        {"min_SNR": 3, "fr": 10},
        {"gSig": [3, 3], "nb": 0},
        {"method_init": "corr_pnr"},
    ],
)
def test_changing_twice_is_changing_once(changes):
    once = CNMFParams().change_params(changes)
    twice = copy.deepcopy(once).change_params(changes).change_params({})
    assert twice == once
    assert copy.deepcopy(once) == pickle.loads(pickle.dumps(once)) == once  # noqa: S301


def test_derived_values_follow_later_changes():
    params = CNMFParams(fr=10)
    assert params.online["N_samples_exceptionality"] == 4
    params.change_params({"fr": 30})
    assert params.online["N_samples_exceptionality"] == 12
    params.change_params({"N_samples_exceptionality": 5, "fr": 50})
    assert params.online["N_samples_exceptionality"] == 5


def test_flat_keys_reach_every_group_and_nested_ones_only_theirs():
    flat = CNMFParams().change_params({"p": 1, "noise_method": "median"})
    assert (flat.preprocess["p"], flat.temporal["p"]) == (1, 1)
    assert (flat.preprocess["noise_method"], flat.temporal["noise_method"]) == ("median", "median")
    nested = CNMFParams().change_params({"temporal": {"p": 1}})
    assert (nested.preprocess["p"], nested.temporal["p"]) == (2, 1)


def test_older_names_of_merging():
    params = CNMFParams().change_params({"merge": {"thr": 0.6}})
    assert params.merge["thr"] == params.merging["merge_thr"] == params.get("merge", "thr") == 0.6
    assert params.change_params({"thr": 0.5}).merging["merge_thr"] == 0.5
    assert "thr" in params.merge


def test_background_number_of_other_groups_is_ignored():
    with pytest.warns(UserWarning, match=r"spatial\.nb follows init\.nb"):
        params = CNMFParams().change_params({"spatial": {"nb": 3}})
    assert params.spatial["nb"] == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"gsig": [3, 3]}, "did you mean 'gSig'"),
        ({"init": {"merge_th": 1}}, "group 'init' has no parameter 'merge_th'"),
        ({"spacial": {"dist": 3}}, "did you mean 'spatial'"),
    ],
)
def test_unknown_names_are_warned_of_and_left_out(changes, text, recwarn):
    before = CNMFParams()
    with pytest.warns(UserWarning, match=text) as warned:
        assert CNMFParams().change_params(changes) == before
    assert warned[0].filename == __file__
    recwarn.clear()
    assert CNMFParams().change_params(changes, warn_unused=False) == before
    assert not recwarn.list


def test_flat_keys_can_be_refused():
    with pytest.warns(UserWarning, match="flat keys are not allowed"):
        assert CNMFParams().change_params({"p": 1}, allow_legacy=False).temporal["p"] == 2


def test_get_and_set_name_the_nearest():
    params = CNMFParams()
    for call in (
        lambda: params.get("init", "gSgi"),
        lambda: params.get_group("initt"),
        lambda: params.set("qualty", {}),
        lambda: params.set("init", {"new": 1}, set_if_not_exists=True),
        lambda: params.init.__setitem__("k", 1),
        lambda: CNMFParams.preset("caiman-1.11"),
        lambda: CNMFParams.from_keywords({"merge_tresh": 1}),
    ):
        with pytest.raises(KeyError) as error:
            call()
        assert isinstance(error.value, UnknownParameterError)
    with pytest.raises(KeyError, match="did you mean 'gSig'"):
        params.get("init", "gsig")
    with pytest.warns(UserWarning, match="did you mean 'gSig'") as warned:
        params.set("init", {"gsig": 3, "K": 4})
    assert warned[0].filename == __file__
    assert params.init["K"] == 4


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"decay_time": 0}, r"data\.decay_time=0.*above 0"),
        ({"fr": -1}, "above 0"),
        ({"noise_method": "max"}, "one of 'mean', 'median', 'logmexp'"),
        ({"p": -1}, "0 or more"),
        ({"gSig": "five"}, "sequence of 2 or 3"),
        ({"nrgthr": 2}, "from 0 to 1"),
        ({"fnames": []}, "empty list"),
    ],
)
def test_a_value_that_cannot_work_changes_nothing(changes, text):
    params = CNMFParams()
    with pytest.raises(ParameterError, match=text):
        params.change_params({"K": 3, **changes})
    assert params == CNMFParams()


def test_groups_cannot_lose_or_gain_keys():
    group = CNMFParams().init
    with pytest.raises(ParameterError, match="cannot be removed"):
        group.pop("K")
    with pytest.raises(KeyError):
        group.update(K=1, nothing=2)
    assert group["K"] == 30
    group |= {"K": 5}
    assert {**group}["K"] == 5
    assert group.setdefault("K", 9) == 5


def test_copies_are_copies():
    params = CNMFParams()
    params.to_dict()["init"]["gSig"].append(1)
    params.get_group("init")["K"] = 1
    assert params == CNMFParams()
    CNMFParams().init["gSig"].append(1)
    assert CNMFParams().init["gSig"] == [5, 5]


def test_json_round_trip(tmp_path):
    changes = {
        "motion": {"indices": (slice(2, 50), slice(None, None, 2))},
        "spatial": {"expandCore": np.ones((3, 3), int), "medw": (3, 3), "se": np.ones((3, 3), np.uint8)},
        "online": {"ds_factor": 2, "max_shifts_online": 9},
        "init": {"gSig": [4, 3], "K": np.int64(3)},
        "preprocess": {"sn": np.arange(3.0)},
    }
    params = CNMFParams(params_dict=changes)
    params.to_jsonfile(tmp_path / "p.json")
    for loaded in (
        CNMFParams(params_from_file=tmp_path / "p.json"),
        CNMFParams().change_params_from_json(tmp_path / "p.json"),
        CNMFParams.from_json(params.to_json()),
    ):
        assert loaded == params
        assert loaded.motion["indices"] == changes["motion"]["indices"]
        assert loaded.online["max_comp_update_shape"] == np.inf
        assert loaded.online["max_shifts_online"] == 4
        assert isinstance(loaded.motion["strides"], tuple)
        assert loaded.init["kernel"] is None
        assert_array_equal(loaded.spatial["expandCore"], np.ones((3, 3)))
    assert json.loads(params.to_json())["motion"]["indices"] == [[2, 50, None], [None, None, 2]]


def test_order_of_file_keywords_and_dict(tmp_path):
    CNMFParams(k=5, p=1, ssub=1).to_jsonfile(tmp_path / "p.json")
    params = CNMFParams(k=6, p=0, params_dict={"p": 1}, params_from_file=tmp_path / "p.json")
    assert (params.init["K"], params.temporal["p"], params.init["ssub"]) == (6, 1, 1)


def test_files_that_are_not_parameters(tmp_path):
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(ParameterError, match="is not JSON"):
        CNMFParams(params_from_file=tmp_path / "p.json")
    (tmp_path / "p.json").write_text("[1]")
    with pytest.raises(ParameterError, match="is not JSON"):
        CNMFParams.from_json("{")
    with pytest.raises(ParameterError, match="holds a list"):
        CNMFParams(params_from_file=tmp_path / "p.json")
    with pytest.raises(FileNotFoundError):
        CNMFParams(params_from_file=tmp_path / "q.json")


def test_describe_and_repr_tell_what_changed():
    params = CNMFParams(fr=12.5)
    assert "* fr" in params.describe("data")
    assert params.describe().count("\n") > 180
    assert repr(params) == "CNMFParams(data.fr=12.5)"


def test_description_is_a_text_and_a_notebook_table():
    params = CNMFParams(fr=12.5)
    text = params.describe("data")
    assert text.splitlines()[0].split() == ["parameter", "value", "default", "meaning"]
    (line,) = [line for line in text.splitlines() if line.startswith(" * fr ")]
    assert line.split()[2:4] == ["12.5", "30"]
    assert "frames per second" in line
    assert repr(text) == str(text)
    page = params.describe()._repr_html_()
    assert page.count("<tr>") == 1 + sum(map(len, TABLE.values()))
    assert "<td><span>data</span></td><td><b>fr</b></td><td><b>12.5</b></td><td><span>30</span></td>" in page
    assert "<th>group</th><th>parameter</th><th>value</th><th>default</th><th>meaning</th>" in page
    params.change_params({"var_name_hdf5": "<mov>"})
    assert "&lt;mov&gt;" in params.describe("data")._repr_html_()
    with pytest.raises(UnknownParameterError, match="did you mean 'data'"):
        params.describe("dta")


def test_verbose_logs_changes(caplog):
    caplog.set_level("INFO", "gpucalcium")
    CNMFParams().change_params({"fr": 10}, verbose=True).set("init", {"K": 2}, verbose=True)
    assert "data.fr: 30 -> 10" in caplog.text
    assert "init.K: 30 -> 2" in caplog.text


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "fr": st.floats(0.1, 1000),
            "K": st.none() | st.integers(0, 500),
            "nb": st.integers(-2, 5),
            "gSig": st.lists(st.floats(0.5, 20), min_size=2, max_size=3),
            "gSiz": st.none() | st.integers(1, 50),
            "ds_factor": st.integers(1, 5),
            "max_shifts_online": st.integers(0, 40),
            "method_init": st.sampled_from(["greedy_roi", "CORR_PNR", "sparse_NMF"]),
        },
    )
)
def test_round_trips_and_repeats_agree_for_any_change(changes):
    params = CNMFParams(params_dict=changes)
    assert CNMFParams().change_params(from_json(params.to_json())) == params
    assert copy.deepcopy(params).change_params(changes) == params
    params.check_consistency()
    assert CNMFParams(params_dict=changes) == params
