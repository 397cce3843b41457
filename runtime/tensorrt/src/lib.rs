//! NVIDIA TensorRT, found at run time and spoken to in the dialect of its version.
//!
//! One program serves every version: a thin C++ shim is compiled once for each set of headers that was there when
//! the program was built ([`dialects`] lists them), and [`Library::open`] takes the one that fits the library it
//! finds. Nothing is linked: without TensorRT the program starts, and the error says what was looked for.
//!
//! ```
//! use revoada_tensorrt::{Library, LibraryPaths};
//!
//! match Library::open(&LibraryPaths::usual()) {
//!     Ok(library) => println!("{} from `{}`", library.version(), library.path().display()),
//!     Err(error) => println!("no TensorRT here: {error}"),
//! }
//! ```
//!
//! Two halves. [`Library::build`] turns an ONNX model into a plan: parsed, checked, given its ranges of shapes,
//! compiled with progress and cancelling. [`Runtime`], [`Engine`] and [`Context`] open a plan and run it; each
//! holds what it came from, so they may be dropped in any order.
//!
//! It is *not* a place for CUDA: device memory and streams are numbers that the caller brings. Nor does it judge
//! plans: whoever hands one to [`Runtime::engine`] has checked that it comes from a trusted builder, since a plan
//! is code.

mod building;
mod dialect;
mod error;
mod host;
mod inspection;
mod library;
mod running;
mod sys;
mod tensor;
mod version;

pub use building::{BuildRequest, Built, Hardware, Layer, Model, Profile, Range, Target};
pub use dialect::dialects;
pub use error::{BuildError, Message, OpenError, ParserError, PlanFault, RunError};
pub use host::{Cancel, Progress};
pub use inspection::{InspectError, InspectedLayer, InspectedTensor, inspected_layers};
pub use library::{Library, LibraryPaths};
pub use running::{Context, ContextMemory, Engine, LayerTime, Runtime, RuntimeOptions};
pub use tensor::{DataType, IoTensor, NetworkInput};
