"""What networks do to a fan-out: in the end the ledger holds the venue's truth, and meanwhile an honest UNKNOWN."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine.cli import demo_office
from engine.control.client import ControlError
from engine.core.orders import OrderState
from tests.acceptance.office import NO_BUDGETS, Office, until
from tests.chaos.office import records_of
from tests.chaos.verdict import judge
from tests.proxy import Proxy, proxy

ACCOUNTS = 6
QUICK = (
    "[pulse]\nbeat_s = 2.0\nquiet_s = 1.0\npong_wait_s = 1.0\nlongest_retry_s = 1.0\n"
    "[plans]\nrequest_expiry_s = 2.0\nsend_timeout_s = 1.0\nduplicate_window_s = 0.0\n[backfill]\noverlap_s = 30.0\n"
    "[http]\ntimeout_s = 3.0\n"
)
STATES = frozenset(s.value for s in OrderState)


@dataclass
class Network:
    office: Office
    streams: Proxy
    rest: Proxy
    plans: dict[str, str] = field(default_factory=dict)  # what was done to the network -> the plan sent meanwhile
    seen: dict[str, set[str]] = field(default_factory=dict)  # ... -> states that its orders were in
    errors: list[str] = field(default_factory=list)

    def freeze(self) -> None:
        pid = self.office.venue.pid
        os.kill(pid, signal.SIGSTOP)
        until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "T", 5.0)
        self.streams.happened["frozen"] += 1

    def thaw(self) -> None:
        os.kill(self.office.venue.pid, signal.SIGCONT)

    def settled(self) -> bool:
        """Nothing is on its way any more, further attempts among it."""
        on_their_way = {OrderState.PLANNED, OrderState.SENDING, OrderState.UNKNOWN}
        states = {c.state for plan_id in self.plans.values() for c in self.office.children(plan_id)}
        return not states & on_their_way

    def torment(self, name: str, during: Callable[[], Any], lasts_s: float) -> None:
        """A plan is approved in peace, the trouble begins, the plan is sent, the trouble ends."""
        o = self.office
        until(lambda: o.all_proven(ACCOUNTS), 40.0)
        plan_id = self.plans[name] = o.approved([f"demo-{n:02}" for n in range(1, ACCOUNTS + 1)])
        asked = threading.Thread(target=self._execute, args=(plan_id,))
        if name.startswith("after"):
            asked.start()
            time.sleep(0.005)
            during()
        else:
            during()
            asked.start()
        states = self.seen.setdefault(name, set())
        deadline_s = time.monotonic() + lasts_s
        while time.monotonic() < deadline_s:
            states.update(c.state.value for c in o.children(plan_id))
            time.sleep(0.05)
        self.streams.heal()
        self.rest.heal()
        self.thaw()
        asked.join()

    def _execute(self, plan_id: str) -> None:
        try:
            self.office.execute(plan_id)
        except ControlError as error:
            self.errors.append(str(error))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("network")
    demo_office.fresh_folder(folder)
    with (
        demo_office.simulator(folder, ACCOUNTS, 1, "--no-limits", venue="okx") as venue,
        proxy(_port(venue.doors["ws_private"])) as streams,
        proxy(_port(venue.doors["rest"])) as rest,
    ):
        doors = {
            name: _at(url, rest.port if name == "rest" else streams.port)
            for name, url in venue.doors.items()
            if name.startswith(("rest", "ws"))
        }
        config = demo_office.register(folder, {"okx": {**venue.doors, **doors}}, {"okx": {}}, more=NO_BUDGETS + QUICK)
        office = Office(folder, venue, config)
        with office.engine():
            one = Network(office, streams, rest)
            one.torment("latency", lambda: setattr(streams, "latency_s", 0.3), 1.0)
            one.torment("latency beyond the time-out", lambda: setattr(streams, "latency_s", 1.5), 3.5)
            one.torment("after: cut", streams.cut, 0.3)
            one.torment("after: reset", streams.reset, 0.3)
            one.torment("truncated", lambda: streams.truncate(ACCOUNTS), 0.5)
            one.torment("half-open", streams.half_open, 4.0)
            one.torment("drip", lambda: setattr(streams, "drip_s", 0.02), 2.0)
            one.torment("frozen venue", one.freeze, 4.0)
            one.torment("after: all of it, and reads too", lambda: (streams.reset(), rest.truncate(9)), 4.0)
            until(lambda: office.all_proven(ACCOUNTS), 60.0)
            until(one.settled, 60.0)
            yield one


@pytest.mark.timeout(240)
def test_every_fault_really_happened(network: Network) -> None:
    print("what really happened:", dict(network.streams.happened), "over HTTP:", dict(network.rest.happened))
    for kind in ("latency", "cut", "reset", "truncated", "half-open", "drip", "frozen"):
        assert network.streams.happened[kind], kind
    assert network.rest.happened["truncated"]


UNANSWERED = ["latency beyond the time-out", "half-open", "frozen venue"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", UNANSWERED)
def test_what_got_no_answer_was_called_unknown_and_asked_about(network: Network, name: str) -> None:
    assert "unknown" in network.seen[name]


@pytest.mark.timeout(240)
def test_no_trouble_of_the_network_ends_an_order_as_refused(network: Network) -> None:
    for name in set(network.plans) - set(UNANSWERED):
        states = {c.state.value for c in network.office.children(network.plans[name])}
        assert states <= {"working", "not_placed", "skipped", "planned"}, name


@pytest.mark.timeout(240)
def test_in_the_end_the_ledger_is_the_venues_truth(network: Network) -> None:
    o = network.office
    orders, fills = o.venue.get("/truth/orders"), o.venue.get("/truth/fills")
    verdict = judge(orders, fills, records_of(o.url), list(network.plans.values()), _ours)
    assert verdict.sentences() == []
    placed = [c for plan_id in network.plans.values() for c in o.children(plan_id) if c.state is OrderState.WORKING]
    assert len(placed) == len(orders)
    assert placed, "some of it went through"
    assert {c.state.value for p in network.plans.values() for c in o.children(p)} <= STATES - {"sending", "unknown"}


def _ours(client_order_id: str) -> bool:
    return re.fullmatch("[0-9a-f]{32}", client_order_id) is not None


def _port(url: str) -> int:
    found = re.search(r":(\d+)", url.partition("//")[2])
    assert found is not None
    return int(found[1])


def _at(url: str, port: int) -> str:
    return re.sub(r":\d+", f":{port}", url, count=1)
