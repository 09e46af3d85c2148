"""Messages over real sockets: signed so that the receivers' own library takes them, and never in the way."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import apprise
import pytest
from receiver import Receiver
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from watcher import webhook
from watcher.digest import Notice
from watcher.errors import ConfigError
from watcher.messenger import MOST_WAITING, Messenger
from watcher.notify_settings import SECRET, Notify, secret_of
from watcher.receivers import receivers_of
from watcher.webhook import NotSent, post

KEY = bytes(range(32))
TEXT = base64.b64encode(KEY).decode()
NOTICE = Notice("folder", "in", ("failed",), 0, 2, ("a.jpg", "b.jpg"))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver.open() as server:
        yield server


def send(receiver: Receiver, message_id: str = "msg_1") -> None:
    post(receiver.url + "/hook?a=1", NOTICE.as_json(), key=KEY, message_id=message_id, now=time.time())


def test_what_arrives_is_what_the_receivers_library_believes(receiver):
    send(receiver)
    [(path, headers, body)] = receiver.got
    assert path == "/hook?a=1"
    assert Webhook(TEXT).verify(body, headers) == NOTICE.as_json()
    assert headers["webhook-id"] == "msg_1"
    for wrong in (body.replace(b"a.jpg", b"c.jpg"), body + b" "):
        with pytest.raises(WebhookVerificationError):
            Webhook(TEXT).verify(wrong, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(TEXT).verify(body, {**headers, "webhook-id": "msg_2"})
    with pytest.raises(WebhookVerificationError):
        Webhook(TEXT).verify(body, {**headers, "webhook-timestamp": str(int(time.time()) - 3600)})


def test_the_snippet_of_the_docs_tells_true_from_false(receiver, photos):
    page = (photos.parents[1] / "docs" / "notifications.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102  (it is ours, and this is what it is for)
    send(receiver)
    [(_, headers, body)] = receiver.got
    assert names["genuine"](headers, body, TEXT)
    assert not names["genuine"](headers, body + b" ", TEXT)
    assert not names["genuine"]({**headers, "webhook-timestamp": "1"}, body, TEXT)
    assert not names["genuine"]({**headers, "webhook-signature": "v1,AAAA"}, body, TEXT)


@pytest.mark.parametrize(
    ("answer", "final"), [("500", False), ("503", False), ("429", False), ("404", True), ("302", True)]
)
def test_a_refusal_says_whether_another_try_is_worth_it(receiver, answer, final):
    receiver.answers = [answer]
    with pytest.raises(NotSent, match=answer) as refused:
        send(receiver)
    assert refused.value.final is final
    assert [path for path, *_ in receiver.got] == ["/hook?a=1"]


@pytest.mark.parametrize("answer", ["hang", "drip"])
def test_a_receiver_that_hangs_or_drips_is_let_go(receiver, monkeypatch, answer):
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(webhook, "WHOLE_S", 0.4)
    receiver.answers = [answer]
    with pytest.raises(NotSent) as refused:
        send(receiver)
    # Nor does what it says get into the log, as long as it likes.
    assert "xxx" not in str(refused.value)


def test_a_receiver_that_is_not_there_is_said_so():
    with pytest.raises(NotSent, match="refused"):
        post("http://127.0.0.1:1/", {}, key=KEY, message_id="m", now=0)


# --- The thread ----------------------------------------------------------------------------


def test_errors_are_tried_again_under_the_same_id_and_in_order(receiver, eventually):
    receiver.answers = ["500", "503"]
    messenger = Messenger("webhook", lambda _, id_: send(receiver, id_), first=0.01)
    messenger.put(NOTICE)
    messenger.put(NOTICE)
    eventually(lambda: messenger.sent == 2)
    ids = [headers["webhook-id"] for _, headers, _ in receiver.got]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    messenger.close()


def test_what_is_refused_for_good_does_not_hold_up_the_next(receiver, eventually):
    receiver.answers = ["410"]
    messenger = Messenger("webhook", lambda _, id_: send(receiver, id_), first=60)
    messenger.put(NOTICE)
    messenger.put(NOTICE)
    eventually(lambda: messenger.sent == 1)
    assert messenger.failed == 1
    messenger.close()


def test_whoever_tells_a_receiver_that_hangs_does_not_wait(receiver, eventually):
    receiver.answers = ["hang"]
    messenger = Messenger("webhook", lambda _, id_: send(receiver, id_))
    messenger.put(NOTICE)
    eventually(lambda: receiver.got)
    for _ in range(MOST_WAITING + 7):
        messenger.put(NOTICE)
    assert messenger.failed == 7
    messenger.close(grace=0.0)
    receiver.ended.set()


# --- Settings ------------------------------------------------------------------------------


def test_a_secret_comes_from_a_file_or_from_the_environment(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text(f"whsec_{TEXT}\n")
    assert secret_of(Notify(secret_file=tmp_path / "secret")) == KEY
    monkeypatch.setenv(SECRET, TEXT)
    assert secret_of(Notify()) == KEY


@pytest.mark.parametrize("text", ["", "not base64!", base64.b64encode(b"short").decode(), "ü"])
def test_a_secret_that_would_not_do_is_refused_with_how_to_make_one(tmp_path, text):
    (tmp_path / "secret").write_text(text)
    with pytest.raises(ConfigError) as refused:
        secret_of(Notify(secret_file=tmp_path / "secret"))
    assert "urandom" in refused.value.remedy


def test_without_a_secret_nothing_is_sent(monkeypatch):
    monkeypatch.delenv(SECRET, raising=False)
    with pytest.raises(ConfigError, match=SECRET):
        receivers_of(Notify(webhook="https://example.org/"))


@pytest.fixture
def quiet_apprise() -> Iterator[None]:
    """Apprise keeps threads for the life of a process; a test leaves none."""
    yield
    for name in ("_shared_executor", "_coordinator_executor"):
        executor = getattr(apprise.apprise, name, None)
        if executor is not None:
            executor.shutdown()
            setattr(apprise.apprise, name, None)


@pytest.mark.usefixtures("quiet_apprise")
def test_apprise_delivers_what_it_is_given_and_its_address_stays_out_of_the_name(receiver):
    port = receiver.server_address[1]
    [(name, tell)] = receivers_of(Notify(apprise=(f"json://user:word@127.0.0.1:{port}/chat",))).items()
    assert "word" not in name
    tell(NOTICE, "msg_1")
    [(path, _, body)] = receiver.got
    assert path == "/chat"
    assert json.loads(body)["message"] == NOTICE.text
    receiver.answers = ["500"]
    with pytest.raises(NotSent):
        tell(NOTICE, "msg_1")


def test_an_address_that_apprise_does_not_know_is_a_wrong_configuration():
    with pytest.raises(ConfigError, match=r"1\. address"):
        receivers_of(Notify(apprise=("carrier-pigeon://loft",)))
