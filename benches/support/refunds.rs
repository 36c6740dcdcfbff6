//! A history of sixty days, and refunds of what was paid in it.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tillstream::{
    base::Source,
    synth::{DEFAULT_END, Shop},
};

use super::SECRET;

const DAYS: u32 = 60;
/// Each refund of a charge gives this part of it back.
const PARTS: i64 = 40;

/// Refunds without end, of one charge after the other.
pub struct Refunds(Vec<Value>);

impl Refunds {
    /// Takes the events of a shop of so many customers into `dir/data`, by the command that a merchant would use.
    pub fn preload(dir: &Path, customers: u32) -> Result<Refunds> {
        let shop = Shop { customers, days: DAYS, seed: 2, sources: vec![Source::Stripe], ..Shop::default() };
        let (mut charges, mut lines) = (Vec::new(), Vec::new());
        for (_, line) in shop.generate() {
            lines.extend_from_slice(&line);
            lines.push(b'\n');
            let event: Value = serde_json::from_slice(&line)?;
            let charge = &event["data"]["object"];
            if event["type"] == "charge.succeeded" && charge["amount"].as_i64().is_some_and(|amount| amount >= PARTS) {
                charges.push(event);
            }
        }
        ensure!(!charges.is_empty(), "nothing was paid");
        let file = dir.join("history.ndjson");
        std::fs::write(&file, lines)?;
        let mut ingest = Command::new(env!("CARGO_BIN_EXE_tillstream"));
        ingest.args(["--quiet", "--json", "--data"]).arg(dir.join("data")).args(["ingest", "stripe"]).arg(&file);
        let done = ingest.env("TILLSTREAM__STRIPE__WEBHOOK_SECRETS", SECRET).output()?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        std::fs::remove_file(file)?;
        println!("{} charges of {DAYS} days: {}", charges.len(), String::from_utf8_lossy(&done.stdout).trim());
        Ok(Refunds(charges))
    }

    /// Of every two the refund, and then what it makes of the charge.
    pub fn body(&self, n: usize) -> Result<String> {
        let (number, is_charge) = (n / 2, n % 2 == 1);
        // Neighbours are days apart.
        let mut event = self.0[number.wrapping_mul(7919) % self.0.len()].clone();
        let round = (number / self.0.len()) as i64 % PARTS;
        let created = DEFAULT_END.seconds();
        let charge = &mut event["data"]["object"];
        let amount = charge["amount"].as_i64().context("a charge without an amount")? / PARTS;
        if is_charge {
            charge["amount_refunded"] = json!(amount * (round + 1));
            event["type"] = json!("charge.refunded");
        } else {
            let of = |name: &str| charge[name].clone();
            let refund = json!({
                "id": format!("re_again{number}"), "object": "refund", "amount": amount, "charge": of("id"),
                "created": created, "currency": of("currency"), "payment_intent": of("payment_intent"),
                "reason": "requested_by_customer", "status": "succeeded", "metadata": {},
            });
            event["data"] = json!({ "object": refund });
            event["type"] = json!("refund.created");
        }
        event["created"] = json!(created);
        event["id"] = json!(format!("evt_again{n}"));
        Ok(event.to_string())
    }
}
