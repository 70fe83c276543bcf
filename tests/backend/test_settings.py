import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucalcium.backend import settings
from gpucalcium.errors import ParameterError, UnknownParameterError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 << 30),
        ("8 gib", 8 << 30),
        ("500MB", 500_000_000),
        ("1.5KiB", 1536),
        ("123", 123),
        (4096, 4096),
    ],
)
def test_amounts_of_memory(text, size):
    assert settings.parse_memory(text).of(1 << 50) == size


def test_share_counts_from_what_the_device_has():
    assert settings.parse_memory("60%").of(1000) == 600
    assert settings.parse_memory("2GiB").of(1000) == 1000, "never more than there is"


@pytest.mark.parametrize("text", ["", "lots", "-1", "0", "0%", "101%", "8 GX", "1e9", 0, -5, "NaN%"])
def test_unreadable_amount_says_what_is_expected(text):
    with pytest.raises(ParameterError, match="expected an amount such as '8GiB'"):
        settings.parse_memory(text)


@given(st.integers(1, 1 << 40))
def test_bytes_round_trip(size):
    assert settings.parse_memory(size).bytes == settings.parse_memory(str(size)).bytes == size


def test_variable_is_honoured_as_soon_as_it_is_set(monkeypatch):
    monkeypatch.delenv("GPUCALCIUM_THREADS", raising=False)
    assert settings.get("threads") is None
    monkeypatch.setenv("GPUCALCIUM_THREADS", "3")
    assert settings.get("threads") == 3
    monkeypatch.setenv("GPUCALCIUM_THREADS", "5")
    assert settings.get("threads") == 5


def test_bad_value_names_the_variable(monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_MEMORY", "much")
    with pytest.raises(ParameterError, match="environment variable GPUCALCIUM_MEMORY: memory 'much'"):
        settings.get("memory")


def test_other_programs_variable_is_the_fallback(monkeypatch, tmp_path):
    monkeypatch.delenv("GPUCALCIUM_TEMP", raising=False)
    monkeypatch.setenv("CAIMAN_TEMP", str(tmp_path))
    assert settings.get("temp") == tmp_path
    monkeypatch.setenv("GPUCALCIUM_TEMP", "/elsewhere")
    assert str(settings.get("temp")) == "/elsewhere"


def test_unknown_setting_lists_the_known():
    with pytest.raises(UnknownParameterError, match=r"no setting 'colour'; there are device, memory"):
        settings.get("colour")


@pytest.mark.parametrize("name", settings.SETTINGS)
def test_every_setting_is_explained_and_its_default_parses(name, monkeypatch):
    setting = settings.SETTINGS[name]
    for variable in (setting.variable, *setting.fallbacks):
        monkeypatch.delenv(variable, raising=False)
    assert setting.variable.startswith("GPUCALCIUM_")
    assert setting.doc.endswith(".")
    assert (settings.get(name) is None) == (setting.default is None)
