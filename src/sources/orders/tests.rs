//! What somebody who imports past orders is promised.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use chrono_tz::Tz;
use parquet::arrow::ArrowWriter;
use serde_json::Value;

use super::*;
use crate::{
    base::{Currency, Envelope, Source},
    sources::{from_reader, open},
};

const NOW: Micros = Micros(1_800_000_000_000_000);

fn options(orders: OrdersMapping) -> Options {
    Options { received_at: NOW, threads: 1, zone: Tz::Europe__London, orders }
}

fn all(batches: crate::sources::Batches) -> Result<Vec<Envelope>, String> {
    let mut all = Vec::new();
    for batch in batches {
        all.extend(batch.map_err(|e| e.to_string())?.envelopes);
    }
    Ok(all)
}

fn read(csv: &[u8]) -> Result<Vec<Envelope>, String> {
    let stream = Box::new(std::io::Cursor::new(csv.to_vec()));
    all(from_reader(Source::Orders, "orders.csv", stream, &options(OrdersMapping::default()))
        .map_err(|e| e.to_string())?)
}

fn payload(envelope: &Envelope) -> Value {
    serde_json::from_slice(&envelope.payload).unwrap()
}

const UCI: &str = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

#[test]
fn an_invoice_is_the_sum_of_its_lines_that_count() {
    let csv = format!(
        "{UCI}536365,85123A,\"WHITE, HANGING\",6,7/1/2011 8:26,2.55,17850.0,United Kingdom\n\
         536366,22633,HAND WARMER,1,7/1/2011 8:28,0.125,17851,France\n\
         536365,71053,LANTERN,-1,7/1/2011 8:27,3.39,17850.0,United Kingdom\n\
         536365,GIFT,,1,7/1/2011 8:26,0,17850.0,United Kingdom\n"
    );
    let orders = read(csv.as_bytes()).unwrap();
    assert_eq!(orders.len(), 2, "rows of one order may be anywhere");
    let first = &orders[0];
    assert_eq!((first.event_type.as_str(), first.event_id.as_str()), ("order.imported", "536365"));
    assert_eq!(first.occurred_at.to_string(), "2011-07-01T07:27:00Z", "the last line's, in the merchant's zone");
    assert_eq!(first.person_hint.as_deref(), Some("17850"));
    assert_eq!(
        payload(first),
        serde_json::json!({
            "order_ref": "536365", "customer_ref": "17850", "ordered_at": "2011-07-01T07:27:00Z",
            "country": "United Kingdom", "currency": "gbp", "amount": 1530,
            "lines": [
                {"sku": "85123A", "quantity": 6, "unit_price": "2.55"},
                {"sku": "71053", "quantity": -1, "unit_price": "3.39", "counted": false},
                {"sku": "GIFT", "quantity": 1, "unit_price": "0", "counted": false}],
        })
    );
    assert_eq!(payload(&orders[1])["amount"], 13, "half a penny is rounded once, upwards");
}

#[test]
fn what_is_no_sale_is_told_apart() {
    let csv = format!(
        "{UCI}C536379,D,Discount,-1,7/1/2011 9:41,27.50,14527,United Kingdom\n\
         536380,1,x,5,7/1/2011 9:41,1,,United Kingdom\n\
         536381,1,x,-5,7/1/2011 9:41,1,14528,United Kingdom\n\
         A563185,B,Adjust bad debt,1,7/1/2011 9:41,-11062.06,,United Kingdom\n\
         ,,,,,,,\n"
    );
    let orders = read(csv.as_bytes()).unwrap();
    let kinds: Vec<_> = orders.iter().map(|o| o.event_type.as_str()).collect();
    assert_eq!(kinds, ["order.refunded", "order.anonymous", "order.empty", "order.anonymous"]);
    let refund = payload(&orders[0]);
    assert_eq!((&refund["refund_id"], &refund["amount"]), (&"C536379".into(), &2750.into()));
}

