//! Which column is what: named by the user, else recognised by the layout of a known export.

use serde::{Deserialize, Serialize};

use crate::base::{Currency, suggest::did_you_mean};

/// Names of columns. What is `None` is recognised where the layout is a known one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrdersMapping {
    pub order: Option<String>,
    pub customer: Option<String>,
    pub time: Option<String>,
    pub quantity: Option<String>,
    /// Of one piece, in major units.
    pub price: Option<String>,
    /// Of the whole order, in major units. Without it, an order's amount is the sum of its lines.
    pub amount: Option<String>,
    pub currency: Option<String>,
    pub country: Option<String>,
    pub sku: Option<String>,
    /// The currency of all orders, where no column has it.
    pub fixed_currency: Option<Currency>,
}

/// The mapping of one file: numbers of its columns.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub order: usize,
    pub time: usize,
    pub customer: Option<usize>,
    pub amount: Amount,
    pub currency: CurrencyFrom,
    pub country: Option<usize>,
    pub sku: Option<usize>,
    pub status: Option<usize>,
    pub rules: Rules,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Amount {
    /// The sum of the lines.
    Lines { quantity: usize, price: usize },
    /// A column has the order's total; lines are kept where the file has them.
    Total { amount: usize, lines: Option<(usize, usize)> },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum CurrencyFrom {
    Column(usize),
    Fixed(Currency),
}

/// What an export means beyond its columns.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rules {
    /// An order number that starts with C is a cancellation, its quantities negative.
    pub c_is_refund: bool,
    /// `12/1/2010` is the first of December. Elsewhere such a date is ambiguous and refused.
    pub month_first: bool,
    /// The number that stands for "no customer".
    pub guest: Option<&'static str>,
    /// States in which an order was not paid.
    pub unpaid: &'static [&'static str],
}

/// A known export. Each column by its names, without case, spaces and punctuation; the first that the file has is taken.
struct Layout {
    /// Fields that must be there for a file to be this export.
    marks: &'static [&'static [&'static str]],
    order: &'static [&'static str],
    customer: &'static [&'static str],
    time: &'static [&'static str],
    quantity: &'static [&'static str],
    price: &'static [&'static str],
    amount: &'static [&'static str],
    currency: &'static [&'static str],
    country: &'static [&'static str],
    sku: &'static [&'static str],
    status: &'static [&'static str],
    fixed_currency: Option<&'static str>,
    rules: Rules,
}

/// The UCI Machine Learning Repository's Online Retail and Online Retail II.
const UCI: Layout = Layout {
    marks: &[&["stockcode"], &["invoicedate"], &["quantity"]],
    order: &["invoiceno", "invoice"],
    customer: &["customerid"],
    time: &["invoicedate"],
    quantity: &["quantity"],
    price: &["unitprice", "price"],
    amount: &[],
    currency: &[],
    country: &["country"],
    sku: &["stockcode"],
    status: &[],
    fixed_currency: Some("gbp"),
    rules: Rules { c_is_refund: true, month_first: true, guest: None, unpaid: &[] },
};

/// Shopify's own export: a row a line; totals stand in an order's first row.
const SHOPIFY: Layout = Layout {
    marks: &[&["lineitemquantity"], &["financialstatus"]],
    order: &["name"],
    customer: &["email"],
    time: &["createdat"],
    quantity: &["lineitemquantity"],
    price: &["lineitemprice"],
    amount: &["total"],
    currency: &["currency"],
    country: &["shippingcountry", "billingcountry"],
    sku: &["lineitemsku", "lineitemname"],
    status: &["financialstatus"],
    fixed_currency: None,
    rules: Rules {
        c_is_refund: false,
        month_first: false,
        guest: None,
        unpaid: &["pending", "authorized", "voided", "expired"],
    },
};

/// Exports of WooCommerce's extensions (woocommerce.com/document/import-and-export-of-woocommerce-orders).
const WOOCOMMERCE: Layout = Layout {
    marks: &[&["ordertotal", "ordertotalamount"], &["orderdate"]],
    order: &["ordernumber", "orderid"],
    customer: &["customeremail", "emailbilling", "billingemail", "customerid", "customeruserid"],
    time: &["orderdate"],
    quantity: &[],
    price: &[],
    amount: &["ordertotal", "ordertotalamount"],
    currency: &["ordercurrency", "currency"],
    country: &["shippingcountry", "billingcountry", "countrycodeshipping", "countrycodebilling"],
    sku: &[],
    status: &["status", "orderstatus"],
    fixed_currency: None,
    rules: Rules {
        c_is_refund: false,
        month_first: true,
        guest: Some("0"),
        unpaid: &["pending", "pendingpayment", "onhold", "cancelled", "failed", "draft", "checkoutdraft"],
    },
};

