//! What a SuperNode has sent, as what came of a task.

use std::collections::HashMap;

use prost::Message as _;
use prost::bytes::{Bytes, BytesMut};
use revoada_core::Digest;
use revoada_proto::flower::MetricRecord;
use revoada_proto::flower::metric_record_value::Value as Wire;
use thiserror::Error;

use super::objects::{ArrayHead, Kind, NUMPY, Named, ObjectError, Parsed};
use crate::learning::{Metrics, Reply, Reported, Tensor, Value};

/// Under these names programs of Flower's report how many examples they have seen, and how far off the weights were.
const EXAMPLES: &str = "num-examples";
const LOSSES: [&str; 4] = ["eval_loss", "eval-loss", "loss", "val_loss"];

/// Whoever writes programs for SuperNodes reads it.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ReplyError {
    #[error("a reply has an object that cannot be read")]
    Object(#[from] ObjectError),
    #[error("a reply names an object that it does not have")]
    Missing,
    #[error("a reply has something else where `{expected}` is expected")]
    Kind { expected: Kind },
    #[error("the body of `{kind}` cannot be read")]
    Body { kind: Kind },
    #[error("an array is saved as `{stype}`; `numpy.ndarray` is expected")]
    Stype { stype: String },
    #[error("the arrays of a reply have more than {max} bytes")]
    TooLarge { max: u64 },
    #[error("a reply has no arrays")]
    NoArrays,
    #[error("a reply has no metrics")]
    NoMetrics,
    #[error("a reply has no `num-examples`, or one that is no count")]
    NoExamples,
}

/// All objects of a reply, by name, each of which is what its name says.
pub type Contents = HashMap<Digest, Bytes>;

/// What a SuperNode says after it has learnt.
pub fn fit(root: &Digest, contents: &Contents, bytes_max: u64) -> Result<Reply, ReplyError> {
    let records = Records::read(root, contents)?;
    let arrays = records.named("arrays", Kind::ArrayRecord).ok_or(ReplyError::NoArrays)?;
    let (examples, metrics) = records.metrics()?;
    let tensors = tensors(arrays, contents, bytes_max)?;
    Ok(Reply::Fit { tensors, reported: Reported { examples, metrics } })
}

/// What it says of weights that it has tried.
pub fn evaluate(root: &Digest, contents: &Contents) -> Result<Reply, ReplyError> {
    let (examples, mut metrics) = Records::read(root, contents)?.metrics()?;
    let loss = LOSSES.iter().find_map(|name| metrics.remove(*name)).and_then(|loss| loss.number());
    Ok(Reply::Evaluate { loss, reported: Reported { examples, metrics } })
}

/// The records of a message, in their order.
struct Records(Vec<(String, Parsed)>);

impl Records {
    fn read(root: &Digest, contents: &Contents) -> Result<Self, ReplyError> {
        let message = read(root, contents, Kind::Message)?;
        let [records] = message.children.as_slice() else { return Err(ReplyError::Missing) };
        let records = read(records, contents, Kind::RecordDict)?;
        let named = named(&records)?.0.into_iter();
        let records = named.map(|(name, id)| Ok((name, Parsed::new(contents.get(&id).ok_or(ReplyError::Missing)?)?)));
        records.collect::<Result<_, ReplyError>>().map(Self)
    }

    /// The one that has the usual name, or else the first of its kind: programs may name them as they like.
    fn named(&self, usual: &str, kind: Kind) -> Option<&Parsed> {
        let of_kind = || self.0.iter().filter(|(_, record)| record.kind == kind);
        of_kind().find(|(name, _)| name == usual).or_else(|| of_kind().next()).map(|(_, record)| record)
    }

