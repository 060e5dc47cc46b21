"""Whatever goes wrong with one account is found, told and mended, and the others trade on."""

from __future__ import annotations

from engine.core.orders import OrderState
from engine.ledger import questions, reader
from tests.acceptance.conftest import SlowTroubles
from tests.acceptance.office import Office, until


def order(office: Office, account: str, venue_order_id: str) -> questions.OrderRow | None:
    with reader(office.url) as conn:
        return next((o for o in questions.orders(conn, account) if o.venue_order_id == venue_order_id), None)


def test_an_order_placed_elsewhere_appears_as_external(shared: Office, slow: SlowTroubles) -> None:
    elsewhere = shared.elsewhere("demo-03", type="limit", price="50000")
    until(lambda: order(shared, "demo-03", elsewhere), 3.0)
    (told,) = (o for o in shared.json("orders", "--account", "demo-03") if o["venue_order_id"] == elsewhere)
    assert told["external"]
    assert told["state"] == "working"


def test_what_is_filled_during_a_cut_is_found_and_the_account_waits_for_the_proof(
    shared: Office, slow: SlowTroubles
) -> None:
    gaps_before = len(shared.gaps("demo-03"))
    shared.fault("cut", "demo-03", seconds=3)
    until(lambda: "account_not_live" in shared.denials("demo-03"), 3.0)
    missed = shared.elsewhere("demo-03", type="market")
    denied = shared.denials("demo-03")
    assert denied["account_not_live"]["phase"] != "live", "with its numbers"
    assert denied["account_not_proven"]["since"]
    gap = until(lambda: shared.gaps("demo-03")[gaps_before:], 3.0)[0]
    assert gap.state == "open"
    until(lambda: not shared.denials("demo-03"))
    found = order(shared, "demo-03", missed)
    assert found is not None
    assert found.filled == 1
    assert shared.gaps("demo-03")[gaps_before].state == "proven"


def test_a_refused_key_halts_its_account_alone_and_doctor_names_it(shared: Office, slow: SlowTroubles) -> None:
    shared.fault("kill_key", "demo-04")
    until(lambda: "demo-04" in shared.findings())
    checked = shared.cli("doctor")
    assert checked.returncode == 1
    assert "demo-04" in checked.stdout
    assert "refused" in checked.stdout
    assert "unisono accounts resume demo-04" in " ".join(checked.stdout.split())
    assert "credentials_refused" in shared.denials("demo-04")
    plan_id = shared.approved(["demo-05"])
    shared.execute(plan_id)
    until(lambda: shared.child(plan_id).state is OrderState.WORKING)
    assert shared.control.get("/status")["links"]["halted"] == 1


def test_an_unreadable_frame_is_kept_and_counted_and_the_link_lives_on(shared: Office, slow: SlowTroubles) -> None:
    before = shared.connections()["demo-11"], shared.control.get("/status")["unreadable"]
    shared.fault("garbage", "demo-11", times=1)
    shared.fault("garbage", "demo-11", times=1, what='{"arg":{"channel":"prophecies"},"data":[{"of":"tomorrow"}]}')
    elsewhere = shared.elsewhere("demo-11", type="limit", price="50000")
    until(lambda: order(shared, "demo-11", elsewhere), 5.0)
    more = shared.elsewhere("demo-11", type="limit", price="50001")
    until(lambda: order(shared, "demo-11", more), 5.0)
    assert shared.control.get("/status")["unreadable"] == before[1] + 2
    assert shared.connections()["demo-11"] == before[0]
    checked = shared.cli("doctor")
    assert checked.returncode == 1
    assert "frames could not be read" in checked.stdout


def test_before_the_venue_closes_a_connection_its_replacement_is_open(shared: Office, slow: SlowTroubles) -> None:
    before, gaps_before = shared.connections()["demo-10"], len(shared.gaps("demo-10"))
    shared.fault("notice", "demo-10", seconds=8)
    until(lambda: shared.connections()["demo-10"] != before, 8.0)
    assert not shared.denials("demo-10")
    during = shared.elsewhere("demo-10", type="limit", price="50000")
    until(lambda: order(shared, "demo-10", during), 5.0)

    def only_the_new_one() -> bool:
        return [c["connId"] for c in shared.venue.get("/truth/connections?account=demo-10")].count(before) == 0

    until(only_the_new_one, 15.0)
    assert len(shared.gaps("demo-10")) == gaps_before, "no gap in between"


def test_a_half_open_connection_is_found_by_the_pulse(shared: Office, slow: SlowTroubles) -> None:
    until(lambda: [g for g in shared.gaps("demo-08") if g.state == "proven"], 30.0)
    (gap,) = shared.gaps("demo-08")
    found_after_ms = gap.opened_at_ms - slow.half_open_since_ms
    assert found_after_ms < 7_000, "quiet 2 s, no answer for 2 s, and the watch looks once a second"
    assert "silent" in gap.reason
    until(lambda: not shared.denials("demo-08"))


def test_a_mute_connection_is_found_replaced_and_what_it_kept_silent_about_is_booked(
    shared: Office, slow: SlowTroubles
) -> None:
    until(lambda: order(shared, "demo-07", slow.unheard_order), 60.0)
    until(lambda: shared.connections().get("demo-07", slow.mute_connection) != slow.mute_connection)
    until(lambda: not shared.denials("demo-07"))
    assert any("mute" in g.reason for g in shared.gaps("demo-07"))


def test_an_order_that_never_arrived_is_proven_absent_and_its_share_is_sent_under_another_id(
    shared: Office, slow: SlowTroubles
) -> None:
    until(lambda: len(shared.children(slow.never_arrived)) == 2, 60.0)
    absent, anew = sorted(shared.children(slow.never_arrived), key=lambda c: c.attempt)
    assert absent.state is OrderState.NOT_PLACED
    assert "never had it" in absent.reason
    until(lambda: anew.client_order_id in [o["clOrdId"] for o in shared.orders("demo-06")])
    assert absent.client_order_id not in [o["clOrdId"] for o in shared.orders("demo-06")]
