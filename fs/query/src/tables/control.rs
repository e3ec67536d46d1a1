//! `control`: the pond's settings, as they are now.

use std::sync::LazyLock;

use arrow::datatypes::{DataType, SchemaRef};

use crate::error::Result;
use crate::tables::rows::{Give, Rows, Wanted};
use crate::tables::values;

static SCHEMA: LazyLock<SchemaRef> =
    LazyLock::new(|| values::schema(&[("key", DataType::Utf8), ("value", DataType::Utf8)]));

/// Settings by name.
#[derive(Debug)]
pub(crate) struct ControlTable {
    pub(crate) settings: Vec<(String, String)>,
}

impl Rows for ControlTable {
    fn schema(&self) -> SchemaRef {
        SCHEMA.clone()
    }

    fn fill(&self, wanted: &Wanted, give: Give<'_>) -> Result<()> {
        let settings = &self.settings;
        give(values::batch(wanted, settings.len(), |place| {
            Ok(values::texts(settings.iter().map(|(key, value)| Some(if place == 0 { key } else { value }))))
        })?);
        Ok(())
    }
}
