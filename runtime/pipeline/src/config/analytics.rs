//! `[analytics]`: the lines, regions and directions that tracked objects are held against.

use std::collections::BTreeSet;
use std::time::Duration;

use revoada_bundle::strict::{Table, nearest};
use revoada_core::{Point, Size, StreamId};
use toml_edit::{Array, ArrayOfTables, Item, Value};

use super::print::{integer, number, table, word};
use super::read::parse_size;
use super::{ID_CHARS_MAX, SIDE_PIXELS_MAX};
use crate::analyse::geometry::{Malformed, Polygon, Segment};

/// Rules of one kind in a pipeline. Each costs every object of its streams a few multiplications, and each of a stream
/// is a line of `/metrics`.
const RULES_MAX: usize = 256;
/// Corners of a region: more than anybody draws by hand.
const CORNERS_MAX: usize = 64;
/// A day.
const SECONDS_MAX: f64 = 86_400.0;
/// An hour: tracks that are remembered for longer are those of another day's traffic.
const FORGET_SECONDS_MAX: f64 = 3600.0;

const ANCHORS: [(&str, Anchor); 2] = [("bottom-center", Anchor::BottomCenter), ("center", Anchor::Center)];
const MODES: [(&str, CrossingMode); 3] =
    [("loose", CrossingMode::Loose), ("balanced", CrossingMode::Balanced), ("strict", CrossingMode::Strict)];

/// What to tell of tracked objects.
#[derive(Clone, Debug, PartialEq)]
pub struct AnalyticsConfig {
    /// The point of a box that stands for the object.
    pub anchor: Anchor,
    /// An object has changed sides of a line or of a region's outline once its anchor is so far past it, as a
    /// fraction of its box's height. What trembles on the line is not counted again and again.
    pub margin: f32,
    /// A track that is unseen for longer is forgotten, and has left where it was.
    pub forget: Duration,
    pub lines: Vec<LineConfig>,
    pub regions: Vec<RegionConfig>,
    pub directions: Vec<DirectionConfig>,
}

impl Default for AnalyticsConfig {
    fn default() -> Self {
        Self {
            anchor: Anchor::default(),
            margin: 0.05,
            forget: Duration::from_secs(8),
            lines: Vec::new(),
            regions: Vec::new(),
            directions: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anchor {
    /// Where the object stands.
    #[default]
    BottomCenter,
    Center,
}

/// What every rule has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// Names the rule in events, metrics and pictures; once among the rules of its kind.
    pub name: String,
    /// Empty: all.
    pub streams: Vec<StreamId>,
    /// Labels of the classes that are looked at; empty: all.
    pub classes: Vec<String>,
    /// The size of the picture that the rule's points are of; `None`: that of the stream.
    pub reference: Option<Size>,
}

/// A line that objects cross.
#[derive(Clone, Debug, PartialEq)]
pub struct LineConfig {
    pub scope: Scope,
    /// From the first to the second.
    pub points: [Point; 2],
    /// "In" is the way from the first to the second; `None`: from the left to the right of whoever walks along the
    /// line.
    pub direction: Option<[Point; 2]>,
    pub mode: CrossingMode,
    /// The line goes on past its ends.
    pub extended: bool,
}

/// How well an object must keep to a line's direction, or its opposite, to be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrossingMode {
    /// However it comes.
    #[default]
    Loose,
    /// Within 60°.
    Balanced,
    /// Within 30°.
    Strict,
}

/// A part of the picture in which objects stay.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionConfig {
    pub scope: Scope,
    /// Of a polygon that does not cross itself.
    pub corners: Vec<Point>,
    /// All but the polygon.
    pub inverse: bool,
    /// An object that stays for so long is told once.
    pub dwell: Option<Duration>,
    pub crowd: Option<CrowdConfig>,
}

/// More objects than a region is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrowdConfig {
    /// More are a crowd.
    pub objects_max: u32,
    /// Once there were more for so long.
    pub after: Duration,
}

/// A way to move that is told.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectionConfig {
    pub scope: Scope,
    /// From the first to the second; where they lie does not matter.
    pub points: [Point; 2],
    /// How far an object's way may turn from it to either side.
    pub angle_deg: f32,
}

