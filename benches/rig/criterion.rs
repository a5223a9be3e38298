//! What the figures must show, and whether they do.

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

/// One demand.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Criterion {
    pub(crate) demand: String,
    pub(crate) limit: String,
    /// `None`: this run did not measure it.
    pub(crate) measured: Option<String>,
    pub(crate) holds: Option<bool>,
}

/// A figure, and whether it is good enough.
pub(crate) type Verdict = Option<(String, bool)>;

impl Criterion {
    pub(crate) fn new(demand: impl Into<String>, limit: impl Into<String>, verdict: Verdict) -> Self {
        let (measured, holds) = verdict.unzip();
        Self {
            demand: demand.into(),
            limit: limit.into(),
            measured,
            holds,
        }
    }
}

/// An empty table whose first `left` columns are text.
pub(crate) fn table(header: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(header.to_vec());
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The demands as a table.
pub(crate) fn acceptance(criteria: &[Criterion]) -> Table {
    let mut table = table(&["", "demanded", "measured", "holds"], 4);
    for criterion in criteria {
        let holds = match criterion.holds {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "not measured",
        };
        table.add_row([
            criterion.demand.as_str(),
            &criterion.limit,
            criterion.measured.as_deref().unwrap_or("–"),
            holds,
        ]);
    }
    table
}
