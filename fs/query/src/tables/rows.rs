//! Tables whose rows are made as they are asked for.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::project_schema;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};

use crate::error;

/// Rows of one batch.
pub(crate) const BATCH: usize = 8192;
/// Batches that are made before they are used.
const AHEAD: usize = 2;

/// Takes a batch; says whether more are wanted.
pub(crate) type Give<'a> = &'a mut dyn FnMut(RecordBatch) -> bool;

/// A table whose rows are made as they are asked for.
pub(crate) trait Rows: fmt::Debug + Send + Sync + 'static {
    /// All columns.
    fn schema(&self) -> SchemaRef;

    /// Whether a condition saves it work. It may give rows for which the condition does not hold.
    fn uses(&self, _condition: &Expr) -> bool {
        false
    }

    /// Makes the rows. May take its time.
    fn fill(&self, wanted: &Wanted, give: Give<'_>) -> error::Result<()>;
}

/// What is asked for.
pub(crate) struct Wanted {
    /// Columns, by their places.
    pub(crate) columns: Vec<usize>,
    /// The same as a schema.
    pub(crate) schema: SchemaRef,
    /// Conditions that the table [uses](Rows::uses).
    pub(crate) conditions: Vec<Expr>,
    /// Not more rows than that.
    pub(crate) limit: Option<usize>,
}

/// Such a table, for DataFusion.
pub(crate) struct RowsTable<R>(pub(crate) Arc<R>);

impl<R: Rows> RowsTable<R> {
    pub(crate) fn provider(rows: R) -> Arc<dyn TableProvider> {
        Arc::new(RowsTable(Arc::new(rows)))
    }
}

impl<R: Rows> fmt::Debug for RowsTable<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl<R: Rows> TableProvider for RowsTable<R> {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let pushed = filters.iter().map(|filter| match self.0.uses(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        });
        Ok(pushed.collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all = self.0.schema();
        let schema = project_schema(&all, projection)?;
        let columns = projection.cloned().unwrap_or_else(|| (0..all.fields().len()).collect());
        let wanted = Wanted { columns, schema: schema.clone(), conditions: filters.to_vec(), limit };
        let part = Arc::new(Part { rows: self.0.clone(), wanted: Arc::new(wanted) });
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![part], None, Vec::new(), false, limit)?))
    }
}

struct Part<R> {
    rows: Arc<R>,
    wanted: Arc<Wanted>,
}

impl<R: Rows> fmt::Debug for Part<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.fmt(f)
    }
}

impl<R: Rows> PartitionStream for Part<R> {
    fn schema(&self) -> &SchemaRef {
        &self.wanted.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStream::builder(self.wanted.schema.clone(), AHEAD);
        let (rows, wanted, tx) = (self.rows.clone(), self.wanted.clone(), stream.tx());
        stream.spawn_blocking(move || {
            let mut given = 0;
            let mut give = |batch: RecordBatch| {
                given += batch.num_rows();
                // Whoever asked may have gone.
                tx.blocking_send(Ok(batch)).is_ok() && wanted.limit.is_none_or(|limit| given < limit)
            };
            Ok(rows.fill(&wanted, &mut give)?)
        });
        stream.build()
    }
}
