"""Releases with a real nginx, real processes and clients that count every answer."""

import http.client
import socket
import threading
import time

import psutil
import pytest

from deployment.releasing.processes import free_port
from tamis.errors import EngineError, OutputBusy, UsageError
from tests.deployment.releasing.load import Load, ask, until


def nothing_lost(load):
    return load.lost == [] and set(load.counts) == {200}


def failed(outcome):
    """Checks that did not pass, without the phase."""
    return {r.check.rpartition(": ")[2] for r in outcome.decision.reasons if not r.passed}


def last(stand):
    entry = stand.ledger.entries()[-1]
    return entry.action, entry.version, entry.champion


def test_a_good_canary_is_promoted_under_load(make_stand):
    stand = make_stand(steps=[5, 50], min_requests=15)
    stand.serve("1")
    stand.version("2")
    stand.registry.set_alias("toy", "challenger", "2")
    with Load(stand.port) as load:
        outcome = stand.controller().release(stand.spec("2"))
    assert (outcome.end, outcome.champion) == ("promoted", "2")
    assert outcome.decision.passed and outcome.traffic.shares == {"2": 100}
    assert nothing_lost(load)
    # 5%, then a half, then all: the champion still answered most.
    assert load.versions["1"] > load.versions["2"] > 20
    assert stand.agreed() == "2"
    assert stand.registry.aliases == {"champion": "2"}
    entry = stand.ledger.entries()[-1]
    assert (entry.action, entry.previous, entry.release) == ("promoted", "1", "000002")
    assert any("of the champion's" in reason for reason in entry.reasons)
    assert stand.target.running() == {"2"}
    assert [p.phase.name for p in stand.progress][-1] == "canary 50%"


def test_a_canary_that_errs_rolls_itself_back_and_no_client_notices(make_stand):
    stand = make_stand(steps=[20, 50], max_seconds=15.0)
    stand.serve("1")
    stand.version("2", errors=0.25)
    with Load(stand.port) as load:
        outcome = stand.controller().release(stand.spec("2"))
    assert outcome.end == "rolled back" and "errors" in failed(outcome)
    assert nothing_lost(load)  # the champion was asked where the challenger failed
    assert last(stand) == ("refused", "2", "1")
    assert any("failed: canary 20%: errors" in r for r in stand.ledger.entries()[-1].reasons)
    assert stand.agreed() == "1"
    assert stand.target.running() == {"1"}


def test_a_canary_with_shifted_scores_rolls_itself_back(make_stand):
    stand = make_stand(steps=[50], min_requests=100)
    stand.serve("1")
    stand.version("2", shift=0.3)
    with Load(stand.port, pause=0.002) as load:
        outcome = stand.controller().release(stand.spec("2"))
    assert outcome.end == "rolled back"
    assert failed(outcome) >= {"scores"}
    assert nothing_lost(load)
    assert stand.agreed() == "1"


def test_a_challenger_that_dies_costs_no_request(make_stand):
    stand = make_stand(steps=[50], min_requests=10_000)
    stand.serve("1")
    stand.version("2", dies=40)
    with Load(stand.port) as load:
        outcome = stand.controller().release(stand.spec("2"))
    assert (outcome.end, failed(outcome)) == ("rolled back", {"ready"})
    assert nothing_lost(load)
    assert last(stand) == ("refused", "2", "1")
    assert stand.agreed() == "1"


def test_a_challenger_that_does_not_start_is_refused(make_stand):
    stand = make_stand()
    stand.serve("1")
    stand.version("2", broken=True)
    outcome = stand.controller().release(stand.spec("2"))
    assert (outcome.end, failed(outcome)) == ("rolled back", {"ready"})
    assert "the model is damaged" in outcome.decision.reasons[0].detail
    assert stand.agreed() == "1"


