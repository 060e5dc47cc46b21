"""Decides. How the OKX front writes its rows: all text, "" for what is not known (OKX dossier §3, §6, §7)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from engine.venues.okx.front_rules import Listing
from engine.venues.okx.front_state import ZERO, Bill, Cash, Customer, Fill, Order, Position, View, margin, unrealised
from engine.venues.okx.front_trading import OrderTold

Row = dict[str, Any]


def text(number: Decimal | None) -> str:
    """A number as the venue writes it: plain, without needless zeros; "" for none."""
    if number is None:
        return ""
    if not number:
        return "0"
    return format(number.normalize(), "f")


def order_row(order: Order) -> Row:
    """The order object of REST: `fill*` is the order's last fill."""
    last = order.last
    liquidated = order.category == "full_liquidation"
    return {
        "instType": order.listing.inst_type,
        "instId": order.listing.inst_id,
        "tgtCcy": order.tgt_ccy,
        "ccy": "",
        "ordId": str(order.ord_id),
        "clOrdId": order.cl_ord_id,
        "tag": order.tag,
        "px": text(order.px),
        "pxUsd": "",
        "pxVol": "",
        "pxType": "",
        "sz": text(order.sz),
        "pnl": text(order.pnl),
        "ordType": order.ord_type,
        "side": order.side.value,
        "posSide": "" if order.listing.spot else "net",
        "tdMode": order.td_mode,
        "accFillSz": text(order.filled),
        "fillPx": text(last.px) if last else "",
        "tradeId": str(last.trade_id) if last and not liquidated else "",
        "fillSz": text(last.quantity) if last else "0",
        "fillTime": str(last.at_ms) if last else "",
        "avgPx": text(order.avg_px),
        "state": order.state,
        "lever": str(order.lever) if order.lever else "",
        "attachAlgoClOrdId": "",
        "tpTriggerPx": "",
        "tpTriggerPxType": "",
        "tpOrdPx": "",
        "slTriggerPx": "",
        "slTriggerPxType": "",
        "slOrdPx": "",
        "attachAlgoOrds": [],
        "linkedAlgoOrd": {"algoId": ""},
        "stpId": "",
        "stpMode": order.stp_mode,
        "feeCcy": order.fee_ccy,
        "fee": text(order.fee),
        "rebateCcy": order.listing.quote if order.listing.spot else order.listing.fill_currency,
        "rebate": "0",
        "source": "",
        "category": order.category,
        "reduceOnly": "true" if order.reduce_only else "false",
        "quickMgnType": "",
        "algoClOrdId": "",
        "algoId": "",
        "isTpLimit": "false",
        "cancelSource": order.cancel_source,
        "cancelSourceReason": "",
        "tradeQuoteCcy": order.listing.quote,
        "cTime": str(order.created_ms),
        "uTime": str(order.updated_ms),
    }


def told_row(told: OrderTold, last_px: Decimal | None, mark: Decimal, later_ms: int = 0) -> Row:
    """The row of the orders channel: `fill*` is this update's fill. `later_ms` shifts uTime of a repeated push."""
    order, fill = told.order, told.fill
    listing = order.listing
    row = order_row(order)
    del row["cancelSourceReason"]
    size = listing.value(order.quantity, mark)
    row.update(
        fillSz=text(fill.quantity) if fill else "0",
        fillPx=text(fill.px) if fill else "",
        tradeId=str(fill.trade_id) if fill else "",
        fillTime=str(fill.at_ms) if fill else "",
        execType=("M" if fill.maker else "T") if fill else "",
        fillFee=text(fill.fee) if fill else "0",
        fillFeeCcy=fill.fee_ccy if fill else "",
        fillPnl=text(fill.pnl) if fill else "0",
        fillNotionalUsd=text(listing.value(fill.quantity, fill.px).quantize(Decimal("0.01"))) if fill else "",
        notionalUsd=text((size * mark if listing.inverse else size).quantize(Decimal("0.01"))),
        avgPx=text(order.avg_px) or "0",
        lever=str(order.lever),
        amendSource=told.amend_source,
        reqId=told.req_id,
        amendResult=told.amend_result,
        code=told.code,
        msg=told.text,
        lastPx=text(last_px),
        fillPxVol="",
        fillPxUsd="",
        fillMarkVol="",
        fillFwdPx="",
        fillMarkPx=text(mark) if fill else "",
        fillIdxPx="",
        uTime=str(order.updated_ms + later_ms),
        fieldOfTomorrow="",
    )
    return row


