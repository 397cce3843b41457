//! Streams that join and leave while a pipeline runs.

use std::path::Path;

use revoada_bundle::strict::{Document, Problems};
use serde_json::{Map, Value as Json};
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Value};

use super::{PipelineConfig, draft};

/// What problems with such a stream are said to come from.
const ORIGIN: &str = "request";

impl PipelineConfig {
    /// This pipeline with one more stream, described as `[[stream]]` is in a file; checked as a whole.
    pub fn with_stream(&self, stream: &Map<String, Json>) -> Result<Self, Problems> {
        let table = stream.iter().filter_map(|(key, value)| Some((key.as_str(), Item::Value(value_of(value)?))));
        let table: toml_edit::Table = table.collect();
        self.with_streams(|streams| streams.push(table))
    }

    /// This pipeline without a stream that it has.
    pub fn without_stream(&self, id: &str) -> Result<Self, Problems> {
        let index = self.streams.iter().position(|stream| stream.id.as_str() == id);
        self.with_streams(|streams| drop(index.map(|index| streams.remove(index))))
    }

    fn with_streams(&self, change: impl FnOnce(&mut ArrayOfTables)) -> Result<Self, Problems> {
        let mut values: DocumentMut = self.to_toml().parse().expect("what is printed can be read");
        if let Some(streams) = values.get_mut("stream").and_then(Item::as_array_of_tables_mut) {
            change(streams);
        }
        let mut document = Document::empty(ORIGIN);
        document.overlay(ORIGIN, values);
        draft::checked(document, Path::new(""))
    }
}

/// `None` for null, which says nothing.
fn value_of(value: &Json) -> Option<Value> {
    Some(match value {
        Json::Null => return None,
        Json::Bool(on) => (*on).into(),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => integer.into(),
            None => number.as_f64()?.into(),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(values) => values.iter().filter_map(value_of).collect::<Array>().into(),
        Json::Object(values) => {
            let values = values.iter().filter_map(|(key, value)| Some((key.as_str(), value_of(value)?)));
            values.collect::<InlineTable>().into()
        }
    })
}