/// What `[analytics]` says; `streams` are the ids that its rules may name.
pub(super) fn read(table: &Table<'_>, streams: &BTreeSet<String>) -> AnalyticsConfig {
    let default = AnalyticsConfig::default();
    let reader = Reader { reference: reference(table), streams };
    let config = AnalyticsConfig {
        anchor: table.choice("anchor", &ANCHORS).unwrap_or_default(),
        margin: table.float("margin", 0.0..=1.0).map_or(default.margin, |margin| margin as f32),
        forget: seconds(table, "forget_s", FORGET_SECONDS_MAX).unwrap_or(default.forget),
        lines: reader.rules(table, "line", Reader::line),
        regions: reader.rules(table, "region", Reader::region),
        directions: reader.rules(table, "direction", Reader::direction),
    };
    if !["line", "region", "direction"].iter().any(|kind| table.has(kind)) {
        table.problem("line", "there is nothing to tell: add a `[[analytics.line]]`, `region` or `direction`");
    }
    config
}

struct Reader<'s> {
    /// Of rules that name none.
    reference: Option<Size>,
    streams: &'s BTreeSet<String>,
}

impl Reader<'_> {
    fn rules<T>(&self, table: &Table<'_>, kind: &str, read: fn(&Self, &Table<'_>, Scope) -> Option<T>) -> Vec<T> {
        let tables = table.tables(kind);
        if tables.len() > RULES_MAX {
            table.problem(kind, format!("{} of them, at most {RULES_MAX} are looked at", tables.len()));
        }
        let mut names = BTreeSet::new();
        let rules = tables.iter().map(|table| {
            let scope = self.scope(table);
            if !scope.name.is_empty() && !names.insert(scope.name.clone()) {
                table.problem("name", format!("there is another {kind} `{}`", scope.name));
            }
            read(self, table, scope)
        });
        // What could not be read was recorded.
        rules.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    fn scope(&self, table: &Table<'_>) -> Scope {
        let name = table.required().string("name").unwrap_or_default();
        let is_name =
            |name: &str| (1..=ID_CHARS_MAX).contains(&name.chars().count()) && !name.contains(char::is_control);
        if table.is_string("name") && !is_name(&name) {
            table.problem("name", format!("expected 1 to {ID_CHARS_MAX} characters, got `{}`", name.escape_debug()));
        }
        let listed = |key: &str, all: &str| {
            let list = table.strings(key);
            if list.as_ref().is_some_and(Vec::is_empty) {
                table.problem(key, format!("names none; leave it out to look at all {all}"));
            }
            list.unwrap_or_default()
        };
        let (streams, classes) = (listed("streams", "streams"), listed("classes", "classes"));
        for id in streams.iter().filter(|id| !self.streams.contains(*id)) {
            let near = nearest(id, self.streams.iter().map(String::as_str));
            let hint = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
            table.problem("streams", format!("there is no stream `{id}`{hint}"));
        }
        let streams = streams.iter().map(|id| StreamId::new(id)).collect();
        Scope { name, streams, classes, reference: reference(table).or(self.reference) }
    }

    fn line(&self, table: &Table<'_>, scope: Scope) -> Option<LineConfig> {
        let line = arrow(&table.required(), "points");
        let direction = arrow(table, "direction");
        if let (Some([from, to]), Some([before, after])) = (line, direction)
            && Segment::new(from, to).along().cross(Segment::new(before, after).along()) == 0.0
        {
            table.problem("direction", "runs along the line, so that neither of its sides is in");
        }
        let mode = table.choice("mode", &MODES).unwrap_or_default();
        let extended = table.boolean("extended").unwrap_or(false);
        Some(LineConfig { scope, points: line?, direction, mode, extended })
    }

    fn region(&self, table: &Table<'_>, scope: Scope) -> Option<RegionConfig> {
        let corners = points(&table.required(), "points");
        if let Some(corners) = &corners {
            check_outline(table, corners);
        }
        let crowd = table.table("overcrowding").and_then(|table| {
            let objects_max = table.required().integer("objects_max", 0u32..=100_000);
            let after = table.required().float("after_s", 0.0..=SECONDS_MAX).map(Duration::from_secs_f64);
            Some(CrowdConfig { objects_max: objects_max?, after: after? })
        });
        let inverse = table.boolean("inverse").unwrap_or(false);
        let dwell = seconds(table, "dwell_s", SECONDS_MAX);
        Some(RegionConfig { scope, corners: corners?, inverse, dwell, crowd })
    }

    fn direction(&self, table: &Table<'_>, scope: Scope) -> Option<DirectionConfig> {
        let points = arrow(&table.required(), "points");
        let angle_deg = table.float("angle_deg", 1.0..=90.0).unwrap_or(45.0) as f32;
        Some(DirectionConfig { scope, points: points?, angle_deg })
    }
}

