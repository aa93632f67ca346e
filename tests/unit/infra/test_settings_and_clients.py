from __future__ import annotations

import pytest

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.clients import LOCAL_CREDENTIALS, Clients, NotLocal
from streamgauge.settings import Endpoints

LOCAL = Endpoints(aws="http://127.0.0.1:4566", kinesis="http://127.0.0.1:4567")


def test_the_specific_address_wins_over_the_general_one() -> None:
    found = Endpoints.from_environment(
        {
            "AWS_ENDPOINT_URL": "http://a:1",
            "AWS_ENDPOINT_URL_KINESIS": "http://k:2",
            "AWS_ENDPOINT_URL_S3": "http://s:3",
        }
    )
    assert [found.url(service) for service in ("dynamodb", "kinesis", "s3")] == [
        "http://a:1",
        "http://k:2",
        "http://s:3",
    ]


def test_a_general_address_is_kinesis_too() -> None:
    assert Endpoints.from_environment({"AWS_ENDPOINT_URL": "http://a:1"}).kinesis == "http://a:1"


def test_without_addresses_aws_itself_is_meant() -> None:
    found = Endpoints.from_environment({"AWS_ENDPOINT_URL": "", "PATH": "/bin"})
    assert found == Endpoints(aws=None, kinesis=None) and not found.are_local


def test_the_environment_wins_over_the_stack() -> None:
    general = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    assert Endpoints.from_environment(general, stack=LOCAL) == Endpoints(
        general["AWS_ENDPOINT_URL"], "http://127.0.0.1:1"
    )
    specific = {"AWS_ENDPOINT_URL_KINESIS": "http://127.0.0.1:2"}
    assert Endpoints.from_environment(specific, stack=LOCAL) == Endpoints(LOCAL.aws, "http://127.0.0.1:2")
    assert Endpoints.from_environment({}, stack=LOCAL) == LOCAL


def test_naming_the_stacks_own_address_keeps_its_kinesis() -> None:
    assert LOCAL.aws is not None
    assert Endpoints.from_environment({"AWS_ENDPOINT_URL": LOCAL.aws}, stack=LOCAL) == LOCAL


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"])
def test_loopback_addresses_are_local(url: str) -> None:
    assert Endpoints(url, url).are_local


@pytest.mark.parametrize(
    "url", ["https://kinesis.us-east-1.amazonaws.com", "http://10.0.0.1:4566", "http://127.0.0.1.nip.io"]
)
def test_one_address_elsewhere_is_not_local(url: str) -> None:
    assert not Endpoints("http://127.0.0.1:1", url).are_local
    assert not Endpoints("http://127.0.0.1:1", "http://127.0.0.1:1", {"s3": url}).are_local


def test_a_client_of_aws_itself_needs_live() -> None:
    with pytest.raises(NotLocal, match=r"AWS itself.*--live"):
        _ = Clients(Endpoints(None, None), region="us-east-1").kinesis
    live = Clients(Endpoints(None, None), region="eu-west-1", live=True).kinesis
    assert live.meta.endpoint_url == "https://kinesis.eu-west-1.amazonaws.com"


def test_each_service_is_guarded_by_itself() -> None:
    clients = Clients(Endpoints(LOCAL.aws, LOCAL.kinesis, {"s3": "http://10.0.0.1:9000"}), region="us-east-1")
    assert clients.sqs.meta.endpoint_url == LOCAL.aws
    with pytest.raises(NotLocal, match=r"s3: .*10\.0\.0\.1"):
        _ = clients.s3
    with pytest.raises(NotLocal):
        clients.credentials("s3")


def test_a_users_own_keys_are_not_sent_to_a_local_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA-THE-USERS-OWN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    clients = Clients(LOCAL, region="us-east-1")
    signed = clients.s3.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    assert "AKIA" not in signed and signed.startswith("http://127.0.0.1:4566/b/k?")
    assert clients.credentials("s3") == LOCAL_CREDENTIALS


def test_an_unknown_profile_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StreamgaugeError, match="nobody"):
        Clients(LOCAL)


def test_a_client_is_made_once() -> None:
    clients = Clients(LOCAL, region="us-east-1")
    assert clients.dynamodb is clients.dynamodb
