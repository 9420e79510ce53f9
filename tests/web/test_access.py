import socket

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from aha.web.access import AccessControl, is_loopback, new_token
from aha.web.dashboard import make_app

TOKEN = "a-token"


@pytest.fixture
def local(run) -> TestClient:
    return TestClient(make_app(run.parent), base_url="http://127.0.0.1:8765")


@pytest.fixture
def open_house(run) -> TestClient:
    """Bound to every address, so that a token is asked for."""
    app = make_app(run.parent, "0.0.0.0", TOKEN)
    return TestClient(app, base_url="http://192.168.1.5:8765", follow_redirects=False)


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "[::1]:8765", "127.0.0.1"])
def test_the_loopback_is_served(local, host):
    assert local.get("/api/runs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "10.0.0.1", "", "a:b:c"]
)
def test_a_foreign_host_is_refused(local, host):
    assert local.get("/api/runs", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
def test_a_foreign_origin_is_refused(local, origin):
    assert local.get("/api/runs", headers={"origin": origin}).status_code == 403


def test_our_own_origin_is_served(local):
    assert local.get("/api/runs", headers={"origin": "http://127.0.0.1:8765"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(local, method):
    assert local.request(method, "/api/runs").status_code == 405


@pytest.mark.parametrize("path", ["/", "/api/runs", "/static/app.js", "/api/runs/none", "/nowhere"])
def test_every_answer_carries_the_safety_headers(local, path):
    headers = local.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


def test_the_report_may_have_styles_of_its_own_but_no_script(local):
    policy = local.get("/api/runs/demo/report").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script" not in policy


def test_without_the_token_nothing_is_served(open_house):
    for path in ("/", "/api/runs", "/static/app.js", "/?token=wrong", "/?token="):
        assert open_house.get(path).status_code == 403


def test_the_token_in_the_address_becomes_a_cookie(open_house):
    first = open_house.get(f"/?token={TOKEN}")
    assert first.status_code == 303 and first.headers["location"] == "/"
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert open_house.get("/api/runs").status_code == 200


def test_two_servers_of_one_host_keep_their_cookies_apart(run):
    """A browser sends a cookie to every port of its host."""
    first, second = (
        TestClient(make_app(run.parent, "0.0.0.0", token), base_url=f"http://192.168.1.5:{port}")
        for token, port in (("first", 8765), ("second", 8766))
    )
    assert first.get("/api/runs?token=first").status_code == 200
    second.cookies.update(first.cookies)
    assert second.get("/api/runs?token=second").status_code == 200
    first.cookies.update(second.cookies)
    assert first.get("/api/runs").status_code == second.get("/api/runs").status_code == 200


@pytest.mark.parametrize(
    "path, location",
    [
        ("/metrics?token=a-token", "/metrics"),
        ("/api/runs/a%20b/report?save=1&token=a-token", "/api/runs/a%20b/report?save=1"),
        ("//evil.example/?token=a-token", "/evil.example/"),
        ("/%5Cevil.example/?token=a-token", "/%5Cevil.example/"),
    ],
)
def test_the_token_leads_to_the_address_that_it_came_with(open_house, path, location):
    answer = open_house.get(f"http://192.168.1.5:8765{path}")
    assert answer.status_code == 303 and answer.headers["location"] == location


@pytest.mark.parametrize("method, status", [("GET", 303), ("HEAD", 303), ("POST", 200)])
def test_a_post_with_the_token_in_its_address_is_not_redirected(method, status):
    methods = ("GET", "HEAD", "POST")
    access = AccessControl(PlainTextResponse("done"), "0.0.0.0", TOKEN, methods)
    client = TestClient(access, base_url="http://192.168.1.5", follow_redirects=False)
    assert client.request(method, f"/v1/completions?token={TOKEN}").status_code == status


def test_a_program_brings_the_token_as_its_key(open_house):
    for key, status in (("Bearer a-token", 200), ("bearer a-token", 200), ("Bearer b", 403)):
        answer = open_house.get("/api/runs", headers={"authorization": key})
        assert answer.status_code == status and "set-cookie" not in answer.headers


def test_with_a_token_a_foreign_name_is_still_refused(open_house):
    headers = {"host": "evil.example", "cookie": f"aha_token_80={TOKEN}"}
    assert open_house.get("/api/runs", headers=headers).status_code == 403


def test_a_name_with_capitals_is_this_machine_in_any_case(run, monkeypatch):
    """The address that is printed has the machine's name; browsers send it in lower case."""
    monkeypatch.setattr(socket, "gethostname", lambda: "DESKTOP-A1")
    named = TestClient(make_app(run.parent, "Laptop.local", TOKEN))
    for host in ("desktop-a1:8765", "DESKTOP-A1:8765", "laptop.local", "Laptop.local:80"):
        headers = {"host": host, "authorization": f"Bearer {TOKEN}"}
        assert named.get("/api/runs", headers=headers).status_code == 200, host


def test_what_counts_as_the_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.8.8.8")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.org")))
    assert len(new_token()) >= 32 and new_token() != new_token()