def fill_row(fill: Fill) -> Row:
    return {
        "instType": fill.listing.inst_type,
        "instId": fill.listing.inst_id,
        "tradeId": str(fill.trade_id),
        "ordId": str(fill.ord_id),
        "clOrdId": fill.cl_ord_id,
        "billId": str(fill.bill_id),
        "subType": fill.sub_type,
        "tag": fill.tag,
        "fillPx": text(fill.px),
        "fillSz": text(fill.quantity),
        "fillIdxPx": "",
        "fillPnl": text(fill.pnl),
        "fillPxVol": "",
        "fillPxUsd": "",
        "fillMarkVol": "",
        "fillFwdPx": "",
        "fillMarkPx": "",
        "side": fill.side.value,
        "posSide": "net",
        "execType": "M" if fill.maker else "T",
        "feeCcy": fill.fee_ccy,
        "fee": text(fill.fee),
        "feeRate": text(fill.fee_rate),
        "ts": str(fill.at_ms),
        "fillTime": str(fill.at_ms),
        "tradeQuoteCcy": fill.listing.quote,
    }


def quick_fill_row(fill: Fill) -> Row:
    """The row of the fills channel (§3.5): no fee, and a client id only where it is a positive 64-bit integer."""
    numeric = fill.cl_ord_id.isdecimal() and 0 < int(fill.cl_ord_id) < 2**63
    return {
        "instId": fill.listing.inst_id,
        "fillSz": text(fill.quantity),
        "fillPx": text(fill.px),
        "side": fill.side.value,
        "ts": str(fill.at_ms),
        "ordId": str(fill.ord_id),
        "clOrdId": fill.cl_ord_id if numeric else "0",
        "tradeId": str(fill.trade_id),
        "execType": "M" if fill.maker else "T",
        "count": "1",
    }


def bill_row(bill: Bill) -> Row:
    fill, listing = bill.fill, bill.listing
    return {
        "billId": str(bill.bill_id),
        "type": bill.kind,
        "subType": bill.sub_type,
        "ts": str(bill.at_ms),
        "ccy": bill.ccy,
        "balChg": text(bill.change),
        "posBalChg": "0",
        "bal": text(bill.balance),
        "posBal": "0",
        "sz": text(bill.quantity),
        "px": text(bill.px),
        "pnl": text(bill.pnl),
        "fee": text(bill.fee),
        "mgnMode": bill.margin_mode,
        "instType": listing.inst_type if listing else "",
        "instId": listing.inst_id if listing else "",
        "ordId": str(fill.ord_id) if fill else "",
        "clOrdId": fill.cl_ord_id if fill else "",
        "tradeId": str(fill.trade_id) if fill else "",
        "tag": fill.tag if fill else "",
        "execType": ("M" if fill.maker else "T") if fill else "",
        "from": bill.came_from,
        "to": bill.went_to,
        "notes": "",
        "interest": "0",
        "fillTime": str(fill.at_ms) if fill else "",
    }


