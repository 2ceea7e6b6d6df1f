"""Requests that nobody would think of, made from the project's own description of the interface."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings

from .conftest import Server, add_done, document, lanes_of

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")

of_schema = pytest.importorskip("schemathesis.specs.openapi.checks")
CHECKS = [schemathesis.checks.not_a_server_error, of_schema.response_schema_conformance]

pytestmark = pytest.mark.slow

DOCUMENT = document()
# It has no end.
del DOCUMENT["paths"]["/api/events"]
schema = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "data"
    job = add_done(folder, lanes_of(0.2))
    # What it takes for a song is separated, and most of it fails.
    server = Server(folder, "--max-queue", "3", "--threads", "1")
    server.done = job.id
    yield server
    assert server.get("api/about").status_code == 200
    log = server.log.read_text(encoding="utf-8")
    server.stop()
    assert "Traceback" not in log


@schema.parametrize()
@settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_is_a_mistake_of_the_server(case, server):
    if case.path_parameters and len(str(case.path_parameters.get("id"))) % 3:
        case.path_parameters["id"] = server.done  # two of three about a song that is there
    if case.operation.method.upper() == "DELETE":
        case.path_parameters["id"] = "0123456789abcdef"  # which stays
    answer = case.call(
        base_url=server.url.rstrip("/"), headers={"Authorization": f"Bearer {server.token}"}
    )
    case.validate_response(answer, checks=CHECKS)