fn check_outline(table: &Table<'_>, corners: &[Point]) {
    if !(3..=CORNERS_MAX).contains(&corners.len()) {
        return table.problem("points", format!("expected 3 to {CORNERS_MAX} points, got {}", corners.len()));
    }
    match Polygon::new(corners).check() {
        Ok(()) => {}
        Err(Malformed::Repeated(index)) => {
            let message = "is the same as the one before it; the last point is joined to the first by itself";
            table.problem("points", format!("point {} {message}", index + 1));
        }
        Err(Malformed::Crossing(first, second)) => table.problem(
            "points",
            format!(
                "the outline crosses itself: its edges from point {} and from point {} meet; list the points in their \
                 order along the outline",
                first + 1,
                second + 1
            ),
        ),
    }
}

fn points(table: &Table<'_>, key: &str) -> Option<Vec<Point>> {
    let limit = f64::from(SIDE_PIXELS_MAX);
    let lists = table.float_lists(key, -limit..=limit)?;
    let points = lists.iter().map(|list| match list[..] {
        [x, y] => Some(Point::new(x as f32, y as f32)),
        _ => None,
    });
    let points: Option<Vec<Point>> = points.collect();
    if points.is_none() {
        table.problem(key, "expected points of two numbers each, such as `[[100, 200], [300, 200]]`");
    }
    points
}

/// From one point to another.
fn arrow(table: &Table<'_>, key: &str) -> Option<[Point; 2]> {
    let points = points(table, key)?;
    let arrow = <[Point; 2]>::try_from(points.as_slice()).ok();
    match arrow {
        None => table.problem(key, format!("expected two points, got {}", points.len())),
        Some([from, to]) if from == to => table.problem(key, "both points are the same"),
        Some(_) => {}
    }
    arrow
}

fn reference(table: &Table<'_>) -> Option<Size> {
    let text = table.string("reference")?;
    let size = parse_size(&text);
    if size.is_none() {
        table.problem("reference", format!("expected a size such as `1920x1080`, at most {SIDE_PIXELS_MAX}"));
    }
    size
}

fn seconds(table: &Table<'_>, key: &str, max: f64) -> Option<Duration> {
    table.float(key, 0.1..=max).map(Duration::from_secs_f64)
}

/// As TOML that reads back to the same.
pub(super) fn print(config: &AnalyticsConfig) -> toml_edit::Table {
    let mut out = table([
        ("anchor", word(&ANCHORS, &config.anchor)),
        ("margin", number(config.margin)),
        ("forget_s", config.forget.as_secs_f64().into()),
    ]);
    let mut insert = |kind: &str, rules: ArrayOfTables| {
        if !rules.is_empty() {
            out.insert(kind, Item::ArrayOfTables(rules));
        }
    };
    insert("line", config.lines.iter().map(print_line).collect());
    insert("region", config.regions.iter().map(print_region).collect());
    insert("direction", config.directions.iter().map(print_direction).collect());
    out
}

fn print_scope(scope: &Scope, points: &[Point]) -> toml_edit::Table {
    let mut out = table([("name", scope.name.as_str().into()), ("points", print_points(points))]);
    if let Some(Size { width, height }) = scope.reference {
        out.insert("reference", Item::Value(format!("{width}x{height}").into()));
    }
    if !scope.streams.is_empty() {
        out.insert("streams", Item::Value(scope.streams.iter().map(StreamId::as_str).collect()));
    }
    if !scope.classes.is_empty() {
        out.insert("classes", Item::Value(scope.classes.iter().map(String::as_str).collect()));
    }
    out
}

fn print_line(line: &LineConfig) -> toml_edit::Table {
    let mut out = print_scope(&line.scope, &line.points);
    if let Some(direction) = &line.direction {
        out.insert("direction", Item::Value(print_points(direction)));
    }
    out.insert("mode", Item::Value(word(&MODES, &line.mode)));
    out.insert("extended", Item::Value(line.extended.into()));
    out
}

fn print_region(region: &RegionConfig) -> toml_edit::Table {
    let mut out = print_scope(&region.scope, &region.corners);
    out.insert("inverse", Item::Value(region.inverse.into()));
    if let Some(dwell) = region.dwell {
        out.insert("dwell_s", Item::Value(dwell.as_secs_f64().into()));
    }
    if let Some(CrowdConfig { objects_max, after }) = region.crowd {
        let crowd = table([("objects_max", integer(objects_max.into())), ("after_s", after.as_secs_f64().into())]);
        out.insert("overcrowding", Item::Table(crowd));
    }
    out
}

fn print_direction(direction: &DirectionConfig) -> toml_edit::Table {
    let mut out = print_scope(&direction.scope, &direction.points);
    out.insert("angle_deg", Item::Value(number(direction.angle_deg)));
    out
}

fn print_points(points: &[Point]) -> Value {
    points.iter().map(|point| Value::from([point.x, point.y].map(number).into_iter().collect::<Array>())).collect()
}