#[test]
fn a_bad_cell_rejects_its_order_and_is_named() {
    let csv = format!(
        "{UCI}1,A,x,1,7/1/2011 9:41,2.55,9,UK\n1,B,x,1,7/1/2011 9:41,\"2,55\",9,UK\n2,A,x,1,31/31/2011,1,9,UK\n\
         3,A,x,1,7/1/2011 9:41,1,9,UK\n,A,x,1,7/1/2011 9:41,1,9,UK\n4,A,x,1,7/1/2011 9:41,99999999999999999,9,UK\n\
         5,A,x,1,7/1/2011 9:41,1,9,UK\n5,A,x,1,7/1/2011 9:41,1,10,UK\n"
    );
    let orders = read(csv.as_bytes()).unwrap();
    let reasons: Vec<_> = orders.iter().map(|o| payload(o)["reason"].as_str().unwrap_or("fine").to_owned()).collect();
    assert_eq!(reasons[0], "row 3, column UnitPrice: \"2,55\" is no number: write 1234.50");
    assert!(reasons[1].starts_with("row 4, column InvoiceDate: \"31/31/2011\" is no time"), "{}", reasons[1]);
    assert_eq!(reasons[2], "fine");
    assert_eq!(reasons[3], "row 6, column InvoiceNo: it names no order");
    assert_eq!(reasons[4], "row 7, column UnitPrice: the order's amount is too large for any currency");
    assert_eq!(reasons[5], "row 9, column CustomerID: rows of this order before row 9 have another one");
    assert!(orders.iter().zip(&reasons).all(|(o, r)| (r == "fine") == (o.event_type == "order.imported")));
    let kept = payload(&orders[0])["text"].as_str().unwrap().to_owned();
    assert!(kept.contains("\"2.55\"") && kept.contains("2,55"), "both rows are kept: {kept}");
    assert_eq!(orders, read(csv.as_bytes()).unwrap(), "and the same again is the same");
}

#[test]
fn an_orders_total_may_stand_in_one_row_of_it() {
    let csv = "Name,Email,Financial Status,Currency,Total,Created at,Lineitem quantity,Lineitem price,Lineitem name\n\
        #1001,ann@example.com,paid,EUR,53.91,2025-10-07 09:50:26 +0200,1,50.00,Mask\n\
        #1001,ann@example.com,,,,2025-10-07 09:50:26 +0200,2,1.95,Soap\n\
        #1002,bob@example.com,pending,EUR,7.00,2025-10-07 09:50:26 +0200,1,7.00,Soap\n\
        #1003,cy@example.com,paid,EURO,7.00,2025-10-07 09:50:26 +0200,1,7.00,Soap\n\
        #1004,di@example.com,paid,JPY,-700,2025-10-07 09:50:26 +0200,1,7.00,Soap\n";
    let orders = read(csv.as_bytes()).unwrap();
    let order = payload(&orders[0]);
    assert_eq!(orders[0].event_type, "order.imported");
    assert_eq!(
        (&order["amount"], &order["currency"], &order["email"]),
        (&5391.into(), &"eur".into(), &"ann@example.com".into())
    );
    assert_eq!(order["customer_ref"], Value::Null, "an address is no number of a customer");
    assert_eq!(orders[0].person_hint, None);
    assert_eq!(order["lines"][1], serde_json::json!({"sku": "Soap", "quantity": 2, "unit_price": "1.95"}));
    assert_eq!(orders[1].event_type, "order.unpaid");
    let reason = |i: usize| payload(&orders[i])["reason"].as_str().unwrap().to_owned();
    assert!(reason(2).starts_with("row 5, column Currency: \"EURO\" is no currency code"), "{}", reason(2));
    assert_eq!(reason(3), "row 6, column Total: it is negative, and an order's amount is not");
}

