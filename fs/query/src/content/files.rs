//! Files of one format as one table.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, ScalarValue, Statistics, project_schema};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::listing::helpers::expr_applicable_for_cols;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::ObjectMeta;

use crate::content::format::{Format, Reading, is_same_way, reader};
use crate::content::hive;
use crate::error::QueryError;

/// The footers of so many files are read for better plans; of more, each is read when its file is.
const STATISTICS_OF: usize = 512;

/// How a table is made of files.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct Shape {
    /// None: where all paths have the same columns.
    pub(crate) hive_partitioning: Option<bool>,
    /// Whether the columns of all files are looked at, rather than those of the first.
    pub(crate) union_by_name: bool,
    /// Whether the path is a column.
    pub(crate) filename: bool,
    pub(crate) reading: Reading,
}

/// A file, by its path and as an object.
pub(crate) struct Listed {
    pub(crate) path: Vec<u8>,
    pub(crate) object: ObjectMeta,
}

/// Files of one format as one table.
pub(crate) struct Files {
    store: ObjectStoreUrl,
    format: Arc<dyn FileFormat>,
    has_footers: bool,
    /// Columns within the files, and then those that their paths say.
    schema: TableSchema,
    files: Vec<File>,
}

struct File {
    object: ObjectMeta,
    said: Vec<ScalarValue>,
}

impl Files {
    /// Makes a table of these files, of which there is at least one; reads the beginning, or the footer, of the first, or of all.
    pub(crate) async fn open(
        session: &dyn Session,
        store: ObjectStoreUrl,
        format: Format,
        listed: Vec<Listed>,
        shape: &Shape,
    ) -> Result<Files> {
        let first = listed.first().ok_or_else(|| QueryError::new("there is no file to read"))?;
        let name = String::from_utf8_lossy(&first.path).into_owned();
        let (kind, _) = reader(format, &name, &shape.reading)?;
        for other in &listed[1..] {
            let other = String::from_utf8_lossy(&other.path);
            if !is_same_way(format, &name, &other, &shape.reading)? {
                let why = format!(
                    "one table cannot be made of {name} and {other}, which are read in different ways"
                );
                return Err(QueryError::new(why)
                    .next("make one of each, and join them with UNION ALL")
                    .into());
            }
        }
        let objects = session.runtime_env().object_store(&store)?;
        // An empty file has no columns that others would be compared with.
        let told: Vec<ObjectMeta> =
            listed.iter().filter(|file| file.object.size > 0).map(|file| file.object.clone()).collect();
        let told = if shape.union_by_name { &told[..] } else { &told[..told.len().min(1)] };
        let inferred = kind.infer_schema(session, &objects, told).await.map_err(|error| {
            let why = QueryError::from(error);
            QueryError { why: format!("cannot read {name}: {}", why.why), ..why }
        })?;
        let mut said = match shape.hive_partitioning {
            Some(false) => hive::Partitions { columns: Vec::new(), values: vec![Vec::new(); listed.len()] },
            wanted => {
                let read = hive::read(listed.iter().map(|file| &file.path[..]));
                if wanted == Some(true) && read.columns.is_empty() {
                    let why = "hive_partitioning: the paths do not all have the same NAME=VALUE directories";
                    return Err(QueryError::new(why).into());
                }
                read
            }
        };
        if shape.filename {
            said.columns.push(Arc::new(Field::new("filename", DataType::Utf8, false)));
            for (values, file) in said.values.iter_mut().zip(&listed) {
                values.push(ScalarValue::Utf8(Some(String::from_utf8_lossy(&file.path).into_owned())));
            }
        }
        let within = within_files(&inferred, &said.columns, format)?;
        let files = listed.into_iter().zip(said.values);
        Ok(Files {
            store,
            format: kind,
            has_footers: format == Format::Parquet,
            schema: TableSchema::builder(within).with_table_partition_cols(said.columns).build(),
            files: files.map(|(listed, said)| File { object: listed.object, said }).collect(),
        })
    }

    fn said(&self) -> Vec<FieldRef> {
        self.schema.table_partition_cols().iter().cloned().collect()
    }