@pytest.mark.parametrize(("shift", "end"), [(0.01, "promoted"), (0.25, "rolled back")])
def test_a_shadow_answers_nobody_and_is_compared_document_by_document(make_stand, shift, end):
    stand = make_stand(min_requests=150)
    stand.serve("1")
    stand.version("2", shift=shift)
    with Load(stand.port) as load:
        outcome = stand.controller().release(stand.spec("2", "shadow"))
    assert outcome.end == end
    details = {r.check: r.detail for r in outcome.decision.reasons}
    assert "documents decided as the champion" in details["shadow: agreement"]
    told = details["shadow: score difference"]
    # Scores are cut off at 1, so the difference is a little less than the shift.
    assert float(told.split("differ by ")[1].split()[0]) == pytest.approx(shift, rel=0.2)
    if end == "rolled back":
        assert failed(outcome) & {"agreement", "score difference"}
        assert load.versions["2"] == 0
    assert nothing_lost(load)
    assert stand.agreed() == ("2" if end == "promoted" else "1")


def test_a_slow_shadow_is_noticed(make_stand):
    stand = make_stand(min_requests=30, limits={"latency_slack_ms": 10.0})
    stand.serve("1")
    stand.version("2", slow=0.05)
    with Load(stand.port) as load:
        outcome = stand.controller().release(stand.spec("2", "shadow"))
    assert (outcome.end, failed(outcome)) == ("rolled back", {"latency"})
    assert nothing_lost(load)


def test_blue_green_keeps_the_old_one_warm_and_goes_back_to_it(make_stand):
    stand = make_stand(min_requests=50)
    stand.serve("1")
    stand.version("2")
    blue = stand.target._daemon("1").identity()
    with Load(stand.port) as load:
        outcome = stand.controller().release(stand.spec("2", "blue-green"))
        assert outcome.end == "promoted"
        assert {p.phase.name for p in stand.progress} == {"blue", "green"}
        assert stand.target.running() == {"1", "2"}
        assert stand.agreed() == "2"
        back = stand.controller().rollback()
    assert (back.end, back.champion) == ("rolled back", "1")
    assert stand.target._daemon("1").identity() == blue  # never stopped
    assert nothing_lost(load)
    assert last(stand) == ("rolled_back", "1", "1")
    assert stand.agreed() == "1"
    assert stand.target.running() == {"1"}


def test_rollbacks_by_hand_go_back_one_champion_each(make_stand):
    stand = make_stand()
    stand.serve("1")
    for version in ("2", "3"):
        stand.version(version)
        with Load(stand.port) as load:
            assert stand.controller().release(stand.spec(version)).end == "promoted"
    with Load(stand.port) as load:
        assert stand.controller().rollback().champion == "2"
        assert stand.agreed() == "2"
        assert stand.controller().rollback().champion == "1"
    assert nothing_lost(load)
    assert stand.agreed() == "1"
    before = len(stand.ledger.entries())
    with pytest.raises(UsageError, match="version 1 has no champion before it"):
        stand.controller().rollback()
    assert (len(stand.ledger.entries()), stand.agreed()) == (before, "1")


def test_without_traffic_there_is_no_promotion(make_stand):
    stand = make_stand(max_seconds=0.5)
    stand.serve("1")
    stand.version("2")
    outcome = stand.controller().release(stand.spec("2"))
    assert outcome.end == "rolled back"
    told = outcome.decision.reasons[0].detail
    assert told.startswith("undecided: not enough traffic: the challenger had 0 requests")
    assert last(stand) == ("refused", "2", "1")


def test_an_interrupted_trial_is_taken_back(make_stand):
    stand = make_stand(min_requests=10_000)
    stand.serve("1")
    stand.version("2")

    def interrupt(progress):
        raise KeyboardInterrupt

    controller = stand.controller()
    controller._watch = interrupt
    outcome = controller.release(stand.spec("2"))
    assert (outcome.end, last(stand)) == ("rolled back", ("aborted", "2", "1"))
    assert stand.agreed() == "1"
    assert stand.target.running() == {"1"}


def test_one_release_at_a_time(make_stand):
    stand = make_stand(min_requests=10_000)
    stand.serve("1")
    stand.version("2")
    seen = threading.Event()
    stop = threading.Event()

    def hold(progress):
        seen.set()
        if stop.wait(0.01):
            raise KeyboardInterrupt

    controller = stand.controller()
    controller._watch = hold
    spec = stand.spec("2")
    thread = threading.Thread(target=controller.release, args=(spec,))
    thread.start()
    try:
        assert seen.wait(10)
        for other in (
            lambda: stand.controller().release(spec),
            stand.controller().resume,
            stand.controller().rollback,
        ):
            with pytest.raises(OutputBusy, match="another release or rollback is under way"):
                other()
    finally:
        stop.set()
        thread.join()
    assert stand.agreed() == "1"


