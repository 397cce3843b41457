//! A decoder of one's own: for a network that finds at most one ball, and answers with five numbers.
//!
//!     cargo run --package revoada-pipeline --example own_decoder

use std::sync::Arc;

use revoada_bundle::manifest::OutputManifest;
use revoada_core::{
    DType, Detection, Dim, Fit, ImageTransform, Placement, Point, Prediction, Rect, Size, TensorRef, TensorSpec,
};
use revoada_pipeline::decode::{DecodeError, Decoder, DecoderContext, Decoders};

const NAME: &str = "ball";

/// Reads `[N,5]`: centre, width and height as fractions of the network's input, and a confidence.
struct BallDecoder {
    score_min: f32,
    input: Size,
}

impl BallDecoder {
    /// Looks at the declared outputs once, so that a wrong model is refused before the first frame.
    fn build(context: &DecoderContext<'_>) -> Result<Arc<dyn Decoder>, DecodeError> {
        match context.outputs {
            [only] if only.dims.len() == 2 && only.dims[1] == Dim::Fixed(5) && only.dtype == DType::F32 => {
                let score_min = context.manifest.score_min.unwrap_or(0.5);
                Ok(Arc::new(Self { score_min, input: context.input }))
            }
            _ => Err(unreadable("expected one output `f32[N,5]`")),
        }
    }
}

impl Decoder for BallDecoder {
    fn name(&self) -> &str {
        NAME
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, placement: &Placement) -> Result<Prediction, DecodeError> {
        let values = outputs.first().and_then(|output| output.as_slice::<f32>());
        let ball = values.and_then(|values| values.as_chunks::<5>().0.get(row));
        let [x, y, width, height, score] = *ball.ok_or_else(|| unreadable("expected five floats per picture"))?;
        if score.is_nan() || score < self.score_min {
            return Ok(Prediction::default());
        }
        let (across, down) = (self.input.width as f32, self.input.height as f32);
        let bbox = Rect::from_center(Point::new(x * across, y * down), width * across, height * down);
        let ball = Detection { class: 0, score, bbox: placement.rect_to_source(bbox), ..Detection::default() };
        Ok(Prediction { detections: vec![ball], ..Prediction::default() })
    }
}

fn unreadable(reason: &str) -> DecodeError {
    DecodeError::Outputs { decoder: NAME.to_owned(), reason: reason.to_owned() }
}

/// Registers the decoder, builds it as a model's manifest would, and reads a network's answer.
fn find_ball(answer: [f32; 5]) -> Result<Prediction, DecodeError> {
    let mut decoders = Decoders::standard();
    decoders.register(NAME, BallDecoder::build);

    let input = Size::new(320, 320);
    let outputs =
        [TensorSpec { name: "ball".into(), dtype: DType::F32, dims: vec![Dim::Dynamic("N".into()), Dim::Fixed(5)] }];
    let manifest = OutputManifest { decoder: Some(NAME.into()), ..OutputManifest::default() };
    let context = DecoderContext { outputs: &outputs, manifest: &manifest, labels: 1, input };
    let decoder = decoders.build(&context)?.decoder;

    // A picture of 640×360, letterboxed.
    let transform = ImageTransform { fit: Fit::letterbox_centered(), ..ImageTransform::stretch(input) };
    let placement = Placement::new(Rect::new(0.0, 0.0, 640.0, 360.0), &transform);
    let answer = TensorRef::of(&[1, 5], &answer).expect("five numbers fill a tensor of [1, 5]");
    decoder.decode(&[answer], 0, &placement)
}

fn main() -> Result<(), DecodeError> {
    let prediction = find_ball([0.5, 0.5, 0.1, 0.1, 0.9])?;
    println!("{:?}", prediction.detections);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ball_is_found_where_it_is_in_the_picture() {
        let prediction = find_ball([0.5, 0.5, 0.1, 0.1, 0.9]).unwrap();
        assert_eq!(prediction.detections[0].bbox, Rect::new(288.0, 148.0, 64.0, 64.0));
        assert_eq!(find_ball([0.5, 0.5, 0.1, 0.1, f32::NAN]).unwrap(), Prediction::default());
    }
}
