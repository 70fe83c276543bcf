from gpucalcium.backend import doctor


def test_report_names_machine_gpu_kernels_settings_and_packages():
    text = doctor.report()
    for topic in ("Python", "CPU", "memory budget", "GPU", "CUDA kernels", "GPUCALCIUM_MEMORY", "torch"):
        assert any(line[4:].startswith(topic) for line in text.splitlines()), topic
    assert all(line[:2] in ("ok", "--", "!!") for line in text.splitlines())


def test_a_setting_that_cannot_be_read_is_reported_not_raised(monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_THREADS", "some")
    bad = [f for f in doctor.examine() if f.good is False]
    assert any("GPUCALCIUM_THREADS: threads 'some': expected a whole number" in f.text for f in bad)


def test_an_absent_package_names_its_extra(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    lines = {f.topic: f.text for f in doctor.examine()}
    assert "pip install 'gpucalcium[nwb]'" in lines["pynwb"]