/// Names that a file written for this purpose would use.
const GENERIC: Layout = Layout {
    marks: &[],
    order: &["orderid", "orderref", "ordernumber", "order"],
    customer: &["customerid", "customerref", "customer", "customeremail", "email"],
    time: &["orderedat", "createdat", "time", "date", "orderdate"],
    quantity: &["quantity"],
    price: &["unitprice", "price"],
    amount: &["amount", "total"],
    currency: &["currency"],
    country: &["country"],
    sku: &["sku", "productid", "product"],
    status: &[],
    fixed_currency: None,
    rules: Rules { c_is_refund: false, month_first: false, guest: None, unpaid: &[] },
};

/// The first that fits is taken; the last fits always.
const LAYOUTS: [&Layout; 4] = [&UCI, &SHOPIFY, &WOOCOMMERCE, &GENERIC];

impl OrdersMapping {
    /// The names of columns that the user gave.
    fn given(&self) -> impl Iterator<Item = &String> {
        let OrdersMapping { order, time, customer, amount, quantity, price, currency, country, sku, .. } = self;
        [order, time, customer, amount, quantity, price, currency, country, sku].into_iter().flatten()
    }

    /// The plan for a file with these columns, or what is lacking and what to do.
    pub(super) fn plan(&self, columns: &[String]) -> Result<Plan, String> {
        // A name that is none is told of first: what is said to be lacking may only be misspelt.
        for name in self.given() {
            named(columns, name)?;
        }
        let plain: Vec<String> = columns.iter().map(|c| plain(c)).collect();
        let layout = LAYOUTS.into_iter().find(|l| l.marks.iter().all(|m| known(&plain, m).is_some()));
        let layout = layout.unwrap_or(&GENERIC);
        let find = |given: &Option<String>, names: &[&str]| match given {
            Some(name) => named(columns, name).map(Some),
            None => Ok(known(&plain, names)),
        };
        let lacking = |what: &str, flag: &str| {
            let columns = columns.join(", ");
            format!("no column is known to hold {what}: name it with {flag}; the columns are {columns}")
        };

        let lines = find(&self.quantity, layout.quantity)?.zip(find(&self.price, layout.price)?);
        let amount = match (find(&self.amount, layout.amount)?, lines) {
            (Some(amount), lines) => Amount::Total { amount, lines },
            (None, Some((quantity, price))) => Amount::Lines { quantity, price },
            (None, None) => {
                let flags = "--amount-column, or --quantity-column and --price-column";
                return Err(lacking("the amount", flags));
            }
        };
        let fixed = self.fixed_currency.or_else(|| Currency::parse(layout.fixed_currency?).ok());
        let currency = match (find(&self.currency, layout.currency)?, fixed) {
            // What the user says goes before what the layout says.
            (Some(column), _) if self.fixed_currency.is_none() || self.currency.is_some() => {
                CurrencyFrom::Column(column)
            }
            (_, Some(currency)) => CurrencyFrom::Fixed(currency),
            (_, None) => return Err(lacking("the currency", "--currency-column, or give --currency, as gbp")),
        };
        Ok(Plan {
            order: find(&self.order, layout.order)?.ok_or_else(|| lacking("the order's number", "--order-column"))?,
            time: find(&self.time, layout.time)?.ok_or_else(|| lacking("the order's time", "--time-column"))?,
            customer: find(&self.customer, layout.customer)?,
            amount,
            currency,
            country: find(&self.country, layout.country)?,
            sku: find(&self.sku, layout.sku)?,
            status: known(&plain, layout.status),
            rules: layout.rules,
        })
    }
}

