//! Tasks and replies in the words of `FlowerService/Join`.

use prost::Message;
use prost::bytes::{BufMut, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint, key_len};
use revoada_proto::flower::client_message::{EvaluateRes, FitRes, GetParametersRes, Msg as Said};
use revoada_proto::flower::scalar::Scalar as Kind;
use revoada_proto::flower::server_message::{FitIns, GetParametersIns, Msg as Asked, ReconnectIns};
use revoada_proto::flower::{ClientMessage, Parameters, Scalar, ServerMessage, Status};
use thiserror::Error;

use super::framing::Pieces;
use crate::learning::{Config, Metrics, Reply, Reported, Sheet, Task, Tensor, Value, Work};

/// What Flower calls arrays as NumPy saves them.
const TENSOR_TYPE: &str = "numpy.ndarray";
/// Tensors, metrics and all else that an answer consists of: each takes far more room than the two bytes that it may come in.
const FIELDS_MAX: usize = 1 << 16;
/// Of what a client says about why it failed.
const REASON_CHARS_MAX: usize = 1024;

/// The numbers of fields that are written here.
mod tag {
    pub(super) const FIT_INS: u32 = 4;
    pub(super) const EVALUATE_INS: u32 = 5;
    /// Of both of them, and of answers that have any.
    pub(super) const PARAMETERS: u32 = 1;
    pub(super) const ANSWERED_PARAMETERS: u32 = 2;
    pub(super) const TENSORS: u32 = 1;
}

#[derive(Debug, Error)]
#[error("the weights are {bytes} bytes long, which no message of this protocol has room for")]
pub(super) struct TooLarge {
    bytes: u64,
}

/// The message that asks for a task, as it is sent. The first of many with the same weights makes their bytes.
pub(super) fn ask(task: &Task) -> Result<Vec<Bytes>, TooLarge> {
    match &task.work {
        Work::Parameters { config } => {
            Ok(whole(Asked::GetParametersIns(GetParametersIns { config: to_scalars(config) })))
        }
        Work::Fit { weights, config } => weighty(tag::FIT_INS, weights, config),
        Work::Evaluate { weights, config } => weighty(tag::EVALUATE_INS, weights, config),
        Work::Leave => Ok(leave(0)),
    }
}

/// To go, and to come again after so many seconds unless they are none.
pub(super) fn leave(seconds: u64) -> Vec<Bytes> {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    whole(Asked::ReconnectIns(ReconnectIns { seconds }))
}

fn whole(asked: Asked) -> Vec<Bytes> {
    let message = ServerMessage { msg: Some(asked) }.encode_to_vec();
    let length = u32::try_from(message.len()).expect("what has no weights is short");
    let mut pieces = Pieces::new(length);
    pieces.push(message.into());
    pieces.finish()
}

/// A message with weights is written around the arrays, which thus are the same bytes for everybody, whatever else each is told.
fn weighty(ins: u32, weights: &Sheet, config: &Config) -> Result<Vec<Bytes>, TooLarge> {
    let arrays = weights.arrays();
    let field =
        |tag: u32, length: usize| key_len(tag) as u64 + encoded_len_varint(length as u64) as u64 + length as u64;
    // Fields of a message may stand in several places, so these are simply written behind what is written by hand.
    let kind = Parameters { tensors: Vec::new(), tensor_type: TENSOR_TYPE.to_owned() }.encode_to_vec();
    let rest = FitIns { parameters: None, config: to_scalars(config) }.encode_to_vec();
    let parameters = arrays.iter().map(|array| field(tag::TENSORS, array.len())).sum::<u64>() + kind.len() as u64;
    let inner =
        key_len(tag::PARAMETERS) as u64 + encoded_len_varint(parameters) as u64 + parameters + rest.len() as u64;
    let outer = key_len(ins) as u64 + encoded_len_varint(inner) as u64 + inner;
    // Flower's clients read no longer ones.
    let length = i32::try_from(outer).map_err(|_| TooLarge { bytes: outer })?;
    let mut pieces = Pieces::new(length.unsigned_abs());
    let open = |pieces: &mut Pieces, tag, length| {
        encode_key(tag, WireType::LengthDelimited, pieces.small());
        encode_varint(length, pieces.small());
    };
    open(&mut pieces, ins, inner);
    open(&mut pieces, tag::PARAMETERS, parameters);
    for array in arrays {
        open(&mut pieces, tag::TENSORS, array.len() as u64);
        pieces.push(array.clone());
    }
    pieces.small().put_slice(&kind);
    pieces.push(rest.into());
    Ok(pieces.finish())
}