    /// How many examples there were, and all else that is a number.
    fn metrics(&self) -> Result<(u64, Metrics), ReplyError> {
        let record = self.named("metrics", Kind::MetricRecord).ok_or(ReplyError::NoMetrics)?;
        let body = || ReplyError::Body { kind: Kind::MetricRecord };
        let record = MetricRecord::decode(record.body.clone()).map_err(|_| body())?;
        let mut metrics = Metrics::new();
        for item in record.items {
            let value = match item.value.and_then(|value| value.value) {
                Some(Wire::Double(value)) => Value::Double(value),
                Some(Wire::Sint64(value)) => Value::Integer(value),
                Some(Wire::Uint64(value)) => i64::try_from(value).map_or(Value::Double(value as f64), Value::Integer),
                // Nobody can average lists of who knows what.
                Some(Wire::DoubleList(_) | Wire::SintList(_) | Wire::UintList(_)) => continue,
                None => return Err(body()),
            };
            metrics.insert(item.key, value);
        }
        let examples = metrics.remove(EXAMPLES).and_then(|examples| count(&examples));
        Ok((examples.ok_or(ReplyError::NoExamples)?, metrics))
    }
}

/// A number of things; some programs count with a float.
fn count(value: &Value) -> Option<u64> {
    match value {
        Value::Integer(count) => u64::try_from(*count).ok(),
        Value::Double(count) if (0.0..=(1_u64 << 53) as f64).contains(count) => Some(count.round() as u64),
        _ => None,
    }
}

fn read(id: &Digest, contents: &Contents, kind: Kind) -> Result<Parsed, ReplyError> {
    let parsed = Parsed::new(contents.get(id).ok_or(ReplyError::Missing)?)?;
    if parsed.kind != kind {
        return Err(ReplyError::Kind { expected: kind });
    }
    Ok(parsed)
}

fn named(parsed: &Parsed) -> Result<Named, ReplyError> {
    serde_json::from_slice(&parsed.body).map_err(|_| ReplyError::Body { kind: parsed.kind })
}