def position_row(position: Position, mark: Decimal, last: Decimal | None, now_ms: int) -> Row:
    listing = position.listing
    flat = not position.quantity
    value = listing.value(abs(position.quantity), mark)
    margin = value / position.lever
    upl = ZERO if flat else listing.gain(position.quantity, position.avg_px, mark)
    return {
        "instType": listing.inst_type,
        "instId": listing.inst_id,
        "mgnMode": position.mode,
        "posId": str(position.pos_id),
        "posSide": "net",
        "pos": text(position.quantity),
        "hedgedPos": "",
        "baseBal": "",
        "quoteBal": "",
        "baseBorrowed": "",
        "baseInterest": "",
        "quoteBorrowed": "",
        "quoteInterest": "",
        "availPos": "",
        "posCcy": "",
        "avgPx": "" if flat else text(position.avg_px),
        "nonSettleAvgPx": "",
        "upl": text(upl.quantize(Decimal("1e-8"))),
        "uplRatio": "" if flat else text((upl / margin).quantize(Decimal("1e-6"))),
        "uplLastPx": "",
        "uplRatioLastPx": "",
        "lever": str(position.lever),
        "liqPx": "",
        "markPx": text(mark),
        "last": text(last),
        "idxPx": text(mark),
        "usdPx": "",
        "bePx": "" if flat else text(position.avg_px),
        "imr": text(margin.quantize(Decimal("1e-8"))),
        "mmr": text((value * Decimal("0.004")).quantize(Decimal("1e-8"))),
        "margin": "",
        "mgnRatio": "",
        "liab": "",
        "liabCcy": "",
        "interest": "",
        "tradeId": str(position.trade_id),
        "notionalUsd": text((value * mark if listing.inverse else value).quantize(Decimal("0.01"))),
        "optVal": "",
        "pendingCloseOrdLiabVal": "",
        "adl": "1",
        "ccy": listing.fill_currency,
        "bizRefId": "",
        "bizRefType": "",
        "realizedPnl": text(position.pnl + position.fee + position.funding),
        "pnl": text(position.pnl),
        "fee": text(position.fee),
        "fundingFee": text(position.funding),
        "liqPenalty": "0",
        "settledPnl": "",
        "closeOrderAlgo": [],
        "cTime": str(position.created_ms),
        "uTime": str(position.updated_ms),
        "pTime": str(now_ms),
        "fieldOfTomorrow": "",
    }


def short_position_row(position: Position) -> Row:
    """posData of balance_and_position (§3.3)."""
    return {
        "posId": str(position.pos_id),
        "tradeId": str(position.trade_id),
        "instId": position.listing.inst_id,
        "instType": position.listing.inst_type,
        "mgnMode": position.mode,
        "posSide": "net",
        "pos": text(position.quantity),
        "posCcy": "",
        "ccy": position.listing.fill_currency,
        "avgPx": text(position.avg_px) if position.quantity else "",
        "nonSettleAvgPx": "",
        "settledPnl": "",
        "uTime": str(position.updated_ms),
    }


def balance_row(ccy: str, cash: Cash) -> Row:
    """balData of balance_and_position."""
    return {"ccy": ccy, "cashBal": text(cash.amount), "uTime": str(cash.updated_ms)}


