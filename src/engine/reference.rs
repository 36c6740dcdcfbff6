//! Reference tables that the product ships: `ref.countries`, `ref.currencies`, `ref.decline_codes`.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, BooleanArray, Int32Array, RecordBatch, StringArray},
        datatypes::{Field, Schema},
    },
    catalog::TableProvider,
    datasource::MemTable,
    error::Result,
};

use crate::base::{Currency, decline};

pub(super) const NAMES: [&str; 3] = ["ref.countries", "ref.currencies", "ref.decline_codes"];

/// The reference table of that name, if there is one.
pub(super) fn table(name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    match name {
        "ref.countries" => countries().map(Some),
        "ref.currencies" => currencies().map(Some),
        "ref.decline_codes" => decline_codes().map(Some),
        _ => Ok(None),
    }
}

/// `country`, two letters; `currency`, what people are paid in there, lower-case ISO code. One row a country.
fn countries() -> Result<Arc<dyn TableProvider>> {
    let (countries, currencies): (Vec<&str>, Vec<Currency>) = Currency::by_country().unzip();
    let currencies = texts(currencies.iter().map(Currency::as_str));
    memory(vec![("country", texts(countries.into_iter())), ("currency", currencies)])
}

/// `currency`, lower-case ISO code; `exponent`, decimal places of its major unit. One row a currency.
fn currencies() -> Result<Arc<dyn TableProvider>> {
    let all: Vec<Currency> = Currency::all().collect();
    let exponents: Int32Array = all.iter().map(|c| Some(i32::from(c.exponent()))).collect();
    memory(vec![("currency", texts(all.iter().map(Currency::as_str))), ("exponent", Arc::new(exponents))])
}

/// One row a code and family of payment methods.
fn decline_codes() -> Result<Arc<dyn TableProvider>> {
    let all = decline::all();
    let masked: BooleanArray = all.iter().map(|c| Some(c.mask_from_customer)).collect();
    memory(vec![
        ("code", texts(all.iter().map(|c| c.code))),
        ("kind", texts(all.iter().map(|c| c.kind))),
        ("category", texts(all.iter().map(|c| c.category))),
        ("retry_advice", texts(all.iter().map(|c| c.retry_advice))),
        ("who_acts", texts(all.iter().map(|c| c.who_acts))),
        ("mask_from_customer", Arc::new(masked)),
        ("next_step", texts(all.iter().map(|c| c.next_step))),
    ])
}

fn texts<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn memory(columns: Vec<(&str, ArrayRef)>) -> Result<Arc<dyn TableProvider>> {
    let fields: Vec<Field> = columns.iter().map(|(n, c)| Field::new(*n, c.data_type().clone(), false)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, c)| c).collect())?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_table_has_its_rows() {
        for name in NAMES {
            assert!(table(name).unwrap().is_some(), "{name}");
        }
        assert!(table("ref.weather").unwrap().is_none());
    }
}
