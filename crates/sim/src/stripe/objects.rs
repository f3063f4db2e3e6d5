//! The JSON objects, with the fields that Stripe's own have where a client may look for them.

use serde_json::{Value, json};

/// Which card a customer pays with.
pub(super) const CARD: (&str, &str, u8, u16) = ("visa", "4242", 8, 2034);

pub(super) fn customer(id: &str, created: i64, livemode: bool) -> Value {
    json!({
        "id": id, "object": "customer", "address": null, "balance": 0, "created": created, "currency": null,
        "default_source": null, "delinquent": false, "description": null, "discount": null, "email": null,
        "invoice_settings": {"custom_fields": null, "default_payment_method": null, "footer": null},
        "livemode": livemode, "metadata": {}, "name": null, "phone": null, "preferred_locales": [], "shipping": null,
        "tax_exempt": "none", "test_clock": null,
    })
}

pub(super) fn session(id: &str, created: i64, livemode: bool) -> Value {
    json!({
        "id": id, "object": "checkout.session", "after_expiration": null, "allow_promotion_codes": null,
        "amount_subtotal": null, "amount_total": null, "automatic_tax": {"enabled": false, "status": null},
        "billing_address_collection": null, "cancel_url": null, "client_reference_id": null, "client_secret": null,
        "created": created, "currency": null, "custom_fields": [], "customer": null, "customer_creation": null,
        "customer_details": null, "customer_email": null, "expires_at": created + 86_400, "invoice": null,
        "livemode": livemode, "locale": null, "metadata": {}, "mode": "payment", "payment_intent": null,
        "payment_link": null, "payment_method_collection": null, "payment_method_options": {},
        "payment_method_types": ["card"], "payment_status": "unpaid", "recovered_from": null, "setup_intent": null,
        "shipping_cost": null, "status": "open", "submit_type": null, "subscription": null, "success_url": null,
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}, "ui_mode": "hosted",
        "url": null,
    })
}

pub(super) fn payment_intent(id: &str, amount: i64, currency: &str, created: i64, livemode: bool) -> Value {
    json!({
        "id": id, "object": "payment_intent", "amount": amount, "amount_capturable": 0, "amount_received": 0,
        "application": null, "automatic_payment_methods": null, "canceled_at": null, "cancellation_reason": null,
        "capture_method": "automatic_async", "client_secret": format!("{id}_secret_simulated"),
        "confirmation_method": "automatic", "created": created, "currency": currency, "customer": null,
        "description": null, "last_payment_error": null, "latest_charge": null, "livemode": livemode, "metadata": {},
        "next_action": null, "payment_method": null, "payment_method_options": {}, "payment_method_types": ["card"],
        "processing": null, "receipt_email": null, "setup_future_usage": null, "shipping": null,
        "statement_descriptor": null, "status": "requires_payment_method", "transfer_group": null,
    })
}

pub(super) fn setup_intent(id: &str, customer: &str, method: &str, created: i64, livemode: bool) -> Value {
    json!({
        "id": id, "object": "setup_intent", "application": null, "cancellation_reason": null,
        "client_secret": format!("{id}_secret_simulated"), "created": created, "customer": customer,
        "description": null, "last_setup_error": null, "latest_attempt": null, "livemode": livemode, "mandate": null,
        "metadata": {}, "next_action": null, "payment_method": method, "payment_method_options": {},
        "payment_method_types": ["card"], "status": "succeeded", "usage": "off_session",
    })
}

pub(super) fn payment_method(id: &str, customer: Option<&str>, created: i64, livemode: bool) -> Value {
    let (brand, last4, exp_month, exp_year) = CARD;
    json!({
        "id": id, "object": "payment_method", "allow_redisplay": "limited",
        "billing_details": {"address": null, "email": null, "name": null, "phone": null},
        "card": {
            "brand": brand, "checks": {"cvc_check": "pass"}, "country": "US", "display_brand": brand,
            "exp_month": exp_month, "exp_year": exp_year, "fingerprint": "simulated", "funding": "credit",
            "last4": last4, "networks": {"available": [brand], "preferred": null},
            "three_d_secure_usage": {"supported": true}, "wallet": null,
        },
        "created": created, "customer": customer, "livemode": livemode, "metadata": {}, "type": "card",
    })
}

/// A charge that an attempt of a payment intent made.
pub(super) fn charge(id: &str, intent: &Value, status: &str, created: i64) -> Value {
    let succeeded = status == "succeeded";
    json!({
        "id": id, "object": "charge", "amount": intent["amount"],
        "amount_captured": if succeeded { intent["amount"].clone() } else { json!(0) }, "amount_refunded": 0,
        "balance_transaction": null, "captured": succeeded, "created": created, "currency": intent["currency"],
        "customer": intent["customer"], "description": intent["description"], "disputed": false,
        "failure_code": null, "failure_message": null, "fraud_details": {}, "livemode": intent["livemode"],
        "metadata": intent["metadata"], "outcome": null, "paid": succeeded, "payment_intent": intent["id"],
        "payment_method": intent["payment_method"], "receipt_email": null, "refunded": false, "status": status,
    })
}

pub(super) fn refund(id: &str, charge: &Value, amount: i64, status: &str, created: i64) -> Value {
    json!({
        "id": id, "object": "refund", "amount": amount, "balance_transaction": null, "charge": charge["id"],
        "created": created, "currency": charge["currency"],
        "destination_details": {"card": {"type": "refund"}, "type": "card"}, "metadata": {},
        "payment_intent": charge["payment_intent"], "reason": null, "receipt_number": null,
        "source_transfer_reversal": null, "status": status, "transfer_reversal": null,
    })
}

pub(super) fn dispute(id: &str, charge: &Value, amount: i64, created: i64) -> Value {
    json!({
        "id": id, "object": "dispute", "amount": amount, "balance_transactions": [], "charge": charge["id"],
        "created": created, "currency": charge["currency"], "evidence": {},
        "evidence_details": {"due_by": created + 7 * 86_400, "has_evidence": false, "past_due": false, "submission_count": 0},
        "is_charge_refundable": false, "livemode": charge["livemode"], "metadata": {},
        "payment_intent": charge["payment_intent"], "reason": "fraudulent", "status": "needs_response",
    })
}

/// What a dispute moves between Stripe's balance and the bank.
pub(super) fn dispute_movement(id: &str, dispute: &Value, amount: i64, created: i64) -> Value {
    json!({
        "id": id, "object": "balance_transaction", "amount": amount, "created": created,
        "currency": dispute["currency"], "fee": 0, "net": amount, "reporting_category": "dispute",
        "source": dispute["id"], "status": "pending", "type": "adjustment",
    })
}

pub(super) fn list(url: &str, data: Vec<Value>, has_more: bool) -> Value {
    json!({"object": "list", "data": data, "has_more": has_more, "url": url})
}