class Valuation:
    """Values a customer's account at the marks of one instant."""

    def __init__(self, marks: Mapping[str, Decimal], listings: Iterable[Listing]) -> None:
        self.marks = marks
        self._usd = {"USDT": Decimal(1), "USD": Decimal(1)}
        for listing in listings:
            if listing.spot:
                self._usd[listing.base] = marks[listing.inst_id]

    def usd(self, ccy: str) -> Decimal:
        return self._usd.get(ccy, ZERO)

    def detail_row(self, customer: Customer, view: View, ccy: str) -> Row:
        cash = view.cash[ccy]
        upl = unrealised(view.positions, ccy, self.marks)
        required = margin(view.positions, ccy, self.marks)
        equity, frozen = cash.amount + upl, required + customer.held.get(ccy, ZERO)
        free = cash.amount + min(ZERO, upl) - frozen
        return {
            "ccy": ccy,
            "eq": text(equity),
            "cashBal": text(cash.amount),
            "uTime": str(cash.updated_ms),
            "isoEq": "0",
            "availEq": text(free + max(ZERO, upl)),
            "availBal": text(free),
            "frozenBal": text(frozen),
            "ordFrozen": text(customer.held.get(ccy, ZERO)),
            "disEq": text((equity * self.usd(ccy)).quantize(Decimal("1e-8"))),
            "eqUsd": text((equity * self.usd(ccy)).quantize(Decimal("1e-8"))),
            "fixedBal": "0",
            "liab": "",
            "upl": text(upl),
            "uplLiab": "",
            "crossLiab": "",
            "isoLiab": "",
            "rewardBal": "0",
            "mgnRatio": "",
            "imr": text(required),
            "mmr": "",
            "interest": "",
            "twap": "0",
            "maxLoan": "",
            "borrowFroz": "",
            "notionalLever": "",
            "coinUsdPrice": text(self.usd(ccy)),
            "stgyEq": "0",
            "isoUpl": "0",
            "spotInUseAmt": "",
            "clSpotInUseAmt": "",
            "maxSpotInUseAmt": "",
            "spotIsoBal": "0",
            "smtSyncEq": "0",
            "spotBal": "",
            "openAvgPx": "",
            "accAvgPx": "",
            "spotUpl": "",
            "spotUplRatio": "",
            "totalPnl": "",
            "totalPnlRatio": "",
            "collateralEnabled": False,
            "collateralRestrict": False,
            "colBorrAutoConversion": "",
            "autoLendStatus": "off",
            "autoLendMtAmt": "",
            "fieldOfTomorrow": "",
        }

    def account_row(self, customer: Customer, view: View, currencies: Iterable[str], now_ms: int) -> Row:
        """Totals over everything, details of `currencies` only (§3.4)."""
        total = sum(
            (self.usd(c) * (held.amount + unrealised(view.positions, c, self.marks)) for c, held in view.cash.items()),
            ZERO,
        )
        return {
            "uTime": str(now_ms),
            "totalEq": text(total.quantize(Decimal("1e-8"))),
            "isoEq": "0",
            "adjEq": "",
            "availEq": "",
            "ordFroz": "",
            "imr": "",
            "mmr": "",
            "borrowFroz": "",
            "mgnRatio": "",
            "notionalUsd": "",
            "notionalUsdForBorrow": "",
            "notionalUsdForSwap": "",
            "notionalUsdForFutures": "",
            "notionalUsdForOption": "",
            "upl": "",
            "delta": "",
            "deltaLever": "",
            "deltaNeutralStatus": "",
            "details": [self.detail_row(customer, view, c) for c in currencies if c in view.cash],
        }


def instrument_row(listing: Listing) -> Row:
    spot = listing.spot
    return {
        "instType": listing.inst_type,
        "instId": listing.inst_id,
        "instIdCode": listing.code,
        "uly": "" if spot else listing.family,
        "instFamily": "" if spot else listing.family,
        "groupId": "1",
        "baseCcy": listing.base if spot else "",
        "quoteCcy": listing.quote if spot else "",
        "settleCcy": listing.settle,
        "ctVal": "" if spot else text(listing.multiplier),
        "ctMult": "" if spot else "1",
        "ctValCcy": "" if spot else (listing.quote if listing.inverse else listing.base),
        "ctType": listing.contract,
        "optType": "",
        "stk": "",
        "listTime": "1600000000000",
        "expTime": "",
        "auctionEndTime": "",
        "contTdSwTime": "1600000000000",
        "openType": "",
        "lever": str(listing.lever) if not spot else "",
        "tickSz": text(listing.tick),
        "lotSz": text(listing.lot),
        "minSz": text(listing.smallest),
        "alias": "",
        "category": "1",
        "state": "live",
        "ruleType": "normal",
        "maxLmtSz": text(listing.max_limit),
        "maxMktSz": text(listing.max_market),
        "maxLmtAmt": "20000000",
        "maxMktAmt": "1000000" if spot else "",
        "maxTwapSz": text(listing.max_limit),
        "maxIcebergSz": text(listing.max_limit),
        "maxTriggerSz": text(listing.max_limit),
        "maxStopSz": text(listing.max_market),
        "futureSettlement": False,
        "tradeQuoteCcyList": [listing.quote] if spot else [],
        "instCategory": "1",
        "upcChg": [],
        "fieldOfTomorrow": "",
    }
