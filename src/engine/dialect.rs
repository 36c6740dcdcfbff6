//! How SQL is written: sqlparser's general dialect, but for the JSON operators, which bind tighter than a comparison, and for
//! `IS DISTINCT FROM`, which ends before `AND`.
//!
//! In the general dialect `payload->>'type' = 'x'` is `payload->>('type' = 'x')`, and `a IS DISTINCT FROM b AND c` is
//! `a IS DISTINCT FROM (b AND c)`. Whatever that one says of what a statement that
//! only reads may hold is asked of it.

use std::any::TypeId;

use datafusion::sql::sqlparser::{
    ast::Expr,
    dialect::{Dialect, GenericDialect, Precedence},
    keywords::Keyword,
    parser::{Parser, ParserError},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Ours;

const GENERAL: GenericDialect = GenericDialect;

/// Answered as the general dialect does.
macro_rules! general {
    ($($allows:ident,)*) => {
        $(fn $allows(&self) -> bool {
            GENERAL.$allows()
        })*
    };
}

impl Dialect for Ours {
    /// The parser takes it for the general one where it asks which one it is.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GENERAL.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        GENERAL.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        GENERAL.is_identifier_part(ch)
    }

    /// `->`, `->>` and their like go before arithmetic and `||`; a cast goes before them, as in PostgreSQL.
    fn prec_value(&self, operator: Precedence) -> u8 {
        match operator {
            Precedence::PgOther => {
                u8::midpoint(GENERAL.prec_value(Precedence::AtTz), GENERAL.prec_value(Precedence::DoubleColon))
            }
            other => GENERAL.prec_value(other),
        }
    }

    /// What is compared ends where what is tested by `IS` does, as in PostgreSQL.
    fn parse_infix(&self, parser: &mut Parser, left: &Expr, _: u8) -> Option<Result<Expr, ParserError>> {
        let made = if parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            Expr::IsDistinctFrom
        } else if parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]) {
            Expr::IsNotDistinctFrom
        } else {
            return None;
        };
        let right = parser.parse_subexpr(self.prec_value(Precedence::Is));
        Some(right.map(|right| made(Box::new(left.clone()), Box::new(right))))
    }

    general! {
        supports_data_type_signed_suffix,
        supports_unicode_string_literal,
        supports_partition_by_after_order_by,
        supports_array_join_syntax,
        supports_group_by_expr,
        supports_group_by_with_modifier,
        supports_left_associative_joins_without_parens,
        supports_connect_by,
        supports_match_recognize,
        supports_pipe_operator,
        supports_window_function_null_treatment_arg,
        supports_dictionary_syntax,
        supports_window_clause_named_window_reference,
        supports_select_wildcard_except,
        support_map_literal_syntax,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_extract_comma_syntax,
        supports_parens_around_table_factor,
        supports_values_as_table_factor,
        supports_explain_with_utility_options,
        supports_limit_comma,
        supports_from_first_select,
        supports_projection_trailing_commas,
        supports_try_convert,
        supports_bitwise_shift_operators,
        supports_named_fn_args_with_assignment_operator,
        supports_struct_literal,
        supports_empty_projections,
        supports_nested_comments,
        supports_multiline_comment_hints,
        supports_string_escape_constant,
        supports_array_typedef_with_brackets,
        supports_match_against,
        supports_filter_during_aggregation,
        supports_select_wildcard_exclude,
        supports_interval_options,
        supports_quote_delimited_string,
        supports_select_wildcard_replace,
        supports_select_wildcard_ilike,
        supports_select_wildcard_rename,
        supports_prewhere,
        supports_with_fill,
        supports_limit_by,
        supports_interpolate,
        supports_settings,
        supports_select_format,
        supports_comment_optimizer_hint,
        supports_comma_separated_trim,
        supports_cte_without_as,
        supports_select_item_multi_column_alias,
        supports_xml_expressions,
    }
}
