"""Own actions of the example workflow, loaded by `FLOWLEDGER_ACTIONS=examples/order_actions.py`.

An action is a public function `name(config, context)` that takes and returns JSON values. Nothing
of Flowledger is imported. What it raises fails its step, with the message in the history.
"""

from collections import Counter
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

COUNTRIES = frozenset({"AT", "BE", "DE", "ES", "FR", "IT", "LU", "NL", "PL"})
QUANTITY_MAX = 1_000

Row = dict[str, Any]


def check_orders(config: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{orders: [row]}` -> `{accepted: [row], rejected: [{order_id, line, reasons}], ...counts}`.

    Accepted rows have numbers instead of text: `quantity`, `unit_price_cents`.
    """
    accepted: list[Row] = []
    rejected: list[Row] = []
    seen: set[str] = set()
    for line, raw in enumerate(config["orders"], start=2):  # line 1 of the file names the columns
        order, reasons = _read_order(raw)
        if raw["order_id"] in seen:
            reasons.append("order_id was there before")
        seen.add(raw["order_id"])
        if reasons:
            rejected.append({"order_id": raw["order_id"], "line": line, "reasons": reasons})
        else:
            accepted.append(order)
    if not accepted:
        raise ValueError("no order of the file can be accepted; look at its columns")
    return {
        "accepted": accepted,
        "rejected": rejected,
        "accepted_count": len(accepted),
        "rejected_count": len(rejected),
    }


def summarise_orders(config: dict[str, Any], context: Any) -> dict[str, Any]:
    """`{orders: [accepted row]}` -> totals in cents by category and country, and best sellers."""
    by_category: Counter[str] = Counter()
    by_country: Counter[str] = Counter()
    by_product: Counter[str] = Counter()
    for order in config["orders"]:
        cents = order["quantity"] * order["unit_price_cents"]
        by_category[order["category"]] += cents
        by_country[order["country"]] += cents
        by_product[order["product"]] += order["quantity"]
    gross = by_category.total()
    return {
        "orders": len(config["orders"]),
        "gross_cents": gross,
        "gross": f"{Decimal(gross) / 100:.2f} EUR",
        "by_category": dict(by_category.most_common()),
        "by_country": dict(by_country.most_common()),
        "best_sellers": [
            {"product": product, "pieces": pieces} for product, pieces in by_product.most_common(3)
        ],
    }


def _read_order(raw: Row) -> tuple[Row, list[str]]:
    reasons: list[str] = []
    if not raw["sku"]:
        reasons.append("sku is empty")
    if raw["country"] not in COUNTRIES:
        reasons.append(f"we do not ship to {raw['country']!r}")
    if not raw["quantity"].isdecimal() or not 0 < int(raw["quantity"]) <= QUANTITY_MAX:
        reasons.append(f"quantity {raw['quantity']!r} is not between 1 and {QUANTITY_MAX}")
    cents = _cents(raw["unit_price"])
    if cents is None:
        reasons.append(f"unit_price {raw['unit_price']!r} is not an amount like 12.90")
    try:
        datetime.fromisoformat(raw["ordered_at"])
    except ValueError:
        reasons.append(f"ordered_at {raw['ordered_at']!r} is not a time")
    if reasons:
        return {}, reasons
    kept = {name: raw[name] for name in ("order_id", "country", "sku", "product", "category")}
    return {**kept, "quantity": int(raw["quantity"]), "unit_price_cents": cents}, []


def _cents(text: str) -> int | None:
    try:
        amount = Decimal(text) * 100
    except InvalidOperation:
        return None
    return int(amount) if amount == amount.to_integral_value() and amount > 0 else None
