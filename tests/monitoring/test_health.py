import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tamis.monitoring.health import Snapshot, health_of, read_metrics, scrape
from tamis.monitoring.settings import HealthLimits

LIMITS = HealthLimits()


def page(ok=1_000, failed=0, busy=0, full=0, slow=0, dropped=0):
    """Metrics as a service tells them."""
    fast = ok - slow
    return f"""
# TYPE tamis_requests_total counter
tamis_requests_total{{route="/score",status="200"}} {ok - 10}
tamis_requests_total{{route="/predict",status="200"}} 10
tamis_requests_total{{route="/score",status="500"}} {failed}
tamis_requests_total{{route="/score",status="429"}} {busy}
tamis_requests_total{{route="/score",status="503"}} {full}
tamis_requests_total{{route="/readyz",status="503"}} 5000
# TYPE tamis_request_seconds histogram
tamis_request_seconds_bucket{{route="/score",le="0.1"}} {fast}
tamis_request_seconds_bucket{{route="/score",le="2.0"}} {ok}
tamis_request_seconds_bucket{{route="/score",le="+Inf"}} {ok}
tamis_request_seconds_count{{route="/score"}} {ok}
# TYPE tamis_queue_documents gauge
tamis_queue_documents 7.0
# TYPE tamis_log_records_total counter
tamis_log_records_total {ok}
# TYPE tamis_log_dropped_total counter
tamis_log_dropped_total {dropped}
"""


def told(**given):
    return health_of([read_metrics(page(**given))], LIMITS)


def test_a_healthy_service_is_well():
    found = told()
    assert (found.requests, found.errors, found.rejected, found.queue) == (1_000, 0, 0, 7)
    assert found.p95_seconds == pytest.approx(0.095) and not found.ill and found.whole


@pytest.mark.parametrize(
    ("given", "check"),
    [
        ({"failed": 50}, "errors"),
        ({"busy": 50, "full": 60}, "rejected"),
        ({"slow": 200}, "latency"),
    ],
)
def test_each_illness_is_told(given, check):
    found = told(**given)
    assert [reason.check for reason in found.reasons() if not reason.passed] == [check]


def test_one_error_of_few_requests_is_chance():
    assert not told(ok=20, failed=1).ill
    assert told(ok=20, failed=10).ill


def test_between_two_looks_only_what_happened_since_counts():
    before, now = (read_metrics(page(ok=ok, failed=90, dropped=3)) for ok in (1_000, 2_000))
    assert health_of([now], LIMITS).ill
    found = health_of([now], LIMITS, [before])
    assert (found.requests, found.errors, found.dropped, found.whole) == (1_000, 0, 0, False)
    # A process that began anew has counted from nought.
    again = health_of([before], LIMITS, [now])
    assert again.requests == 1_090 and not again.whole


def test_processes_are_added_up_and_silent_ones_counted():
    found = health_of([read_metrics(page()), None, read_metrics(page(failed=30))], LIMITS)
    assert (found.requests, found.errors, found.unreachable) == (2_030, 30, 1)
    assert found.ill
    nothing = health_of([], LIMITS)
    assert nothing.requests == 0 and nothing.p95_seconds is None and not nothing.ill


def test_slower_than_the_last_bucket_is_at_least_its_edge():
    found = Snapshot(latency={"1.0": 10, "+Inf": 100}, requests={"200": 100})
    assert health_of([found], LIMITS).p95_seconds == 1.0
    odd = Snapshot(latency={"": 3, "nan": 4, "0.5": 1})
    assert health_of([odd], LIMITS).p95_seconds == pytest.approx(0.475)


class Service(BaseHTTPRequestHandler):
    def do_GET(self):
        body = {"/metrics": page().encode(), "/odd": b'broken{le="} x\n\xff'}.get(self.path)
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_):
        pass


def test_metrics_are_fetched_and_what_is_none_is_no_answer():
    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        assert scrape(f"{url}/metrics").requests["200"] == 1_000
        assert scrape(f"{url}/odd") is None and scrape(f"{url}/none") is None
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert scrape(f"{url}/metrics", 0.5) is None and scrape("file:///etc/hostname") is None
