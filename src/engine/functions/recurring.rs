//! What a subscription brings ([`recurring`]), once the discounts that its events only name are known: `terms_named`,
//! `items_with`, `discounts_with`, `mrr_micros`.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, Float64Array, Int64Array, Int64Builder, ListArray, ListBuilder, StringArray,
            StringBuilder, StructArray, TimestampMicrosecondArray,
        },
        compute::cast,
        datatypes::{DataType, Field, Float64Type, Int64Type, TimestampMicrosecondType},
    },
    common::{exec_datafusion_err, plan_err},
    error::{DataFusionError, Result},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
};
use serde::de::DeserializeOwned;

use super::{text::arrays, time::utc};
use crate::base::{
    Currency, Micros,
    recurring::{self, Discount, Item},
};

/// `terms_named(items Utf8, discounts Utf8) -> List<Utf8>`: the ids of the discounts that the JSON texts of a subscription name
/// without saying what they take off, and of the prices of items without saying what these cost. An error where a text is none
/// of `core.subscriptions`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct TermsNamed {
    signature: Signature,
}

impl TermsNamed {
    pub fn new() -> TermsNamed {
        TermsNamed { signature: Signature::exact(vec![DataType::Utf8; 2], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for TermsNamed {
    fn name(&self) -> &str {
        "terms_named"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [items, discounts] = arrays(&args)?;
        let mut named = ListBuilder::new(StringBuilder::new());
        for row in 0..items.len() {
            let sold = Sold::of(self.name(), items.as_string(), discounts.as_string(), row)?;
            let discounts = recurring::unknown(&sold.items, &sold.discounts).map(|discount| discount.id.clone());
            named.append_value(discounts.chain(recurring::unpriced(&sold.items).map(|item| item.price_id.clone())));
        }
        Ok(ColumnarValue::Array(Arc::new(named.finish())))
    }
}

/// `items_with(items Utf8, known List<Struct>) -> Utf8` and `discounts_with(discounts Utf8, known List<Struct>) -> Utf8`: the JSON
/// text, with what is known of discounts filled in where it only names them. `known` says of each: `id`, `coupon_id`,
/// `percent_off`, `amount_off`, `duration`, `ends_at`. NULL where the text is; an error where it is none of
/// `core.subscriptions`.
#[derive(Debug)]
pub(super) struct With {
    name: &'static str,
    signature: Signature,
    fill: Fill,
}

/// A text, with each of its discounts told.
type Fill = fn(&str, &dyn Fn(&mut Discount)) -> serde_json::Result<String>;

impl With {
    pub fn items() -> With {
        With::new("items_with", |text, tell| {
            let mut items: Vec<Item> = serde_json::from_str(text)?;
            items.iter_mut().flat_map(|item| &mut item.discounts).for_each(tell);
            serde_json::to_string(&items)
        })
    }

    pub fn discounts() -> With {
        With::new("discounts_with", |text, tell| {
            let mut discounts: Vec<Discount> = serde_json::from_str(text)?;
            discounts.iter_mut().for_each(tell);
            serde_json::to_string(&discounts)
        })
    }

    fn new(name: &'static str, fill: Fill) -> With {
        With { name, signature: Signature::user_defined(Volatility::Immutable), fill }
    }
}

/// The name tells which it is.
impl PartialEq for With {
    fn eq(&self, other: &With) -> bool {
        self.name == other.name
    }
}

impl Eq for With {}

impl Hash for With {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for With {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let [_, DataType::List(known)] = given else {
            return plan_err!("{} takes a text and a list of known discounts", self.name());
        };
        Ok(vec![DataType::Utf8, DataType::List(Arc::clone(known))])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [texts, known] = arrays(&args)?;
        let (texts, known) = (texts.as_string::<i32>(), Known::of(known.as_list::<i32>())?);
        let mut filled = StringBuilder::new();
        for row in 0..texts.len() {
            if texts.is_null(row) || known.lists.is_null(row) {
                filled.append_option(texts.is_valid(row).then(|| texts.value(row)));
                continue;
            }
            let text = texts.value(row);
            let told = (self.fill)(text, &|discount| known.tell(row, discount));
            filled.append_value(told.map_err(|e| no_list(self.name, text, &e))?);
        }
        Ok(ColumnarValue::Array(Arc::new(filled.finish())))
    }
}

/// `mrr_micros(currency Utf8, items Utf8, discounts Utf8, at Timestamp) -> Int64`: what a subscription brings a month at `at`, in
/// millionths of a major unit. A discount that is only named takes nothing off, an item without a price brings nothing.
/// 0 without a currency; NULL without a time; an error where the result does not fit.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct MrrMicros {
    signature: Signature,
}

impl MrrMicros {
    pub fn new() -> MrrMicros {
        let types = vec![DataType::Utf8, DataType::Utf8, DataType::Utf8, utc()];
        MrrMicros { signature: Signature::exact(types, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for MrrMicros {
    fn name(&self) -> &str {
        "mrr_micros"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [currency, items, discounts, at] = arrays(&args)?;
        let (currency, at) = (currency.as_string::<i32>(), at.as_primitive::<TimestampMicrosecondType>());
        let mut brings = Int64Builder::with_capacity(items.len());
        for row in 0..items.len() {
            if currency.is_null(row) || at.is_null(row) {
                brings.append_option(at.is_valid(row).then_some(0));
                continue;
            }
            let fault = |e: &dyn ToString| exec_datafusion_err!("{}: {}", self.name(), e.to_string());
            let currency = Currency::parse(currency.value(row)).map_err(|e| fault(&e))?;
            let sold = Sold::of(self.name(), items.as_string(), discounts.as_string(), row)?;
            let micros = recurring::mrr_micros(currency, &sold.items, &sold.discounts, Micros(at.value(row)));
            brings.append_value(micros.map_err(|e| fault(&e))?);
        }
        Ok(ColumnarValue::Array(Arc::new(brings.finish())))
    }
}

struct Sold {
    items: Vec<Item>,
    discounts: Vec<Discount>,
}

impl Sold {
    fn of(function: &str, items: &StringArray, discounts: &StringArray, row: usize) -> Result<Sold> {
        Ok(Sold { items: list(function, items, row)?, discounts: list(function, discounts, row)? })
    }
}

/// A JSON list; NULL is one of nothing.
fn list<T: DeserializeOwned>(function: &str, texts: &StringArray, row: usize) -> Result<Vec<T>> {
    if texts.is_null(row) {
        return Ok(Vec::new());
    }
    let text = texts.value(row);
    serde_json::from_str(text).map_err(|e| no_list(function, text, &e))
}

fn no_list(function: &str, text: &str, error: &serde_json::Error) -> DataFusionError {
    exec_datafusion_err!("{function}: {text:?} is no list of that kind: {error}")
}

/// What the discounts in the lists of a column take off.
struct Known {
    lists: ListArray,
    ids: StringArray,
    coupons: StringArray,
    percents: Float64Array,
    amounts: Int64Array,
    durations: StringArray,
    ends: TimestampMicrosecondArray,
}

impl Known {
    fn of(lists: &ListArray) -> Result<Known> {
        let none = exec_datafusion_err!("known discounts are structs");
        let all: &StructArray = lists.values().as_struct_opt().ok_or(none)?;
        let column = |name: &str, of: &DataType| -> Result<ArrayRef> {
            let column = all.column_by_name(name);
            let column = column.ok_or_else(|| exec_datafusion_err!("known discounts have no {name}"))?;
            Ok(cast(column, of)?)
        };
        Ok(Known {
            lists: lists.clone(),
            ids: column("id", &DataType::Utf8)?.as_string().clone(),
            coupons: column("coupon_id", &DataType::Utf8)?.as_string().clone(),
            percents: column("percent_off", &DataType::Float64)?.as_primitive::<Float64Type>().clone(),
            amounts: column("amount_off", &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
            durations: column("duration", &DataType::Utf8)?.as_string().clone(),
            ends: column("ends_at", &utc())?.as_primitive::<TimestampMicrosecondType>().clone(),
        })
    }

    /// What the list in `row` says of `discount`, if it does.
    fn tell(&self, row: usize, discount: &mut Discount) {
        let offsets = self.lists.value_offsets();
        let mut all = offsets[row] as usize..offsets[row + 1] as usize;
        let is_it = |i: &usize| self.ids.is_valid(*i) && Some(self.ids.value(*i)) == discount.id.as_deref();
        let Some(i) = all.find(is_it) else { return };
        let text = |texts: &StringArray| texts.is_valid(i).then(|| texts.value(i).to_owned());
        discount.coupon_id = text(&self.coupons);
        discount.duration = text(&self.durations);
        discount.percent_off = self.percents.is_valid(i).then(|| self.percents.value(i).to_string());
        discount.amount_off = self.amounts.is_valid(i).then(|| self.amounts.value(i));
        discount.ends_at = self.ends.is_valid(i).then(|| Micros(self.ends.value(i)).seconds());
    }
}