def test_what_died_with_the_machine_serves_again_after_resume(make_stand):
    stand = make_stand()
    stand.serve("1")
    service = stand.target._daemon("1").identity().pid
    for pid in (stand.target._nginx.master(), service):
        psutil.Process(pid).kill()  # nginx's workers stay, and keep its port
    wait_gone(stand)
    assert stand.target.state().shares == {}
    outcome = stand.controller().resume()
    assert (outcome.end, outcome.traffic.shares) == ("serves", {"1": 100})
    assert stand.agreed() == "1"


def wait_gone(stand):
    until = time.monotonic() + 10
    while stand.target.running() or stand.target._nginx.master() is not None:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_resume_makes_registry_and_traffic_follow_the_ledger(make_stand):
    stand = make_stand()
    stand.serve("1")
    stand.version("2")
    stand.ledger.append("promoted", "2", "1", "2", (), "promote")  # whose alias was never moved
    with pytest.raises(UsageError, match="registry says version 1 is champion, the ledger says 2"):
        stand.controller().release(stand.spec("2"))
    assert stand.controller().resume().champion == "2"
    assert stand.agreed() == "2"
    assert stand.target.running() == {"2"}


def test_a_process_number_of_another_program_is_not_ours(make_stand):
    """After a restart of the machine numbers are given out anew."""
    stand = make_stand()
    stand.serve("1")
    stand.target.end()
    mine = psutil.Process()
    folder = stand.folder / "serving"
    (folder / "nginx" / "nginx.pid").write_text(f"{mine.pid}\n")
    (folder / "versions" / "1" / "identity.json").write_text(
        f'{{"pid": {mine.pid}, "created": {mine.create_time()}, "port": 1}}'
    )
    assert stand.target.running() == frozenset()
    stand.target.end()  # ends nobody
    assert stand.controller().resume().champion == "1"
    assert stand.agreed() == "1"


def test_the_front_answers_in_the_form_of_the_service(make_stand):
    stand = make_stand()
    stand.serve("1")
    status, answer, headers = ask(stand.port, "x" * (5 << 20))
    assert (status, answer["error"]["code"]) == (413, "body_too_large")
    assert answer["request_id"] == headers["X-Request-ID"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "nginx/" not in headers.get("Server", "")
    given = {"X-Request-ID": "my-request-1", "X-Tamis-Shadow": "1"}
    assert ask(stand.port, "a", headers=given)[2]["X-Request-ID"] == "my-request-1"
    forged = ask(stand.port, "a", headers={"X-Request-ID": "a b"})[2]["X-Request-ID"]
    assert len(forged) == 32
    assert get(stand.port, "/metrics") == 404
    assert (get(stand.port, "/readyz"), get(stand.port, "/tamis-shadow")) == (200, 404)
    stand.target.measure(True)
    ask(stand.port, "a secret text")
    # nginx writes the line after the answer has gone out.
    until(lambda: stand.target.observe("1").requests == 1)
    logs = (stand.folder / "serving" / "nginx").rglob("*")
    assert not any(b"secret" in file.read_bytes() for file in logs if file.is_file())
    # What a client says of shadows is not passed on.
    lines = "".join(file.read_text() for file in (stand.log / "segments").iterdir())
    assert "my-request-1" in lines
    assert '"shadow": true' not in lines


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_port_that_is_taken_is_told(make_stand):
    port = free_port()
    stand = make_stand(local={"port": port})
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        stand.version("1")
        stand.registry.set_alias("toy", "champion", "1")
        with pytest.raises(EngineError, match=f"nginx refuses to start.*{port}"):
            stand.controller().release(stand.spec("1", kind="deploy"))
    assert stand.controller().resume().champion == "1"
    assert stand.target.state().shares == {"1": 100}


def test_stopping_what_has_traffic_is_refused(make_stand):
    stand = make_stand()
    stand.serve("1")
    with pytest.raises(UsageError, match="it has traffic"):
        stand.target.stop("1")
    with pytest.raises(EngineError, match="version 9 does not run"):
        stand.target.route({"1": 50, "9": 50}, None)
    assert stand.agreed() == "1"