/// Each array as NumPy saves it. One that came in one piece is not copied.
fn tensors(record: &Parsed, contents: &Contents, bytes_max: u64) -> Result<Vec<Tensor>, ReplyError> {
    // A few objects can be named many times, so it is not what was sent that is counted.
    let mut left = bytes_max;
    let tensors = named(record)?.0.into_iter().map(|(name, id)| {
        let array = read(&id, contents, Kind::Array)?;
        let head: ArrayHead =
            serde_json::from_slice(&array.body).map_err(|_| ReplyError::Body { kind: Kind::Array })?;
        if head.stype != NUMPY {
            return Err(ReplyError::Stype { stype: head.stype.chars().take(40).collect() });
        }
        let chunk = |place: &usize| {
            let id = array.children.get(*place).ok_or(ReplyError::Missing)?;
            read(id, contents, Kind::ArrayChunk).map(|chunk| chunk.body)
        };
        let mut take = |bytes: &Bytes| {
            left = left.checked_sub(bytes.len() as u64).ok_or(ReplyError::TooLarge { max: bytes_max })?;
            Ok::<(), ReplyError>(())
        };
        let bytes = match head.chunks.as_slice() {
            [] => return Err(ReplyError::Missing),
            [only] => {
                let bytes = chunk(only)?;
                take(&bytes)?;
                bytes
            }
            many => {
                let mut joined = BytesMut::new();
                for place in many {
                    let bytes = chunk(place)?;
                    take(&bytes)?;
                    joined.extend_from_slice(&bytes);
                }
                joined.freeze()
            }
        };
        Ok(Tensor { name: Some(name), array: bytes })
    });
    tensors.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use revoada_proto::flower::metric_record::Item;
    use revoada_proto::flower::{MetricRecordValue, SintList};

    use super::*;
    use crate::flower::objects::Object;

    /// Objects of a reply that has these arrays, as chunks, and these metrics.
    fn reply(arrays: &[(String, Vec<Vec<u8>>)], metrics: Vec<(&str, Wire)>) -> (Digest, Contents) {
        let mut contents = Contents::new();
        let mut keep = |object: Object| {
            contents.insert(object.id, object.content);
            object.id
        };
        let mut named = Named::default();
        for (name, chunks) in arrays {
            let chunks: Vec<_> = chunks.iter().map(|chunk| keep(Object::new(Kind::ArrayChunk, &[], chunk))).collect();
            let head = ArrayHead {
                dtype: "float32".to_owned(),
                shape: vec![1],
                stype: NUMPY.to_owned(),
                chunks: (0..chunks.len()).collect(),
            };
            let array = keep(Object::new(Kind::Array, &chunks, &serde_json::to_vec(&head).unwrap()));
            named.0.push((name.clone(), array));
        }
        let record = Object::new(Kind::ArrayRecord, &named.children(), &serde_json::to_vec(&named).unwrap());
        let items = metrics
            .into_iter()
            .map(|(name, value)| Item { key: name.to_owned(), value: Some(MetricRecordValue { value: Some(value) }) });
        let metrics = Object::new(Kind::MetricRecord, &[], &MetricRecord { items: items.collect() }.encode_to_vec());
        let named = Named(vec![("weights".to_owned(), keep(record)), ("numbers".to_owned(), keep(metrics))]);
        let records = Object::new(Kind::RecordDict, &named.children(), &serde_json::to_vec(&named).unwrap());
        let root = keep(Object::new(Kind::Message, &[records.id], b""));
        keep(records);
        (root, contents)
    }

    fn one_array() -> Vec<(String, Vec<Vec<u8>>)> {
        vec![("a".to_owned(), vec![b"one".to_vec(), b"two".to_vec()])]
    }

    #[test]
    fn a_reply_is_read_whatever_its_records_are_called() {
        let list = Wire::SintList(SintList { vals: vec![1] });
        let metrics = vec![("num-examples", Wire::Double(3.0)), ("list", list), ("big", Wire::Uint64(u64::MAX))];
        let (root, contents) = reply(&one_array(), metrics);
        let reported = Reported { examples: 3, metrics: [("big".to_owned(), Value::Double(u64::MAX as f64))].into() };
        let tensors = vec![Tensor { name: Some("a".to_owned()), array: Bytes::from_static(b"onetwo") }];
        assert_eq!(fit(&root, &contents, 6), Ok(Reply::Fit { tensors, reported }));
        assert_eq!(fit(&root, &contents, 5), Err(ReplyError::TooLarge { max: 5 }));
    }

    #[test]
    fn a_loss_is_found_under_its_usual_names() {
        for (name, loss) in [("eval_loss", Some(0.5)), ("loss", Some(0.5)), ("other", None)] {
            let (root, contents) = reply(&[], vec![("num-examples", Wire::Sint64(1)), (name, Wire::Double(0.5))]);
            match evaluate(&root, &contents) {
                Ok(Reply::Evaluate { loss: found, reported }) => {
                    assert_eq!((found, reported.metrics.is_empty()), (loss, loss.is_some()), "{name}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let (root, mut contents) = reply(&one_array(), Vec::new());
        assert_eq!(fit(&root, &contents, 6), Err(ReplyError::NoExamples));
        let chunk = Object::new(Kind::ArrayChunk, &[], b"two").id;
        contents.remove(&chunk);
        assert_eq!(fit(&chunk, &contents, 6), Err(ReplyError::Missing));
        let (root, mut contents) = reply(&one_array(), vec![("num-examples", Wire::Sint64(1))]);
        contents.remove(&chunk);
        assert_eq!(fit(&root, &contents, 6), Err(ReplyError::Missing));
    }

    proptest! {
        #[test]
        fn arrays_are_put_together_as_they_were_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..5),
        ) {
            let arrays = [("a".to_owned(), chunks.clone()), ("b".to_owned(), vec![chunks.concat()])];
            let (root, contents) = reply(&arrays, vec![("num-examples", Wire::Sint64(1))]);
            let Ok(Reply::Fit { tensors, .. }) = fit(&root, &contents, 1000) else { panic!("it is sound") };
            prop_assert!(tensors.iter().all(|tensor| tensor.array == chunks.concat()));
        }

        /// Whoever sends objects may send any, under their right names.
        #[test]
        fn no_foreign_bytes_make_it_panic(
            victim in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            bytes in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let (root, mut contents) = reply(&one_array(), vec![("num-examples", Wire::Sint64(1))]);
            let mut names: Vec<_> = contents.keys().copied().collect();
            names.sort();
            let content = contents.get_mut(victim.get(&names)).unwrap();
            let mut changed = content.to_vec();
            let at = at.index(changed.len());
            changed.splice(at..(at + bytes.len()).min(changed.len()), bytes);
            *content = changed.into();
            drop(fit(&root, &contents, 100));
            drop(evaluate(&root, &contents));
        }
    }
}
