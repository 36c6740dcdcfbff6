//! Exchange rates from documents: the ECB's layout, and CSV. A day's rates are one event.

use std::collections::BTreeMap;

use quick_xml::{Reader, events::BytesStart, events::Event};
use serde::Deserialize;
use serde_json::json;

use crate::base::{Currency, Envelope, Micros, fx::Rate, time::DAY};

/// The type of a day's event.
const RATES: &str = "fx.rates";

/// Why a document's rates are not taken. It names the place.
#[derive(Debug, thiserror::Error)]
pub enum RatesError {
    #[error("byte {at}: {why}")]
    Xml { at: u64, why: String },
    #[error("line {line}: {why}")]
    Csv { line: u64, why: String },
    #[error("it holds no rates: {0} is wanted")]
    Nothing(&'static str),
    #[error("{rate} {currency} for one {base} on {day}: {why}", rate = .0.rate, currency = .0.currency, base = .0.base, day = .0.day, why = .1)]
    NoRate(Rate, &'static str),
    #[error("a day's rates could not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// From the ECB's layout: `<Cube time="2026-01-30"><Cube currency="USD" rate="1.0823"/>…`, of one euro each. A currency that
/// is not known is left out.
pub fn from_ecb(document: &[u8]) -> Result<Vec<Rate>, RatesError> {
    let mut reader = Reader::from_reader(document);
    let (mut rates, mut day) = (Vec::new(), None);
    loop {
        let fault = |at: u64, why: &dyn ToString| RatesError::Xml { at, why: why.to_string() };
        let read = reader.read_event();
        let at = reader.buffer_position();
        match read.map_err(|e| fault(reader.error_position(), &e))? {
            Event::Start(cube) | Event::Empty(cube) if cube.local_name().as_ref() == b"Cube" => {
                let said = |name| attribute(&cube, name).map_err(|e| fault(at, &e));
                if let Some(time) = said("time")? {
                    day = Some(time.parse().map_err(|_| fault(at, &format!("{time} is no day, as 2026-01-30")))?);
                }
                let (Some(code), Some(rate)) = (said("currency")?, said("rate")?) else { continue };
                let rate: f64 = rate.parse().map_err(|_| fault(at, &format!("{code}: {rate} is no rate")))?;
                let day = day.ok_or_else(|| fault(at, &format!("{code} has a rate and no day")))?;
                if let Ok(currency) = Currency::parse(&code) {
                    rates.push(Rate { day, base: euro().map_err(|e| fault(at, &e))?, currency, rate });
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    known(rates, "<Cube time=…> with <Cube currency=… rate=…/> in it")
}

fn euro() -> Result<Currency, crate::base::money::UnknownCurrency> {
    Currency::parse("eur")
}

fn attribute(element: &BytesStart, name: &str) -> Result<Option<String>, quick_xml::Error> {
    let found = element.try_get_attribute(name)?;
    Ok(found.map(|attribute| String::from_utf8_lossy(&attribute.value).into_owned()))
}

/// From CSV with a line of names: `day,base,currency,rate`.
pub fn from_csv(document: &[u8]) -> Result<Vec<Rate>, RatesError> {
    #[derive(Deserialize)]
    struct Line {
        day: String,
        base: String,
        currency: String,
        rate: f64,
    }
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(document);
    let mut rates = Vec::new();
    for (i, line) in reader.deserialize::<Line>().enumerate() {
        // The names are the first line.
        let fault = |why: String| RatesError::Csv { line: i as u64 + 2, why };
        let line = line.map_err(|e| fault(e.to_string()))?;
        let day = line.day.parse().map_err(|_| fault(format!("{} is no day, as 2026-01-30", line.day)))?;
        let currency = |code: &str| Currency::parse(code).map_err(|e| fault(e.to_string()));
        rates.push(Rate { day, base: currency(&line.base)?, currency: currency(&line.currency)?, rate: line.rate });
    }
    known(rates, "day,base,currency,rate, as 2026-01-30,eur,usd,1.0823")
}

/// All of a document's, if each can be one and is not of the future: rates that are stored are there for good.
fn known(rates: Vec<Rate>, wanted: &'static str) -> Result<Vec<Rate>, RatesError> {
    // In some zone it is tomorrow already.
    let tomorrow = Micros::now().plus(DAY).date();
    for rate in &rates {
        let early = tomorrow.is_some_and(|tomorrow| rate.day > tomorrow).then_some("that day is to come");
        if let Some(why) = rate.fault().or(early) {
            return Err(RatesError::NoRate(*rate, why));
        }
    }
    if rates.is_empty() { Err(RatesError::Nothing(wanted)) } else { Ok(rates) }
}

/// One event for each day and base. `origin`: `ecb`, `file` or `stripe`. The same rates, fetched again, are the same events.
pub fn events(rates: &[Rate], origin: &str, received_at: Micros) -> Result<Vec<Envelope>, RatesError> {
    let mut days: BTreeMap<_, BTreeMap<&str, f64>> = BTreeMap::new();
    for rate in rates {
        days.entry((rate.day, rate.base)).or_default().insert(rate.currency.as_str(), rate.rate);
    }
    let event = |((day, base), rates)| {
        let payload = json!({"day": day, "base": base, "origin": origin, "rates": rates}).to_string();
        let own = Envelope::own(RATES, format!("fx:{origin}:{base}:{day}"), received_at, payload)?;
        Ok(Envelope { digest: own.digest.with(RATES), ..own })
    };
    days.into_iter().map(event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(rates: &[Rate]) -> Vec<String> {
        rates.iter().map(|r| format!("{} {} {} {}", r.day, r.base, r.currency, r.rate)).collect()
    }

    #[test]
    fn the_ecbs_layout_is_read() {
        let document = br#"<?xml version="1.0" encoding="UTF-8"?>
            <gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01" xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">
            <gesmes:subject>Reference rates</gesmes:subject>
            <Cube><Cube time='2026-01-30'><Cube currency='USD' rate='1.0823'/><Cube currency='XYZ' rate='2'/></Cube>
            <Cube time="2026-01-29"><Cube currency="JPY" rate="161.5"></Cube></Cube></Cube></gesmes:Envelope>"#;
        let rates = from_ecb(document).unwrap();
        assert_eq!(shown(&rates), ["2026-01-30 eur usd 1.0823", "2026-01-29 eur jpy 161.5"]);
        let (now, later) = (Micros(5), Micros(6));
        let (once, again) = (events(&rates, "ecb", now).unwrap(), events(&rates, "ecb", later).unwrap());
        assert_eq!(once.len(), 2);
        for (a, b) in once.iter().zip(&again) {
            assert_eq!(a.identity().key(), b.identity().key());
        }
    }

    #[test]
    fn a_document_of_another_kind_says_what_is_wanted() {
        let told = |document: &[u8]| from_ecb(document).unwrap_err().to_string();
        assert!(told(b"<html>Not found</html>").contains("it holds no rates"));
        assert!(
            told(b"<Cube time='yesterday'/>").contains("yesterday is no day"),
            "{}",
            told(b"<Cube time='yesterday'/>")
        );
        assert!(told(b"<Cube currency='USD' rate='1'/>").contains("no day"));
        assert!(told(b"<Cube time='2026-01-30'><Cube currency='USD' rate='one'/>").contains("one is no rate"));
        assert!(told(b"<Cube time='2026-01-30'></Other>").starts_with("byte "));
        let told = |document: &[u8]| from_csv(document).unwrap_err().to_string();
        assert!(told(b"day,base,currency,rate\n").contains("it holds no rates"));
        assert!(
            told(b"day,base,currency,rate\n2026-01-30,eur,usd,1.1\n30.1.2026,eur,usd,1\n")
                .starts_with("line 3: 30.1.2026")
        );
        assert!(told(b"day,base,currency,rate\n2026-01-30,eur,usx,1.1\n").contains("usx"));
        assert!(told(b"day,base,currency,rate\n2026-01-30,eur,usd,\n").starts_with("line 2: "));
        for wrong in ["eur,usd,-1", "eur,usd,0", "eur,usd,1e300", "eur,usd,NaN", "eur,eur,1"] {
            let told = told(format!("day,base,currency,rate\n2026-01-30,{wrong}\n").as_bytes());
            assert!(told.contains("on 2026-01-30: "), "{wrong}: {told}");
        }
        assert!(told(b"day,base,currency,rate\n2999-01-30,eur,usd,1.1\n").ends_with("that day is to come"));
        assert!(told(b"date,from,to\n2026-01-30,eur,usd\n").contains("day"));
    }

    #[test]
    fn a_file_may_have_more_columns_in_another_order() {
        let rates = from_csv(b"currency, base, rate, note, day\nUSD, eur, 1.0823, fixing, 2026-01-30\n").unwrap();
        assert_eq!(shown(&rates), ["2026-01-30 eur usd 1.0823"]);
    }
}
