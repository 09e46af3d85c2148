"""Words for who reads them."""

from __future__ import annotations

import pytest

from watcher.errors import HostError, InputChanged, InputNotReady, InputRejected
from watcher.fleet.brokers import BrokerLost
from watcher.wording import by_hand


@pytest.mark.parametrize("kind", [HostError, InputChanged, InputNotReady, InputRejected, BrokerLost])
def test_a_remedy_for_a_command_speaks_of_no_daemon(kind: type[HostError]) -> None:
    here = by_hand(kind.remedy)
    assert here != kind.remedy
    assert "by itself" not in here and "drop it again" not in here and here.endswith(".")


def test_other_remedies_stay_as_they_are() -> None:
    assert by_hand("Start it, or remove the file.") == "Start it, or remove the file."
