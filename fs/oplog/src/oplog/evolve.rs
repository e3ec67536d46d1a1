//! The table grows: columns and properties are added by a version of their own, with a new `metaData` action.
//!
//! Such a version adds no rows, and its cut is that of the version before, so that replicas apply it as any other. Data files stay as
//! they are: what lacks a column has nulls there, here as for any Delta reader.
//!
//! **Every new column raises `pond.minWriter`**, since a program that does not know it would drop it where it writes files anew. As
//! a second guard, no file that holds an unknown column is written anew (`OpLog::open_whole`).
//!
//! How a later format adds a column: `schema::ROWS` gets it before `content` (which lies last in a row group), `decode.rs` takes
//! it as optional, `schema::WRITER` grows, and whoever first needs the column calls [`OpLog::evolve`] before rows with it are committed.
//! Ponds of the earlier format stay as they are, and writable by earlier programs, until then.

use std::collections::BTreeMap;

use arrow::datatypes::{Field, Schema};
use deltalake::kernel::StructType;

use crate::log::action::property::{MIN_READER, MIN_WRITER, POND_ID};
use crate::log::action::{Action, Metadata};
use crate::log::{format, snapshot};
use crate::rows::schema;
use crate::{At, OpLog, OpLogError, Position};

/// What is added to a table.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    /// The format that a program must know to write the table from then on. The table's own stays where it is higher.
    pub min_writer: u32,
    /// The format that a program must know to read the table from then on; 0 where readers need to know nothing new.
    pub min_reader: u32,
    /// New columns; each must be nullable.
    pub columns: Vec<Field>,
    /// New or changed properties of the table's configuration, by name: `pond.…`.
    pub properties: BTreeMap<String, String>,
}

impl OpLog {
    /// Whether [`evolve`](Self::evolve) would add anything, and may.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn lacks(&self, growth: &Growth) -> Result<bool, OpLogError> {
        Ok(self.grown(growth)?.is_some())
    }

    pub(crate) fn grown(&self, growth: &Growth) -> Result<Option<Metadata>, OpLogError> {
        let snapshot = snapshot::load(self.log(), At::Tip)?;
        grow(&snapshot.metadata, growth, format::known())
            .map_err(|why| OpLogError::CannotGrow { path: self.log().table().to_path_buf(), why })
    }

    /// Adds columns and properties to the table by a version of their own; `None` if all are there already. Commits wait meanwhile, as
    /// long as loading the table's state takes. Call it between commits, as [`OpLog::commit_rewrite`].
    ///
    /// # Errors
    ///
    /// [`OpLogError::CannotGrow`] for what would break readers or writers, with nothing changed; else as [`OpLog::commit_floor`].
    pub fn evolve(&self, growth: &Growth) -> Result<Option<Position>, OpLogError> {
        let mut turn = self.turn()?;
        let next = self.next_maintenance();
        let Some(metadata) = self.grown(growth)? else { return Ok(None) };
        let operation = if growth.columns.is_empty() { "SET TBLPROPERTIES" } else { "ADD COLUMNS" };
        let names = growth.columns.iter().map(Field::name).chain(growth.properties.keys());
        let added = names.map(String::as_str).collect::<Vec<_>>().join(", ");
        let actions = vec![Action::from(metadata)];
        let position = turn.settle(self.put_maintenance(&next, operation, ("added", added), actions))?;
        self.committed(&position);
        Ok(Some(position))
    }
}

/// The table's metadata with what is added; `None` where that changes nothing, or why it must not be added by a program that
/// knows formats up to `known`.
fn grow(metadata: &Metadata, growth: &Growth, known: u32) -> Result<Option<Metadata>, String> {
    let number = |name: &str| -> Result<u32, String> {
        let number = metadata.configuration.get(name).and_then(|number| number.parse().ok());
        number.ok_or_else(|| format!("its {name} is no number"))
    };
    let (reader, writer) = (number(MIN_READER)?, number(MIN_WRITER)?);
    let min_reader = growth.min_reader.max(reader);
    // Who may not read may not write either.
    let min_writer = growth.min_writer.max(writer).max(min_reader);
    if min_writer > known {
        return Err(format!("that takes format {min_writer} to write, and this program knows {known}"));
    }
    let table: StructType = serde_json::from_str(&metadata.schema_string)
        .map_err(|error| format!("its schema cannot be understood: {error}"))?;
    let wanted: StructType =
        serde_json::from_str(&schema::delta_schema(&Schema::new(growth.columns.clone()))?)
            .map_err(|error| error.to_string())?;
    let mut new = Vec::new();
    for field in wanted.fields() {
        let name = field.name();
        // Delta tells no columns apart that differ in case only.
        match table.fields().find(|there| there.name().eq_ignore_ascii_case(name)) {
            Some(there) if there == field => {}
            Some(_) => return Err(format!("it has a column {name} already, of another kind")),
            None if !field.is_nullable() => {
                return Err(format!("the new column {name} is not nullable, and earlier files lack it"));
            }
            None => new.push(field.clone()),
        }
    }
    if !new.is_empty() && min_writer == writer {
        return Err(format!(
            "a new column takes a higher {MIN_WRITER} than {writer}: programs that do not know it would drop it"
        ));
    }
    let mut configuration = metadata.configuration.clone();
    for (name, value) in &growth.properties {
        if !name.starts_with("pond.") || [POND_ID, MIN_READER, MIN_WRITER].contains(&name.as_str()) {
            return Err(format!("the property {name} is not one that may be set"));
        }
        configuration.insert(name.clone(), value.clone());
    }
    configuration.insert(MIN_READER.into(), min_reader.to_string());
    configuration.insert(MIN_WRITER.into(), min_writer.to_string());
    let schema_string = match new.is_empty() {
        true => metadata.schema_string.clone(),
        false => {
            let fields = table.fields().cloned().chain(new);
            let grown = StructType::try_new(fields).map_err(|error| error.to_string())?;
            serde_json::to_string(&grown).map_err(|error| error.to_string())?
        }
    };
    let grown = Metadata { schema_string, configuration, ..metadata.clone() };
    Ok((grown != *metadata).then_some(grown))
}

#[cfg(test)]
mod tests;