impl Plan {
    /// The columns that are read, in ascending order.
    pub fn columns(&self) -> Vec<usize> {
        let mut columns = Vec::new();
        self.clone().each(|column| columns.push(*column));
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// The same plan for a table that has only these columns.
    pub fn projected(mut self) -> Plan {
        let columns = self.columns();
        self.each(|column| *column = columns.partition_point(|c| c < column));
        self
    }

    fn each(&mut self, mut act: impl FnMut(&mut usize)) {
        let (amount, lines) = match &mut self.amount {
            Amount::Lines { quantity, price } => (None, Some((quantity, price))),
            Amount::Total { amount, lines } => {
                (Some(amount), lines.as_mut().map(|(quantity, price)| (quantity, price)))
            }
        };
        let currency = match &mut self.currency {
            CurrencyFrom::Column(column) => Some(column),
            CurrencyFrom::Fixed(_) => None,
        };
        let (quantity, price) = lines.unzip();
        let optional = [self.customer.as_mut(), amount, quantity, price, currency];
        let more = [self.country.as_mut(), self.sku.as_mut(), self.status.as_mut()];
        act(&mut self.order);
        act(&mut self.time);
        optional.into_iter().chain(more).flatten().for_each(act);
    }
}

fn known(plain: &[String], names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| plain.iter().position(|p| p == name))
}

fn named(columns: &[String], name: &str) -> Result<usize, String> {
    let exact = columns.iter().position(|c| c == name);
    exact.or_else(|| columns.iter().position(|c| plain(c) == plain(name))).ok_or_else(|| {
        let hint = did_you_mean(name, columns.iter().map(String::as_str));
        format!("it has no column \"{name}\"{hint}")
    })
}

/// In lower case, letters and digits only.
pub(super) fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(mapping: &OrdersMapping, columns: &[&str]) -> Result<Plan, String> {
        mapping.plan(&columns.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn known_exports_are_recognised() {
        let none = OrdersMapping::default();
        let uci =
            ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"];
        let uci = plan(&none, &uci).unwrap();
        assert!(uci.rules.c_is_refund);
        assert!(matches!(uci.amount, Amount::Lines { quantity: 3, price: 5 }));
        assert!(matches!(uci.currency, CurrencyFrom::Fixed(c) if c.as_str() == "gbp"));
        assert_eq!(uci.columns(), [0, 1, 3, 4, 5, 6, 7]);

        let shopify = [
            "Name",
            "Email",
            "Financial Status",
            "Currency",
            "Total",
            "Created at",
            "Lineitem quantity",
            "Lineitem price",
            "Lineitem sku",
            "Billing Country",
            "Shipping Country",
        ];
        let shopify = plan(&none, &shopify).unwrap();
        assert_eq!((shopify.order, shopify.customer, shopify.country, shopify.status), (0, Some(1), Some(10), Some(2)));
        assert!(matches!(shopify.amount, Amount::Total { amount: 4, lines: Some((6, 7)) }));

        let woo =
            ["order_id", "order_date", "status", "order_total", "order_currency", "customer_id", "customer_email"];
        let woo = plan(&none, &woo).unwrap();
        assert_eq!((woo.order, woo.customer, woo.rules.guest), (0, Some(6), Some("0")));

        let generic = plan(&none, &["order_id", "customer_id", "ordered_at", "amount", "currency"]).unwrap();
        assert_eq!((generic.order, generic.customer, generic.time), (0, Some(1), 2));
    }

    #[test]
    fn the_user_has_the_last_word() {
        let columns = ["Bill", "When", "Sum", "Amount"];
        let mapping = OrdersMapping {
            order: Some("bill".to_owned()),
            time: Some("When".to_owned()),
            amount: Some("Sum".to_owned()),
            fixed_currency: Some(Currency::parse("eur").unwrap()),
            ..OrdersMapping::default()
        };
        let plan = plan(&mapping, &columns).unwrap();
        assert_eq!((plan.order, plan.time), (0, 1));
        assert!(matches!(plan.amount, Amount::Total { amount: 2, lines: None }));
    }

    #[test]
    fn what_is_lacking_is_named_with_its_flag() {
        let none = OrdersMapping::default();
        assert!(plan(&none, &["a", "b"]).unwrap_err().contains("--amount-column"));
        let error = plan(&none, &["order_id", "ordered_at", "amount"]).unwrap_err();
        assert!(error.contains("--currency") && error.contains("order_id, ordered_at, amount"), "{error}");
        let mapping = OrdersMapping { order: Some("oder".to_owned()), ..none };
        for columns in [&["order", "ordered_at", "amount", "currency"][..], &["order"]] {
            let error = plan(&mapping, columns).unwrap_err();
            assert_eq!(error, "it has no column \"oder\"; did you mean \"order\"?", "first, whatever else is lacking");
        }
    }
}
