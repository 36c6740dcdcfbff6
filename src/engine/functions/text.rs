//! Functions from text to text: phones, hashes, decline codes.
//!
//! NULL where the first argument is; and where it is not what the function reads, NULL as well, so that one bad phone
//! in a table does not fail a query over all of them.

use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::RangeInclusive,
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, StringArray},
        datatypes::DataType,
    },
    common::{exec_datafusion_err, plan_err},
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
};

use crate::base::{
    E164, Pseudonymizer, decline,
    phone::{Plan, region_or},
};

/// The functions that need nothing but their arguments.
pub(super) fn shared() -> Vec<TextFunction> {
    vec![
        // Of a number in E.164: its country, two letters.
        TextFunction::new("phone_region", 1..=1, |args| E164::parse(args[0]?, None).ok()?.region()),
        // `mobile`, `fixed_line`, …
        TextFunction::new("phone_type", 1..=1, |args| Some(E164::parse(args[0]?, None).ok()?.kind().to_owned())),
        // To whom its range was given first.
        TextFunction::new("phone_carrier", 1..=1, |args| plan(args)?.carrier),
        // A JSON list of IANA names: where numbers of its range are.
        TextFunction::new("phone_time_zones", 1..=1, |args| {
            let zones = plan(args)?.time_zones;
            (!zones.is_empty()).then(|| serde_json::Value::from(zones).to_string())
        }),
        // The kind of reason behind a decline code; `unknown` for a code that the table does not hold. The payment
        // method's type decides between a card's meaning and a local method's.
        TextFunction::new("decline_category", 1..=2, |args| {
            let known = decline::look_up(args[0]?, args.get(1).copied().flatten());
            Some(known.map_or("unknown", |c| c.category).to_owned())
        }),
    ]
}

/// The functions that hash under the directory's key or read national numbers as its merchant does.
pub(super) fn for_session(names: Pseudonymizer, default_region: Option<String>) -> Vec<TextFunction> {
    let merchants = default_region.clone();
    let parse = move |args: &[Option<&str>]| {
        let region = region_or(args.get(1).copied().flatten(), merchants.as_deref());
        E164::parse(args[0]?, region).ok()
    };
    let (parse_to_hash, hash_phone) = (parse.clone(), names.clone());
    vec![
        // `phone_problem(text[, region])`: why it is no number, in one word; NULL of one that is.
        TextFunction::new("phone_problem", 1..=2, move |args| {
            let region = region_or(args.get(1).copied().flatten(), default_region.as_deref());
            E164::parse(args[0]?, region).err().map(|why| why.code().to_owned())
        }),
        // `phone_e164(text[, region])`: NULL for what is no number in that region (the merchant's by default).
        TextFunction::new("phone_e164", 1..=2, move |args| Some(parse(args)?.as_str().to_owned())),
        // `phone_hash(text[, region])`: as the tables hold it, to look one up.
        TextFunction::new("phone_hash", 1..=2, move |args| Some(hash_phone.phone(&parse_to_hash(args)?))),
        // `email_hash(text)`: as the tables hold it; case and outer spaces do not matter.
        TextFunction::new("email_hash", 1..=1, move |args| names.email(args[0]?)),
    ]
}

fn plan(args: &[Option<&str>]) -> Option<Plan> {
    Some(E164::parse(args[0]?, None).ok()?.plan())
}

type Body = dyn Fn(&[Option<&str>]) -> Option<String> + Send + Sync;

/// A function of one or two texts.
pub(super) struct TextFunction {
    name: &'static str,
    arity: RangeInclusive<usize>,
    signature: Signature,
    body: Arc<Body>,
}

impl TextFunction {
    fn new(
        name: &'static str,
        arity: RangeInclusive<usize>,
        body: impl Fn(&[Option<&str>]) -> Option<String> + Send + Sync + 'static,
    ) -> TextFunction {
        TextFunction { name, arity, signature: Signature::user_defined(Volatility::Immutable), body: Arc::new(body) }
    }
}

impl ScalarUDFImpl for TextFunction {
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
        let (least, most) = (*self.arity.start(), *self.arity.end());
        if !self.arity.contains(&given.len()) {
            let wanted = if least == most { least.to_string() } else { format!("{least} or {most}") };
            return plan_err!("{} takes {wanted} texts, not {} arguments", self.name, given.len());
        }
        for (i, kind) in given.iter().enumerate() {
            if !(kind.is_string() || kind.is_null()) {
                return plan_err!("{} takes texts: argument {} is {kind}", self.name, i + 1);
            }
        }
        Ok(vec![DataType::Utf8; given.len()])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let texts: Vec<&StringArray> = arrays.iter().map(|a| a.as_string::<i32>()).collect();
        let rows = texts.first().map_or(args.number_rows, |t| t.len());
        let mut row_args = Vec::with_capacity(texts.len());
        let results: StringArray = (0..rows)
            .map(|row| {
                row_args.clear();
                row_args.extend(texts.iter().map(|t| t.is_valid(row).then(|| t.value(row))));
                (self.body)(&row_args)
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(results)))
    }
}

impl fmt::Debug for TextFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for TextFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.body, &other.body)
    }
}

impl Eq for TextFunction {}

impl Hash for TextFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// The arguments as arrays of one length.
pub(super) fn arrays<const N: usize>(args: &ScalarFunctionArgs) -> Result<[ArrayRef; N]> {
    let arrays = args.args.iter().map(|a| a.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
    let given = arrays.len();
    arrays.try_into().map_err(|_| exec_datafusion_err!("{N} arguments are wanted, not {given}"))
}
