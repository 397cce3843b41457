//! Decoders by name: the standard ones and those that a program adds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::guess::guess;
use super::{
    DecodeError, Decoder, DecoderContext, centerface, classification, detectnet, segmentation, ssd, yolo_nms, yolo_v5,
    yolo_v8, yolo_x,
};

type Factory = Box<dyn Fn(&DecoderContext<'_>) -> Result<Arc<dyn Decoder>, DecodeError> + Send + Sync>;

/// Factories by the name that a manifest uses.
pub struct Decoders {
    factories: BTreeMap<String, Factory>,
}

/// A decoder, and how it was chosen.
#[derive(Clone)]
pub struct Built {
    pub decoder: Arc<dyn Decoder>,
    /// What was guessed and from what, as a sentence for the user; `None` where the manifest named
    /// the decoder.
    pub guessed: Option<String>,
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Built").field("decoder", &self.decoder.name()).field("guessed", &self.guessed).finish()
    }
}

impl Decoders {
    /// Those that Revoada brings.
    pub fn standard() -> Self {
        let mut decoders = Self { factories: BTreeMap::new() };
        decoders.register(classification::NAME, classification::build);
        decoders.register(yolo_v5::NAME, yolo_v5::build);
        decoders.register(yolo_v8::NAME, yolo_v8::build);
        decoders.register(yolo_x::NAME, yolo_x::build);
        decoders.register(yolo_nms::NAME, yolo_nms::build);
        decoders.register(ssd::NAME, ssd::build);
        decoders.register(detectnet::NAME, detectnet::build);
        decoders.register(centerface::NAME, centerface::build);
        decoders.register(segmentation::NAME, segmentation::build);
        decoders
    }

    /// Adds a decoder, or replaces the one of that name. The factory refuses outputs that the
    /// decoder cannot read.
    pub fn register<F>(&mut self, name: impl Into<String>, factory: F)
    where
        F: Fn(&DecoderContext<'_>) -> Result<Arc<dyn Decoder>, DecodeError> + Send + Sync + 'static,
    {
        self.factories.insert(name.into(), Box::new(factory));
    }

    /// In alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }

    /// The decoder that the manifest names, or where it names none, the one that the outputs suggest.
    pub fn build(&self, context: &DecoderContext<'_>) -> Result<Built, DecodeError> {
        if let Some(name) = &context.manifest.decoder {
            return Ok(Built { decoder: self.make(name, context)?, guessed: None });
        }
        let (name, reason) = guess(context).ok_or_else(|| DecodeError::NoGuess { outputs: context.describe() })?;
        let decoder = self.make(name, context)?;
        Ok(Built { decoder, guessed: Some(format!("guessed decoder `{name}`: {reason}")) })
    }

    fn make(&self, name: &str, context: &DecoderContext<'_>) -> Result<Arc<dyn Decoder>, DecodeError> {
        let unknown = || DecodeError::Unknown {
            name: name.to_owned(),
            known: self.names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        };
        let factory = self.factories.get(name).ok_or_else(unknown)?;
        factory(context)
    }
}