#[test]
fn totals_that_disagree_are_not_added_up_by_guess() {
    let csv = "order_id,customer_id,ordered_at,amount,currency\n1,9,2026-01-31,5.0,usd\n1,9,2026-01-31,5.00,usd\n\
        2,9,2026-01-31,5,usd\n2,9,2026-01-31,6,usd\n";
    let orders = read(csv.as_bytes()).unwrap();
    assert_eq!(payload(&orders[0])["amount"], 500);
    let reason = payload(&orders[1])["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("row 5, column amount: ") && reason.contains("name the quantity and price"), "{reason}");
}

#[test]
fn separators_marks_and_old_encodings_are_understood() {
    let semicolons = b"\xef\xbb\xbforder_id;customer_id;ordered_at;amount;currency;note\r\n1;9;2026-01-31;5.5;usd;caf\xe9, \xa35\r\n";
    let orders = read(semicolons).unwrap();
    assert_eq!(payload(&orders[0])["amount"], 550);
    assert!(read(b"").unwrap_err().contains("it is empty"));
    assert!(read(b"\xff\xfeo\0r\0").unwrap_err().contains("UTF-16"));
    assert!(read(b"a,b\n1,2\n").unwrap_err().contains("the columns are a, b"));
    let error =
        read(b"order_id,ordered_at,amount,currency\n1,2026-01-31,5,usd\n1,2026-01-31,5,usd,more\n").unwrap_err();
    assert!(error.contains("after row 1") || error.contains("line 3"), "{error}");
}

#[test]
fn columns_can_be_named_and_a_currency_given() {
    let mapping = OrdersMapping {
        order: Some("Bill".to_owned()),
        time: Some("When".to_owned()),
        amount: Some("Sum".to_owned()),
        fixed_currency: Some(Currency::parse("kwd").unwrap()),
        ..OrdersMapping::default()
    };
    let stream = Box::new(std::io::Cursor::new(b"Bill,When,Sum,Who\n7,2026-01-31,1.234,9\n".to_vec()));
    let orders = all(from_reader(Source::Orders, "x", stream, &options(mapping)).unwrap()).unwrap();
    assert_eq!(orders[0].event_type, "order.anonymous", "nobody said which column is the customer");
    assert_eq!(payload(&orders[0])["amount"], 1234);
}

#[test]
fn parquet_says_the_same_as_csv() {
    let folder = tempfile::tempdir().unwrap();
    let batch = RecordBatch::try_from_iter([
        ("InvoiceNo", Arc::new(StringArray::from(vec!["536365", "536365"])) as Arc<dyn arrow::array::Array>),
        ("StockCode", Arc::new(StringArray::from(vec!["A", "B"]))),
        ("Quantity", Arc::new(Int64Array::from(vec![6, 1]))),
        ("InvoiceDate", Arc::new(TimestampNanosecondArray::from(vec![1_291_191_960_000_000_000; 2]))),
        ("UnitPrice", Arc::new(Float64Array::from(vec![2.55, 0.1]))),
        ("CustomerID", Arc::new(Float64Array::from(vec![17850.0, 17850.0]))),
    ])
    .unwrap();
    let path = folder.path().join("orders.parquet");
    let mut writer = ArrowWriter::try_new(fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();

    let csv = "InvoiceNo,StockCode,Quantity,InvoiceDate,UnitPrice,CustomerID\n\
        536365,A,6,12/1/2010 8:26,2.55,17850\n536365,B,1,12/1/2010 8:26,0.1,17850\n";
    let from_csv = read(csv.as_bytes()).unwrap();
    assert_eq!(payload(&from_csv[0])["amount"], 1540);
    let options = options(OrdersMapping::default());
    assert_eq!(all(open(Source::Orders, &path, &options).unwrap()).unwrap(), from_csv);
    let stream = Box::new(fs::File::open(&path).unwrap());
    assert_eq!(all(from_reader(Source::Orders, "upload", stream, &options).unwrap()).unwrap(), from_csv);
}

/// The numbers that everyone who cleans this file in the same way finds.
#[test]
fn uci_online_retail_is_read_to_the_penny() {
    let Some(path) = reference("rfm/online_retail.parquet") else { return };
    let batches = open(Source::Orders, &path, &options(OrdersMapping::default())).unwrap();
    let (mut customers, mut sum, mut rows) = (std::collections::BTreeSet::new(), 0i64, 0);
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for batch in batches {
        let batch = batch.unwrap();
        rows += batch.read;
        assert_eq!(batch.rejected, 0);
        for order in batch.envelopes {
            *kinds.entry(order.event_type.clone()).or_default() += 1;
            if order.event_type == "order.imported" {
                sum += payload(&order)["amount"].as_i64().unwrap();
                customers.insert(payload(&order)["customer_ref"].as_str().unwrap().to_owned());
            }
        }
    }
    assert_eq!(rows, 541_909);
    assert_eq!(kinds["order.imported"], 18_532, "{kinds:?}");
    assert_eq!(customers.len(), 4_338);
    assert_eq!(sum, 891_140_790);
    assert_eq!(kinds.values().sum::<u64>(), 25_900, "every invoice is kept: {kinds:?}");
}

/// A file of the reference data; where it is absent the test says so and passes, except in CI.
fn reference(name: &str) -> Option<std::path::PathBuf> {
    let root = std::env::var("TILLSTREAM_REFERENCE").unwrap_or_else(|_| "../shared/reference".to_owned());
    let path = Path::new(&root).join(name);
    if path.is_file() {
        return Some(path);
    }
    assert!(std::env::var("CI").is_err() || !Path::new("../shared").exists(), "no {}", path.display());
    println!("skipped: no reference data ({})", path.display());
    None
}
