//! The catalog `tillstream`: what a name in a query stands for.
//!
//! In this order: a table of facts (overlaid, its people mapped; empty while nothing was written) that no view stands before,
//! a view, a reference table, any other table of the snapshot. Nothing is planned or opened before a query names it, but
//! `information_schema`, which names everything. A view that cannot be planned is left out there, and is an error
//! where a query names it.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use datafusion::{
    catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider},
    error::Result as DataFusionResult,
    execution::{SessionStateBuilder, context::SessionState},
    logical_expr::TableType,
};
use futures::{
    FutureExt,
    future::{BoxFuture, ready},
};

use super::{
    CATALOG, DEFAULT_SCHEMA, SCHEMAS,
    error::{Names, SqlError},
    overlay::{self, Shape},
    reference,
    views::{self, STORED},
};
use crate::lake::{Snapshot, overlay::CHANGES};

/// What a name stands for, if for anything.
type Found<T> = DataFusionResult<Option<T>>;

/// Tables at one moment, by `schema.table`.
pub trait Tables: Send + Sync {
    fn names(&self) -> Vec<String>;
    fn provider(&self, table: &str) -> Option<Arc<dyn TableProvider>>;
    /// Whether the table is known to have no row: absent, or all removed.
    fn is_empty(&self, table: &str) -> bool;
}

impl Tables for Snapshot {
    fn names(&self) -> Vec<String> {
        self.tables()
    }

    fn provider(&self, table: &str) -> Option<Arc<dyn TableProvider>> {
        Snapshot::provider(self, table)
    }

    fn is_empty(&self, table: &str) -> bool {
        self.rows(table).unwrap_or(0) == 0
    }
}

/// A model or a segment that is its SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// `schema.name`.
    pub name: String,
    pub sql: String,
}

/// See the module.
pub(super) struct Catalog {
    tables: Arc<dyn Tables>,
    views: HashMap<String, String>,
    shapes: Arc<Vec<Shape>>,
    planned: Mutex<HashMap<String, Arc<dyn TableProvider>>>,
    /// The session's functions, without a catalog.
    functions: SessionState,
    /// Plans the insides of tables.
    planner: Arc<SessionState>,
}

impl Catalog {
    pub fn new(
        tables: Arc<dyn Tables>,
        views: &[View],
        shapes: Arc<Vec<Shape>>,
        functions: SessionState,
    ) -> Result<Catalog, SqlError> {
        let mut by_name: HashMap<String, String> = views::built_in();
        for View { name, sql } in views {
            if !name.split_once('.').is_some_and(|(schema, _)| SCHEMAS.contains(&schema)) {
                return Err(SqlError::user(format!("view \"{name}\" is in no schema: one of {}", SCHEMAS.join(", "))));
            }
            by_name.insert(name.clone(), sql.clone());
        }
        let planner = overlay::planner(functions.clone());
        Ok(Catalog { tables, views: by_name, shapes, planned: Mutex::default(), functions, planner })
    }

    /// A state that resolves names here.
    pub fn state(self: &Arc<Self>) -> SessionState {
        SessionStateBuilder::new_from_existing(self.functions.clone())
            .with_catalog_list(Arc::new(CatalogList(Arc::clone(self))))
            .build()
    }

    /// Every table and view that a person may name, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: BTreeSet<String> = self.views.keys().cloned().collect();
        names.extend(self.shapes.iter().map(|s| s.name.to_owned()));
        names.extend(reference::NAMES.iter().map(|n| (*n).to_owned()));
        names.extend(self.tables.names().into_iter().filter(|n| !n.ends_with(CHANGES)));
        names.into_iter().collect()
    }

    pub fn suggestions(&self, memory: usize) -> Names {
        let of = &self.functions;
        let functions = of.scalar_functions().keys().chain(of.aggregate_functions().keys());
        let functions = functions.chain(of.window_functions().keys()).cloned().collect();
        Names { tables: self.names(), functions, memory }
    }

    pub fn view(&self, name: &str) -> Option<&str> {
        self.views.get(name).map(String::as_str)
    }

    pub fn planned(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub fn keep(&self, name: &str, view: Arc<dyn TableProvider>) {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), view);
    }

    fn table(self: &Arc<Self>, name: String) -> BoxFuture<'static, Found<Arc<dyn TableProvider>>> {
        let this = Arc::clone(self);
        async move {
            let hidden = name.strip_prefix(STORED).map(|rest| format!("{DEFAULT_SCHEMA}{rest}"));
            let facts = hidden.as_ref().unwrap_or(&name);
            let stands = this.views.contains_key(facts) == hidden.is_some();
            if let Some(shape) = this.shapes.iter().find(|shape| stands && shape.name == *facts) {
                return overlay::table(shape, &this.shapes, this.tables.as_ref(), &this.planner).map(Some);
            }
            if this.views.contains_key(&name) {
                // A query's own views were planned before, with their errors; what is not yet planned is being listed.
                if this.planned(&name).is_none() && this.plan_views(std::slice::from_ref(&name)).await.is_err() {
                    return Ok(None);
                }
                return Ok(this.planned(&name));
            }
            match reference::table(&name)? {
                Some(table) => Ok(Some(table)),
                None => Ok(this.tables.provider(&name)),
            }
        }
        .boxed()
    }

    fn table_type(&self, name: &str) -> Option<TableType> {
        if self.views.contains_key(name) {
            return Some(TableType::View);
        }
        self.names().iter().any(|known| known == name).then_some(TableType::Base)
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Catalog({CATALOG})")
    }
}

/// DataFusion's way in: one catalog.
#[derive(Debug)]
struct CatalogList(Arc<Catalog>);

impl CatalogProviderList for CatalogList {
    /// Nothing can be registered: the fence refuses the statements that would.
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(OneCatalog(Arc::clone(&self.0))) as Arc<dyn CatalogProvider>)
    }
}

#[derive(Debug)]
struct OneCatalog(Arc<Catalog>);

impl CatalogProvider for OneCatalog {
    fn schema_names(&self) -> Vec<String> {
        SCHEMAS.iter().map(|s| (*s).to_owned()).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let schema = SCHEMAS.into_iter().chain([STORED]).find(|s| *s == name)?;
        Some(Arc::new(OneSchema { catalog: Arc::clone(&self.0), schema }))
    }
}

#[derive(Debug)]
struct OneSchema {
    catalog: Arc<Catalog>,
    schema: &'static str,
}

impl SchemaProvider for OneSchema {
    fn table_names(&self) -> Vec<String> {
        let of_schema =
            |name: String| name.split_once('.').filter(|(s, _)| *s == self.schema).map(|(_, t)| t.to_owned());
        self.catalog.names().into_iter().filter_map(of_schema).collect()
    }

    // As `async_trait` would write it; see `lake::provider`.
    fn table<'a, 'b, 'f>(&'a self, name: &'b str) -> BoxFuture<'f, Found<Arc<dyn TableProvider>>>
    where
        'a: 'f,
        'b: 'f,
    {
        self.catalog.table(format!("{}.{name}", self.schema))
    }

    fn table_type<'a, 'b, 'f>(&'a self, name: &'b str) -> BoxFuture<'f, Found<TableType>>
    where
        'a: 'f,
        'b: 'f,
    {
        ready(Ok(self.catalog.table_type(&format!("{}.{name}", self.schema)))).boxed()
    }

    fn table_exist(&self, name: &str) -> bool {
        self.catalog.names().contains(&format!("{}.{name}", self.schema))
    }
}
