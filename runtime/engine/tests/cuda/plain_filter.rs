//! What `candidates.cu` must find, by a plain loop.

use revoada_engine::cuda::{Candidate, CandidateLayout, CandidateSpec, Candidates};

/// In the numbers of one picture.
pub(crate) fn candidates(spec: &CandidateSpec, numbers: &[f32]) -> Candidates {
    let with_objectness = spec.layout == CandidateLayout::Objectness;
    let first_class = if with_objectness { 5 } else { 4 };
    let at = |cell: usize, channel: usize| match spec.layout {
        CandidateLayout::ChannelsFirst => numbers[channel * spec.cells + cell],
        CandidateLayout::CellsFirst | CandidateLayout::Objectness => {
            numbers[cell * (first_class + spec.classes) + channel]
        }
    };
    let (mut list, mut non_finite) = (Vec::new(), 0);
    for cell in 0..spec.cells {
        let objectness = if with_objectness { at(cell, 4) } else { 1.0 };
        if !objectness.is_finite() {
            non_finite += 1;
            continue;
        }
        if with_objectness && objectness < spec.score_min {
            continue;
        }
        let mut best: Option<(usize, f32)> = None;
        for class in 0..spec.classes {
            let score = at(cell, first_class + class);
            if !score.is_nan() && best.is_none_or(|(_, greatest)| score > greatest) {
                best = Some((class, score));
            }
        }
        match best {
            Some((class, score)) if score.is_finite() => {
                let score = objectness * score;
                if score >= spec.score_min {
                    list.push(Candidate { cell, class, score, values: [0, 1, 2, 3].map(|channel| at(cell, channel)) });
                }
            }
            _ => non_finite += 1,
        }
    }
    Candidates { list, non_finite }
}