/// What an answer to a task says, which may be that there is none.
pub(super) fn understand(task: &Task, message: Bytes) -> Reply {
    if !is_bounded(&message) {
        return Reply::Failed(format!("its answer consists of more than {FIELDS_MAX} parts, or of something else"));
    }
    // Tensors are slices of the message, not copies.
    let said = match ClientMessage::decode(message) {
        Ok(message) => message.msg,
        Err(error) => return Reply::Failed(format!("its answer makes no sense: {error}")),
    };
    let said = match (&task.work, said) {
        (Work::Parameters { .. }, Some(Said::GetParametersRes(said))) => parameters(said),
        (Work::Fit { .. }, Some(Said::FitRes(said))) => fit(said),
        (Work::Evaluate { .. }, Some(Said::EvaluateRes(said))) => evaluate(said),
        (_, said) => {
            Err(format!("it was asked for `{}` and answered with `{}`", asked(&task.work), answered(said.as_ref())))
        }
    };
    said.unwrap_or_else(Reply::Failed)
}

fn parameters(said: GetParametersRes) -> Result<Reply, String> {
    done(said.status)?;
    Ok(Reply::Parameters(tensors(said.parameters)?))
}

fn fit(said: FitRes) -> Result<Reply, String> {
    done(said.status)?;
    Ok(Reply::Fit { tensors: tensors(said.parameters)?, reported: reported(said.num_examples, said.metrics)? })
}

fn evaluate(said: EvaluateRes) -> Result<Reply, String> {
    done(said.status)?;
    Ok(Reply::Evaluate { loss: Some(said.loss.into()), reported: reported(said.num_examples, said.metrics)? })
}

fn done(status: Option<Status>) -> Result<(), String> {
    // What is not there is zero, which is well.
    match status.unwrap_or_default() {
        Status { code: 0, .. } => Ok(()),
        Status { code, message } if message.is_empty() => Err(format!("it failed with code {code}")),
        Status { message, .. } => Err(message.chars().take(REASON_CHARS_MAX).collect()),
    }
}

fn tensors(parameters: Option<Parameters>) -> Result<Vec<Tensor>, String> {
    let Parameters { tensors, tensor_type } = parameters.ok_or("its answer has no weights")?;
    // Clients of every version say so; what is no array is found where arrays are read.
    if tensor_type != TENSOR_TYPE {
        let kind: String = tensor_type.chars().take(REASON_CHARS_MAX).collect();
        return Err(format!("its tensors are `{kind}`, and should be `{TENSOR_TYPE}`"));
    }
    Ok(tensors.into_iter().map(|array| Tensor { name: None, array }).collect())
}

fn reported(examples: i64, metrics: impl IntoIterator<Item = (String, Scalar)>) -> Result<Reported, String> {
    let examples = u64::try_from(examples).map_err(|_| format!("it counts {examples} examples"))?;
    let value = |(name, scalar): (String, Scalar)| match from_scalar(scalar) {
        Some(value) => Ok((name, value)),
        None => Err(format!("its metric `{}` has no value", name.chars().take(REASON_CHARS_MAX).collect::<String>())),
    };
    Ok(Reported { examples, metrics: metrics.into_iter().map(value).collect::<Result<Metrics, _>>()? })
}

fn asked(work: &Work) -> &'static str {
    match work {
        Work::Parameters { .. } => "get_parameters",
        Work::Fit { .. } => "fit",
        Work::Evaluate { .. } => "evaluate",
        Work::Leave => "disconnect",
    }
}

fn answered(said: Option<&Said>) -> &'static str {
    match said {
        Some(Said::DisconnectRes(_)) => "disconnect",
        Some(Said::GetPropertiesRes(_)) => "get_properties",
        Some(Said::GetParametersRes(_)) => "get_parameters",
        Some(Said::FitRes(_)) => "fit",
        Some(Said::EvaluateRes(_)) => "evaluate",
        None => "nothing",
    }
}

fn to_scalars(config: &Config) -> std::collections::BTreeMap<String, Scalar> {
    config.iter().map(|(name, value)| (name.clone(), to_scalar(value))).collect()
}

fn to_scalar(value: &Value) -> Scalar {
    let kind = match value {
        Value::Bool(value) => Kind::Bool(*value),
        Value::Integer(value) => Kind::Sint64(*value),
        Value::Double(value) => Kind::Double(*value),
        Value::Text(value) => Kind::String(value.clone()),
        Value::Bytes(value) => Kind::Bytes(value.clone().into()),
    };
    Scalar { scalar: Some(kind) }
}

fn from_scalar(scalar: Scalar) -> Option<Value> {
    Some(match scalar.scalar? {
        Kind::Bool(value) => Value::Bool(value),
        Kind::Sint64(value) => Value::Integer(value),
        // The nearest number where it is too large.
        Kind::Uint64(value) => i64::try_from(value).map_or(Value::Double(value as f64), Value::Integer),
        Kind::Double(value) => Value::Double(value),
        Kind::String(value) => Value::Text(value),
        Kind::Bytes(value) => Value::Bytes(value.into()),
    })
}

/// Whether an answer has no more fields than it may, those of its parameters too. False where it cannot be read.
fn is_bounded(message: &[u8]) -> bool {
    let mut left = FIELDS_MAX;
    count(message, &[None, Some(tag::ANSWERED_PARAMETERS)], &mut left).is_some()
}

