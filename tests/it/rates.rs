//! Exchange rates: from the ECB's layout over HTTP and from a file, into SQL.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use serde_json::json;

use super::support::Till;

/// Serves `document` to whoever asks; its address.
fn publish(document: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/stats/eurofxref-daily.xml", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let asked = stream.read(&mut [0; 4096]).unwrap();
            assert!(asked > 0);
            let length = document.len();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{document}")
                .unwrap();
        }
    });
    address
}

/// A shop with one customer.
fn opened(till: Till) -> Till {
    let made = json!({"id": "evt_1", "object": "event", "type": "customer.created", "created": 1_769_000_000, "livemode": true,
        "api_version": "2025-03-31.basil", "data": {"object": {"id": "cus_1", "object": "customer", "created": 1_769_000_000}}});
    let file = till.write("events.ndjson", format!("{made}\n"));
    till.run(&["ingest", "stripe", file.to_str().unwrap()]);
    till
}

fn today() -> String {
    opened(Till::new()).sql("SELECT CAST(current_date() AS VARCHAR) AS day")[0]["day"].as_str().unwrap().to_owned()
}

#[test]
fn rates_that_are_published_convert_amounts() {
    let day = today();
    let document = format!(
        "<Cube><Cube time='{day}'><Cube currency='USD' rate='1.0823'/><Cube currency='JPY' rate='161.5'/></Cube></Cube>"
    );
    let till = Till::new().set("FX__URL", &publish(document)).set("PEOPLE__REPORTING_CURRENCY", "usd");
    let till = opened(till);
    let convert = format!(
        "SELECT fx(10000, 'eur', reporting_currency(), DATE '{day}') AS usd, fx(1, 'usd', 'gbp', DATE '{day}') AS gbp"
    );
    assert_eq!(till.sql(&convert), [json!({"usd": null, "gbp": null})], "before there are any");
    till.run(&["run"]);
    assert_eq!(till.sql(&convert), [json!({"usd": 10823, "gbp": null})]);
    let rates = till
        .sql("SELECT CAST(day AS VARCHAR) AS day, base, currency, rate, origin FROM ref.fx_rates ORDER BY currency");
    let rate = |currency, rate| json!({"day": day, "base": "eur", "currency": currency, "rate": rate, "origin": "ecb"});
    assert_eq!(rates, [rate("jpy", 161.5), rate("usd", 1.0823)]);
    // They are held by the tables, and made again from raw.events.
    till.run(&["rebuild"]);
    assert_eq!(till.sql(&convert), [json!({"usd": 10823, "gbp": null})]);
    let doctor = String::from_utf8(till.try_run(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains(&format!("the newest are of {day}, 0 days ago")), "{doctor}");
}

#[test]
fn a_file_of_rates_that_cannot_be_read_is_named_with_its_line_and_read_once_it_can_be() {
    let till = Till::new();
    let file = till.write("rates.csv", "day,base,currency,rate\n2026-01-30,eur,usd,1.1\n30.1.2026,eur,gbp,0.8\n");
    let till = opened(till.set("FX__FILE", file.to_str().unwrap()));
    let told = String::from_utf8(till.try_run(&["run"]).stderr).unwrap();
    assert!(told.contains("rates.csv cannot be read: line 3: 30.1.2026 is no day"), "{told}");
    till.write("rates.csv", "day,base,currency,rate\n2026-01-30,eur,usd,1.1\n2026-01-30,eur,gbp,0.8\n");
    till.run(&["run"]);
    // A dollar is 0.909 euros, and that 0.727 pounds; 100.01 dollars are 72.7345 pounds.
    let pounds = till.sql(
        "SELECT fx(10001, 'usd', 'gbp', DATE '2026-01-31') AS gbp, fx(10001, 'usd', 'gbp', DATE '2026-03-01') AS old",
    );
    assert_eq!(pounds, [json!({"gbp": 7273, "old": null})]);
    // An address that does not answer keeps nothing back of the file's.
    let till = till.set("FX__URL", "http://127.0.0.1:9/rates.xml");
    till.write("rates.csv", "day,base,currency,rate\n2026-01-30,eur,usd,1.2\n2026-01-30,eur,gbp,0.6\n");
    let told = String::from_utf8(till.try_run(&["run"]).stderr).unwrap();
    assert!(told.contains("could not be fetched from http://127.0.0.1:9/rates.xml"), "{told}");
    assert_eq!(till.sql("SELECT fx(10000, 'usd', 'gbp', DATE '2026-01-31') AS gbp"), [json!({"gbp": 5000})]);
    let till = till.set("FX__URL", "");
    // A file that was written since is read again, the same day.
    till.write("rates.csv", "day,base,currency,rate\n2026-01-30,eur,usd,1.25\n2026-01-30,eur,gbp,0.8\n");
    till.run(&["run"]);
    assert_eq!(till.sql("SELECT fx(10000, 'usd', 'gbp', DATE '2026-01-31') AS gbp"), [json!({"gbp": 6400})]);
    assert_eq!(till.sql("SELECT count(*) AS n FROM ref.fx_rates"), [json!({"n": 2})], "a rate is one row");
    let doctor = String::from_utf8(till.try_run(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains("the newest are of 2026-01-30"), "{doctor}");
    let wrong =
        String::from_utf8(till.try_run(&["sql", "SELECT fx(1, 'usd', 'pounds', DATE '2026-01-30')"]).stderr).unwrap();
    assert!(wrong.contains("pounds"), "{wrong}");
}

/// A charge that Stripe converted, and its balance transaction.
fn settled(n: i64, created: i64, (amount, currency): (i64, &str), (settled, rate): (i64, f64)) -> String {
    let event = |kind: &str, object: serde_json::Value| {
        json!({"id": format!("evt_{kind}_{n}"), "object": "event", "type": kind, "created": created, "livemode": true,
            "data": {"object": object}})
    };
    let charge = json!({"id": format!("ch_{n}"), "object": "charge", "created": created, "amount": amount, "currency": currency,
        "amount_captured": amount, "captured": true, "paid": true, "status": "succeeded", "livemode": true,
        "balance_transaction": format!("txn_{n}")});
    let transaction = json!({"id": format!("txn_{n}"), "object": "balance_transaction", "amount": settled, "fee": 30,
        "net": settled - 30, "currency": "eur", "exchange_rate": rate, "type": "charge", "source": format!("ch_{n}"),
        "created": created, "available_on": created, "status": "available"});
    format!("{}\n{}\n", event("charge.succeeded", charge), event("balance_transaction.fetched", transaction))
}

#[test]
fn what_stripe_converted_at_is_a_rate_of_its_day() {
    let till = Till::new().set("FX__STRIPE", "true").set("FX__MAX_AGE_DAYS", "366");
    // 2026-10-10, twice in dollars and once in yen; and the day after in pounds.
    let day = 1_791_590_400;
    let lines = [
        settled(1, day + 60, (10_000, "usd"), (9_000, 0.9)),
        settled(2, day + 3_600, (30_000, "usd"), (28_200, 0.94)),
        settled(3, day + 7_200, (100_000, "jpy"), (61_000, 0.0061)),
        settled(4, day + 86_400, (5_000, "gbp"), (5_750, 1.15)),
    ];
    let file = till.write("settled.ndjson", lines.concat());
    till.run(&["ingest", "stripe", file.to_str().unwrap()]);
    till.run(&["run"]);
    let held =
        "SELECT CAST(day AS VARCHAR) AS day, base, currency, rate, origin FROM ref.fx_rates ORDER BY currency DESC";
    let rate = |day, paid, rate| json!({"day": day, "base": "eur", "currency": paid, "rate": rate, "origin": "stripe"});
    let rates = [
        rate("2026-10-10", "usd", 1.075268817),
        rate("2026-10-10", "jpy", 163.93442623),
        rate("2026-10-11", "gbp", 0.869565217),
    ];
    assert_eq!(till.sql(held), rates);
    let converted =
        "SELECT fx(10000, 'usd', 'eur', DATE '2026-10-12') AS usd, fx(1000, 'jpy', 'eur', DATE '2026-10-10') AS jpy,
        fx(100, 'eur', 'usd', DATE '2026-10-11') AS back, fx(100, 'gbp', 'eur', DATE '2026-10-10') AS early,
        fx(10000, 'usd', 'jpy', DATE '2026-10-11') AS across";
    let wanted = json!({"usd": 9300, "jpy": 610, "back": 108, "early": null, "across": 15246});
    assert_eq!(till.sql(converted), [wanted]);
}

/// From when it is found to when it is gone, one row, whatever is run meanwhile.
#[test]
fn rates_that_are_stale_raise_one_alert_until_they_are_not() {
    let day = today();
    let till = Till::new();
    let file = till.write("rates.csv", "day,base,currency,rate\n2026-01-30,eur,usd,1.1\n");
    let till = opened(till.set("FX__FILE", file.to_str().unwrap()));
    let alerts = || {
        till.sql(
            "SELECT subject, found LIKE '%2026-01-30%' AS named, cleared_at >= raised_at AS gone, alert_id FROM ops.alerts \
             WHERE subject = 'exchange rates' ORDER BY raised_at",
        )
    };
    assert!(alerts().is_empty());
    till.run(&["run"]);
    let raised = alerts();
    let first = raised[0]["alert_id"].clone();
    assert_eq!(raised, [json!({"subject": "exchange rates", "named": true, "gone": null, "alert_id": first})]);
    till.run(&["run"]);
    till.run(&["rebuild"]);
    assert_eq!(alerts(), raised, "it is the same fault");
    std::fs::remove_dir_all(till.data().join("state")).unwrap();
    till.run(&["run"]);
    assert_eq!(alerts(), raised, "and is known by its row where the store was lost");
    till.write("rates.csv", format!("day,base,currency,rate\n{day},eur,usd,1.2\n"));
    till.run(&["run"]);
    let cleared = [json!({"subject": "exchange rates", "named": true, "gone": true, "alert_id": first})];
    assert_eq!(alerts(), cleared);
    till.run(&["run"]);
    till.run(&["rebuild"]);
    assert_eq!(alerts(), cleared);
}
