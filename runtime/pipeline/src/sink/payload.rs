//! The messages of DeepStream's converter, for whoever reads them already. Pure: time and identifiers are passed in, so
//! that any transport can carry them.
//!
//! Boxes are in pixels of the stream's own picture; what a classifier says of all of it is an object of its size. An object
//! that is not tracked has the id -1. What nothing here measures (speed, direction, geographic place) is 0, as it is in
//! DeepStream where no application fills it in.

use std::time::SystemTime;

use revoada_core::{Detection, Rect};
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::FrameResult;

/// The identifiers of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub message: Uuid,
    pub event: Uuid,
}

/// The id of an object that nothing tracks.
const UNTRACKED: &str = "-1";

/// `msg-conv-payload-type=0`: a JSON object for each object of the picture, without a line break. `model` is the model's name.
pub fn full(result: &FrameResult, model: &str, at: SystemTime, mut stamp: impl FnMut() -> Stamp) -> Vec<String> {
    objects(result).iter().map(|found| text(&full_message(result, found, model, at, stamp()))).collect()
}

fn objects(result: &FrameResult) -> Vec<Detection> {
    let whole = Rect::of(result.frame.size());
    let classes = result.prediction.classifications.iter();
    let classes =
        classes.map(|guess| Detection { class: guess.class, score: guess.score, bbox: whole, ..Detection::default() });
    result.prediction.detections.iter().cloned().chain(classes).collect()
}

#[derive(Serialize)]
struct Full<'a> {
    messageid: Uuid,
    mdsversion: &'static str,
    #[serde(rename = "@timestamp")]
    timestamp: String,
    place: Value,
    sensor: Value,
    #[serde(rename = "analyticsModule")]
    analytics_module: Value,
    object: Map<String, Value>,
    event: Event,
    #[serde(rename = "videoPath")]
    video_path: &'a str,
}

#[derive(Serialize)]
struct Event {
    id: Uuid,
    r#type: &'static str,
}

fn full_message<'a>(result: &FrameResult, found: &Detection, model: &str, at: SystemTime, stamp: Stamp) -> Full<'a> {
    let stream = result.frame.stream.as_str();
    Full {
        messageid: stamp.message,
        mdsversion: "1.0",
        timestamp: rfc3339(at),
        place: json!({ "id": stream, "name": stream, "type": "", "location": nowhere() }),
        sensor: json!({
            "id": stream, "type": "Camera", "description": "", "location": nowhere(), "coordinate": origin()
        }),
        analytics_module: json!({
            "id": "revoada", "description": model, "source": "revoada", "version": env!("CARGO_PKG_VERSION")
        }),
        object: object(result, found),
        event: Event { id: stamp.event, r#type: "moving" },
        video_path: "",
    }
}

fn object(result: &FrameResult, found: &Detection) -> Map<String, Value> {
    let [left, top, right, bottom] = corners(found).map(|side| side.round() as i64);
    let mut object = Map::new();
    object.insert("id".into(), track(found).into());
    for key in ["speed", "direction", "orientation"] {
        object.insert(key.into(), 0.0.into());
    }
    object.insert(label(result, found), json!({ "confidence": decimal(found.score) }));
    let bbox = json!({ "topleftx": left, "toplefty": top, "bottomrightx": right, "bottomrighty": bottom });
    object.insert("bbox".into(), bbox);
    object.insert("location".into(), nowhere());
    object.insert("coordinate".into(), origin());
    object
}

/// `msg-conv-payload-type=1`: one JSON object for a frame, without a line break; an object of the picture is
/// `id|left|top|right|bottom|label|#|||||||confidence`, where the empty fields are those of attributes.
pub fn minimal(result: &FrameResult, at: SystemTime) -> String {
    #[derive(Serialize)]
    struct Minimal<'a> {
        version: &'static str,
        id: String,
        #[serde(rename = "@timestamp")]
        timestamp: String,
        #[serde(rename = "sensorId")]
        sensor_id: &'a str,
        objects: Vec<String>,
    }
    let object = |found: &Detection| {
        let [left, top, right, bottom] = corners(found).map(decimal);
        // What separates fields cannot stand in one.
        let label = label(result, found).replace('|', "/");
        format!("{}|{left}|{top}|{right}|{bottom}|{label}|#|||||||{}", track(found), decimal(found.score))
    };
    text(&Minimal {
        version: "4.0",
        id: result.frame.sequence.to_string(),
        timestamp: rfc3339(at),
        sensor_id: result.frame.stream.as_str(),
        objects: objects(result).iter().map(object).collect(),
    })
}