/// Takes one from what is left for each field, and for each of those inside the field of which the number is given, or of any.
fn count(mut message: &[u8], inside: &[Option<u32>], left: &mut usize) -> Option<()> {
    while !message.is_empty() {
        *left = left.checked_sub(1)?;
        let (number, kind) = decode_key(&mut message).ok()?;
        let length = match kind {
            WireType::Varint => {
                decode_varint(&mut message).ok()?;
                0
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => usize::try_from(decode_varint(&mut message).ok()?).ok()?,
            // Groups, which no message here has.
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let (field, rest) = message.split_at_checked(length)?;
        if let Some((look, inside)) = inside.split_first()
            && kind == WireType::LengthDelimited
            && look.is_none_or(|look| look == number)
        {
            count(field, inside, left)?;
        }
        message = rest;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use revoada_federated::npy::Element;
    use revoada_federated::{Layout, Weights};
    use revoada_proto::flower::server_message::EvaluateIns;

    use super::*;
    use crate::learning::RunId;

    fn sheet(lengths: &[usize]) -> Arc<Sheet> {
        let tensors = lengths.iter().enumerate().map(|(index, length)| (index.to_string(), vec![*length]));
        let layout = Arc::new(Layout::new(tensors).unwrap());
        let values = (0..layout.count()).map(|value| value as f32).collect();
        let weights = Weights::new(layout, values).unwrap();
        Arc::new(Sheet::new(weights, vec![Element::F32; lengths.len()], None))
    }

    fn task(work: Work) -> Task {
        Task { number: 1, run: RunId(1), round: 1, work }
    }

    fn config() -> Config {
        let values = [
            Value::Bool(true),
            Value::Integer(-3),
            Value::Double(0.5),
            Value::Text("ä".to_owned()),
            Value::Bytes(vec![0, 255]),
        ];
        values.into_iter().enumerate().map(|(index, value)| (format!("v{index}"), value)).collect()
    }

    #[test]
    fn messages_around_weights_are_those_that_a_library_writes() {
        for lengths in [&[1][..], &[1, 3], &[5000, 1, 70_000]] {
            let (weights, config) = (sheet(lengths), config());
            let parameters = Parameters { tensors: weights.arrays().to_vec(), tensor_type: "numpy.ndarray".to_owned() };
            let (parameters, scalars) = (Some(parameters), to_scalars(&config));
            let fit = FitIns { parameters: parameters.clone(), config: scalars.clone() };
            let evaluate = EvaluateIns { parameters, config: scalars };
            for (work, expected) in [
                (Work::Fit { weights: Arc::clone(&weights), config: config.clone() }, Asked::FitIns(fit)),
                (Work::Evaluate { weights, config }, Asked::EvaluateIns(evaluate)),
            ] {
                let sent = ask(&task(work)).unwrap().concat();
                let expected = ServerMessage { msg: Some(expected) };
                assert_eq!(sent[1..5], u32::try_from(expected.encoded_len()).unwrap().to_be_bytes());
                assert!(sent[5..] == expected.encode_to_vec());
            }
        }
    }

    #[test]
    fn arrays_are_not_copied_for_each_who_is_sent_them() {
        let weights = sheet(&[100_000]);
        let array = weights.arrays()[0].as_ptr();
        let pieces = ask(&task(Work::Fit { weights, config: config() })).unwrap();
        assert!(pieces.iter().any(|piece| piece.as_ptr() == array));
    }

    fn fitted(tensors: usize, metrics: usize) -> Bytes {
        let parameters = Parameters { tensors: vec![Bytes::new(); tensors], tensor_type: TENSOR_TYPE.to_owned() };
        let scalar = Scalar { scalar: Some(Kind::Bool(true)) };
        let metrics = (0..metrics).map(|metric| (metric.to_string(), scalar.clone())).collect();
        let said = FitRes { parameters: Some(parameters), metrics, ..FitRes::default() };
        ClientMessage { msg: Some(Said::FitRes(said)) }.encode_to_vec().into()
    }

    #[test]
    fn an_answer_of_too_many_parts_is_refused_before_room_is_made_for_them() {
        let task = task(Work::Fit { weights: sheet(&[1]), config: Config::new() });
        assert!(matches!(understand(&task, fitted(30_000, 30_000)), Reply::Fit { .. }));
        for many in [fitted(FIELDS_MAX, 0), fitted(0, FIELDS_MAX)] {
            assert!(matches!(understand(&task, many), Reply::Failed(why) if why.contains("65536 parts")));
        }
    }

    #[test]
    fn numbers_without_a_sign_are_numbers() {
        let value = |number| from_scalar(Scalar { scalar: Some(Kind::Uint64(number)) });
        assert_eq!(value(7), Some(Value::Integer(7)));
        assert_eq!(value(u64::MAX), Some(Value::Double(u64::MAX as f64)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = understand(&task(Work::Leave), bytes.into());
        }

        #[test]
        fn what_is_damaged_makes_no_reader_panic(at in 0_usize..200, byte: u8) {
            let mut bytes = fitted(3, 3).to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = understand(&task(Work::Fit { weights: sheet(&[1]), config: Config::new() }), bytes.into());
        }
    }
}
