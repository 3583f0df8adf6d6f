from tamis import machine


def test_the_machine_is_told_in_words(monkeypatch):
    assert machine.machine()
    assert "\n" not in machine.machine()
    monkeypatch.setattr(machine.Path, "read_text", lambda *given, **more: "nothing : of\nuse\n\n")
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "chip")
    monkeypatch.setattr(machine, "gpu_name", lambda: "a GPU")
    assert machine.machine() == "chip, a GPU"