fn corners(found: &Detection) -> [f32; 4] {
    let bbox = found.bbox;
    [bbox.x, bbox.y, bbox.x + bbox.width, bbox.y + bbox.height]
}

fn track(found: &Detection) -> String {
    found.track.map_or_else(|| UNTRACKED.to_owned(), |track| track.to_string())
}

fn label(result: &FrameResult, found: &Detection) -> String {
    result.labels.get(found.class as usize).cloned().unwrap_or_else(|| found.class.to_string())
}

/// To a thousandth: more digits of a pixel or a confidence are noise.
fn decimal(value: f32) -> f64 {
    (f64::from(value) * 1000.0).round() / 1000.0
}

fn nowhere() -> Value {
    json!({ "lat": 0.0, "lon": 0.0, "alt": 0.0 })
}

fn origin() -> Value {
    json!({ "x": 0.0, "y": 0.0, "z": 0.0 })
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

fn text(message: &impl Serialize) -> String {
    serde_json::to_string(message).expect("a message has string keys")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use revoada_core::{Rect, TrackId};

    use super::super::tests::result;
    use super::*;

    fn taken() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_523_422_799_828)
    }

    fn tracked() -> FrameResult {
        let mut result = result("front", 7);
        result.labels = ["car".to_owned()].into();
        result.prediction.detections[0].track = Some(TrackId(957));
        result.prediction.detections[1].track = None;
        result.prediction.detections[0].bbox = Rect::new(1834.25, 150.0, 84.0, 65.5);
        result
    }

    #[test]
    fn a_minimal_message_is_a_frame() {
        let expected = concat!(
            r#"{"version":"4.0","id":"7","@timestamp":"2018-04-11T04:59:59.828Z","sensorId":"front","objects":["#,
            r#""957|1834.25|150|1918.25|215.5|car|#|||||||0.988","-1|-0.001|20.126|29.999|60.626|1|#|||||||0.988","-1|0|0|64|48|7|#|||||||0.5"]}"#
        );
        assert_eq!(minimal(&tracked(), taken()), expected);
    }

    #[test]
    fn a_full_message_is_an_object() {
        let mut count = 0;
        let stamp = || {
            count += 2;
            Stamp { message: Uuid::from_u128(count - 1), event: Uuid::from_u128(count) }
        };
        let messages = full(&tracked(), "cars", taken(), stamp);
        assert_eq!(messages.len(), 3);
        let expected = concat!(
            r#"{"messageid":"00000000-0000-0000-0000-000000000001","mdsversion":"1.0","#,
            r#""@timestamp":"2018-04-11T04:59:59.828Z","#,
            r#""place":{"id":"front","location":{"alt":0.0,"lat":0.0,"lon":0.0},"name":"front","type":""},"#,
            r#""sensor":{"coordinate":{"x":0.0,"y":0.0,"z":0.0},"description":"","id":"front","#,
            r#""location":{"alt":0.0,"lat":0.0,"lon":0.0},"type":"Camera"},"#,
            r#""analyticsModule":{"description":"cars","id":"revoada","source":"revoada","version":"VERSION"},"#,
            r#""object":{"bbox":{"bottomrightx":1918,"bottomrighty":216,"topleftx":1834,"toplefty":150},"#,
            r#""car":{"confidence":0.988},"coordinate":{"x":0.0,"y":0.0,"z":0.0},"direction":0.0,"id":"957","#,
            r#""location":{"alt":0.0,"lat":0.0,"lon":0.0},"orientation":0.0,"speed":0.0},"#,
            r#""event":{"id":"00000000-0000-0000-0000-000000000002","type":"moving"},"videoPath":""}"#
        );
        assert_eq!(messages[0], expected.replace("VERSION", env!("CARGO_PKG_VERSION")));
        assert!(messages[1].contains(r#""id":"-1""#), "{}", messages[1]);
    }
}
