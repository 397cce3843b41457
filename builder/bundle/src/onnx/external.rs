//! Weights that lie beside the file.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::proto::{GraphProto, ModelProto, TensorProto};
use super::{MODEL_BYTES_MAX, OnnxErrorKind};

/// Every tensor of the model, those of nested graphs and functions included. The decoder bounds how
/// deep they nest.
pub(super) fn tensors(model: &ModelProto) -> Vec<&TensorProto> {
    let mut found = Vec::new();
    if let Some(graph) = &model.graph {
        collect(graph, &mut found);
    }
    for function in &model.functions {
        collect_nodes(&function.node, &mut found);
    }
    found
}

fn collect<'a>(graph: &'a GraphProto, found: &mut Vec<&'a TensorProto>) {
    found.extend(&graph.initializer);
    found.extend(graph.sparse_initializer.iter().flat_map(|sparse| sparse.values.iter().chain(&sparse.indices)));
    collect_nodes(&graph.node, found);
}

fn collect_nodes<'a>(nodes: &'a [super::proto::NodeProto], found: &mut Vec<&'a TensorProto>) {
    for attribute in nodes.iter().flat_map(|node| &node.attribute) {
        found.extend(attribute.t.iter().chain(&attribute.tensors));
        for graph in attribute.g.iter().chain(&attribute.graphs) {
            collect(graph, found);
        }
    }
}

/// Whether each piece of external data lies inside `folder` and is as long as the model says.
pub(super) fn check(model: &ModelProto, folder: &Path) -> Result<(), OnnxErrorKind> {
    let external = tensors(model).into_iter().filter(|tensor| tensor.data_location == Some(TensorProto::EXTERNAL));
    for tensor in external {
        Piece::find(tensor, folder).map_err(|reason| refuse(tensor, reason))?;
    }
    Ok(())
}

/// Reads the external data of the main graph's initialisers and of its nodes' attributes into the model.
pub(super) fn load(model: &mut ModelProto, folder: Option<&Path>) -> Result<(), OnnxErrorKind> {
    let Some(graph) = &mut model.graph else { return Ok(()) };
    let mut room = MODEL_BYTES_MAX;
    load_graph(graph, folder, &mut room)
}

fn load_graph(graph: &mut GraphProto, folder: Option<&Path>, room: &mut u64) -> Result<(), OnnxErrorKind> {
    for tensor in &mut graph.initializer {
        load_tensor(tensor, folder, room)?;
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        for tensor in attribute.t.iter_mut().chain(&mut attribute.tensors) {
            load_tensor(tensor, folder, room)?;
        }
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            load_graph(graph, folder, room)?;
        }
    }
    Ok(())
}

fn load_tensor(tensor: &mut TensorProto, folder: Option<&Path>, room: &mut u64) -> Result<(), OnnxErrorKind> {
    if tensor.data_location != Some(TensorProto::EXTERNAL) {
        return Ok(());
    }
    let read = |room: &mut u64| {
        let piece = Piece::find(tensor, folder.ok_or("a model in memory has no folder")?)?;
        *room = room.checked_sub(piece.length).ok_or("together they are larger than one model may be")?;
        piece.read()
    };
    let bytes = read(room).map_err(|reason| refuse(tensor, reason))?;
    tensor.raw_data = Some(bytes.into());
    tensor.data_location = None;
    tensor.external_data.clear();
    Ok(())
}

fn refuse(tensor: &TensorProto, reason: String) -> OnnxErrorKind {
    OnnxErrorKind::ExternalData { tensor: tensor.name().to_owned(), reason }
}

/// Where the elements of one tensor lie.
struct Piece {
    path: PathBuf,
    offset: u64,
    length: u64,
}

impl Piece {
    fn find(tensor: &TensorProto, folder: &Path) -> Result<Self, String> {
        let entry = |key: &str| {
            let mut entries = tensor.external_data.iter();
            entries.find(|entry| entry.key() == key).map(|entry| entry.value())
        };
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("its {key} `{text}` is no number")),
        };
        let location = entry("location").ok_or("it names no file")?;
        // A model must not read what its folder does not hold.
        if !Path::new(location).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(format!("`{location}` leaves the model's folder"));
        }
        let path = folder.join(location);
        let metadata = fs::metadata(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
        let declared = tensor.element_count().and_then(|count| {
            let bits = tensor.element_type().bits()?.checked_mul(u64::try_from(count).ok()?)?;
            Some(bits.div_ceil(8))
        });
        let length = number("length")?.or(declared).unwrap_or_default();
        let offset = number("offset")?.unwrap_or_default();
        match offset.checked_add(length) {
            Some(end) if end <= metadata.len() => Ok(Self { path, offset, length }),
            _ => Err(format!("`{}` is too short for it", path.display())),
        }
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        let read = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.offset))?;
            let mut bytes = Vec::new();
            file.take(self.length).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        let bytes = read().map_err(|error| format!("`{}`: {error}", self.path.display()))?;
        match bytes.len() as u64 == self.length {
            true => Ok(bytes),
            false => Err(format!("`{}` is too short for it", self.path.display())),
        }
    }
}