    /// The files of which the paths alone do not say that no row of them is wanted.
    fn wanted(&self, session: &dyn Session, filters: Vec<Expr>) -> Result<Vec<&File>> {
        let Some(filter) = conjunction(filters) else { return Ok(self.files.iter().collect()) };
        let schema = Arc::new(Schema::new(self.said()));
        let columns = (0..schema.fields().len())
            .map(|column| ScalarValue::iter_to_array(self.files.iter().map(|file| file.said[column].clone())))
            .collect::<Result<Vec<_>>>()?;
        let known = RecordBatch::try_new(schema.clone(), columns)?;
        let filter = session.create_physical_expr(filter, &DFSchema::try_from(schema)?)?;
        let found = filter.evaluate(&known)?.into_array(known.num_rows())?;
        let found = found.as_any().downcast_ref::<BooleanArray>().cloned();
        let found =
            found.ok_or_else(|| QueryError::new("a condition on columns of paths is not true or false"))?;
        let is_wanted = |place: &usize| found.is_valid(*place) && found.value(*place);
        Ok((0..self.files.len()).filter(is_wanted).map(|place| &self.files[place]).collect())
    }

    async fn partitioned(&self, session: &dyn Session, wanted: &[&File]) -> Result<Vec<PartitionedFile>> {
        let looks =
            self.has_footers && wanted.len() <= STATISTICS_OF && session.config().collect_statistics();
        let store = session.runtime_env().object_store(&self.store)?;
        let all = wanted.iter().map(|file| {
            let (object, said) = (file.object.clone(), file.said.clone());
            let store = &store;
            async move {
                let schema = self.schema.file_schema().clone();
                let statistics = match looks {
                    true => self.format.infer_stats(session, store, schema, &object).await?,
                    false => Statistics::new_unknown(&schema),
                };
                let file = PartitionedFile::from(object).with_partition_values(said);
                Ok::<_, datafusion::error::DataFusionError>(file.with_statistics(Arc::new(statistics)))
            }
        });
        stream::iter(all.collect::<Vec<_>>()).buffered(16).try_collect().await
    }
}

/// Values that readers of text make room for at a time, however many columns there are.
const VALUES_AT_ONCE: usize = 1 << 20;

/// Rows that are read at a time: fewer than usual of very wide tables.
fn rows_at_once(schema: &Schema, session: &dyn Session) -> Option<usize> {
    let usual = session.config().batch_size();
    Some((VALUES_AT_ONCE / schema.fields().len().max(1)).clamp(16.min(usual), usual))
}

/// The columns that are read from the files: not those that their paths say as well, where columns have names there.
fn within_files(inferred: &SchemaRef, said: &[FieldRef], format: Format) -> Result<SchemaRef> {
    let is_said = |field: &FieldRef| said.iter().any(|said| said.name() == field.name());
    let twice = inferred.fields().iter().find(|field| is_said(field));
    match twice {
        None => Ok(inferred.clone()),
        Some(field) if format == Format::Csv => {
            let why = format!("the column {} is in the files and in their paths too", field.name());
            Err(QueryError::new(why).next("use read_csv with hive_partitioning => false").into())
        }
        Some(_) => {
            let fields = inferred.fields().iter().filter(|field| !is_said(field)).cloned();
            Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
        }
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("store", &self.store).field("files", &self.files.len()).finish()
    }
}

#[async_trait]
impl TableProvider for Files {
    fn schema(&self) -> SchemaRef {
        self.schema.table_schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let said = self.said();
        let names: Vec<&str> = said.iter().map(|field| field.name().as_str()).collect();
        let pushed = filters.iter().map(|filter| match expr_applicable_for_cols(&names, filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        });
        Ok(pushed.collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let said = self.said();
        let names: Vec<&str> = said.iter().map(|field| field.name().as_str()).collect();
        let of_paths: Vec<Expr> =
            filters.iter().filter(|filter| expr_applicable_for_cols(&names, filter)).cloned().collect();
        let is_all = of_paths.len() == filters.len();
        let wanted = self.wanted(session, of_paths)?;
        if wanted.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema(), projection)?)));
        }
        let files = self.partitioned(session, &wanted).await?;
        let groups = FileGroup::new(files).split_files(session.config().target_partitions());
        let (groups, statistics) = datafusion_datasource::compute_all_files_statistics(
            groups,
            self.schema(),
            self.has_footers,
            !is_all,
        )?;
        let source = self.format.file_source(self.schema.clone());
        let config = FileScanConfigBuilder::new(self.store.clone(), source)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_batch_size(rows_at_once(self.schema.file_schema(), session))
            .build();
        self.format.create_physical_plan(session, config).await
    }
}
