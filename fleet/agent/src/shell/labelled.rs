//! How often a classifier is right about pictures whose classes are known.
//!
//! They lie in a folder as sets for image classification commonly do, `FOLDER/LABEL/picture.jpg`, with labels as the model
//! has them. A child answers them, and the share whose best class is the label is the model's accuracy (top-1). A detector has
//! none: without the boxes that there are to be found, nothing can be said of it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use revoada_bundle::bundle::MANIFEST;
use revoada_bundle::manifest::{Manifest, ManifestError};
use revoada_core::{causes, sentence_of};
use serde::Deserialize;
use thiserror::Error;

use super::child;
use super::fetch::Cancel;

/// Of a larger set so many are answered: more make the share no more certain than half a percent.
const PICTURES_MAX: usize = 1000;
/// Of one set that are looked at at all.
const FILES_MAX: usize = 200_000;
/// By one child: their names are its arguments, and its answers fit into what is kept of its output.
const PICTURES_AT_ONCE: usize = 100;
/// Of all children together: far less than a pre-flight may take, which a slow device is not to fail for these pictures.
const TIME_MAX: Duration = Duration::from_secs(600);
/// What `revoada classify` reads.
const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];
const CLASSIFIER: &str = "classification";

#[derive(Debug, Error)]
pub(super) enum LabelledError {
    #[error("cannot read the labelled pictures in `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there is no picture in a folder of its label below `{}`", folder.display())]
    Empty { folder: PathBuf },
    #[error("the set of labelled pictures has more than {FILES_MAX} files")]
    TooMany,
    #[error("cannot read which labels the model knows")]
    Manifest(#[source] ManifestError),
    #[error("the labelled pictures are not answered: {reason}")]
    Unanswered { reason: String },
}

/// Who is asked.
pub(super) struct Candidate<'a> {
    pub(super) program: &'a Path,
    pub(super) bundle: &'a Path,
    /// The owners' public keys.
    pub(super) trust: &'a Path,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Marks {
    /// 0 to 1.
    pub(super) accuracy: f64,
    /// Of the set, and unknown to the model: its pictures count as wrong.
    pub(super) unknown: BTreeSet<String>,
}

/// A file below the set's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Picture {
    label: String,
    path: PathBuf,
}

/// One record of `revoada classify --json`; it says more.
#[derive(Debug, Deserialize)]
struct Answer {
    /// By falling score.
    classifications: Vec<Guess>,
}

#[derive(Debug, Deserialize)]
struct Guess {
    label: Option<String>,
}

/// Has the candidate answer the pictures of a folder. `None` where it names no classes, or nobody wants to know any more.
pub(super) fn mark(candidate: &Candidate<'_>, folder: &Path, cancel: &Cancel) -> Result<Option<Marks>, LabelledError> {
    let manifest = Manifest::load(&candidate.bundle.join(MANIFEST)).map_err(LabelledError::Manifest)?;
    let is_other = manifest.output.decoder.as_deref().is_some_and(|decoder| decoder != CLASSIFIER);
    if is_other || manifest.labels.is_empty() {
        return Ok(None);
    }
    let pictures = spread(pictures(folder)?, PICTURES_MAX);
    let deadline = Instant::now() + TIME_MAX;
    let mut answers = Vec::new();
    for some in pictures.chunks(PICTURES_AT_ONCE) {
        if cancel.is_cancelled() {
            return Ok(None);
        }
        answers.extend(answer(candidate, folder, some, cancel, deadline)?);
    }
    let known: BTreeSet<&str> = manifest.labels.iter().map(String::as_str).collect();
    let unknown = pictures.iter().map(|picture| &picture.label).filter(|label| !known.contains(label.as_str()));
    let unknown = unknown.cloned().collect();
    Ok(share(&pictures, &answers).map(|accuracy| Marks { accuracy, unknown }))
}

/// The pictures of a set, by label and name. Hidden folders are passed over, as is what has no picture's name.
fn pictures(folder: &Path) -> Result<Vec<Picture>, LabelledError> {
    let mut pictures = Vec::new();
    let mut files = 0;
    for label in names(folder, &mut files)? {
        let below = folder.join(&label);
        if label.as_encoded_bytes().starts_with(b".") || !below.is_dir() {
            continue;
        }
        for name in names(&below, &mut files)? {
            // From the set's folder on, so that no name is taken for an option.
            let path = Path::new(".").join(&label).join(&name);
            let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
            if extension.is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known)) {
                pictures.push(Picture { label: label.to_string_lossy().into_owned(), path });
            }
        }
    }
    if pictures.is_empty() { Err(LabelledError::Empty { folder: folder.to_owned() }) } else { Ok(pictures) }
}

/// What a folder holds, in order. `files` is how many the set was found to have so far.
fn names(folder: &Path, files: &mut usize) -> Result<Vec<OsString>, LabelledError> {
    let cannot_read = |source| LabelledError::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot_read)? {
        *files += 1;
        if *files > FILES_MAX {
            return Err(LabelledError::TooMany);
        }
        names.push(entry.map_err(cannot_read)?.file_name());
    }
    names.sort();
    Ok(names)
}

/// At most `count` of them, at even distances, so that each label keeps its part.
fn spread<T>(all: Vec<T>, count: usize) -> Vec<T> {
    let total = all.len();
    if total <= count {
        return all;
    }
    // The n-th of `count` is the first whose part of the whole has reached n.
    all.into_iter().enumerate().filter(|(index, _)| index * count % total < count).map(|(_, one)| one).collect()
}

fn answer(
    candidate: &Candidate<'_>,
    folder: &Path,
    pictures: &[Picture],
    cancel: &Cancel,
    deadline: Instant,
) -> Result<Vec<Answer>, LabelledError> {
    let unanswered = |reason: String| LabelledError::Unanswered { reason };
    let mut classify = Command::new(candidate.program);
    classify.arg("classify").arg("--model").arg(candidate.bundle).arg("--trust").arg(candidate.trust).arg("--json");
    classify.args(pictures.iter().map(|picture| &picture.path)).current_dir(folder);
    let ended = child::run(&mut classify, cancel, deadline.saturating_duration_since(Instant::now()))
        .map_err(|error| unanswered(error.to_string()))?;
    if !ended.status.success() {
        return Err(unanswered(ended.reason()));
    }
    let answers: Result<Vec<Answer>, _> = serde_json::Deserializer::from_slice(&ended.output).into_iter().collect();
    let answers = answers.map_err(|error| unanswered(sentence_of(causes(&error))))?;
    match answers.len() == pictures.len() {
        true => Ok(answers),
        false => Err(unanswered(format!("{} pictures have {} answers", pictures.len(), answers.len()))),
    }
}

/// The share of the pictures whose best class is their label; `None` where no picture has a class, as with a detector.
fn share(pictures: &[Picture], answers: &[Answer]) -> Option<f64> {
    let is_classifier = answers.iter().any(|answer| !answer.classifications.is_empty());
    let best = |answer: &Answer| answer.classifications.first().and_then(|guess| guess.label.clone());
    let right = pictures.iter().zip(answers).filter(|(picture, answer)| best(answer).as_ref() == Some(&picture.label));
    is_classifier.then(|| right.count() as f64 / pictures.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[&str]) -> Vec<Picture> {
        labels.iter().map(|label| Picture { label: (*label).to_owned(), path: PathBuf::new() }).collect()
    }

    fn said(lines: &str) -> Vec<Answer> {
        serde_json::Deserializer::from_str(lines).into_iter().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn the_best_class_alone_counts() {
        let red_then_green =
            r#"{"stream": "a", "classifications": [{"label": "red"}, {"label": "green", "score": 0.4}]}"#;
        let nothing = r#"{"classifications": []}"#;
        let unnamed = r#"{"classifications": [{"class": 1, "score": 1}]}"#;
        let answers = said(&[red_then_green, red_then_green, nothing, unnamed].join("\n"));
        assert_eq!(share(&of(&["red", "green", "red", "red"]), &answers), Some(0.25));
        assert_eq!(share(&of(&["blue"; 4]), &answers), Some(0.0));
        assert_eq!(share(&of(&["red"; 2]), &answers[..2]), Some(1.0));
        assert_eq!(share(&of(&["red"]), &said(nothing)), None, "what names no class anywhere is no classifier");
    }

    #[test]
    fn a_large_set_is_thinned_evenly() {
        for (total, count) in [(10, 10), (3, 10), (11, 10), (1001, 1000), (1999, 1000), (150_000, 1000)] {
            let chosen = spread((0..total).collect(), count);
            assert_eq!(chosen.len(), total.min(count), "{total}");
            let gaps: Vec<usize> = chosen.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
            assert!(most - least <= 1 && chosen[0] == 0, "{total}: from {least} to {most} apart");
        }
    }

    #[test]
    fn pictures_are_found_in_the_folders_of_their_labels() {
        let set = tempfile::tempdir().unwrap();
        let empty = pictures(set.path()).unwrap_err();
        assert!(matches!(empty, LabelledError::Empty { .. }), "{empty}");
        for path in ["b/2.PNG", "b/-1.jpg", "b/notes.txt", "a c/x.webp", ".hidden/y.png", "z.png", "b/deep/z.png"] {
            let path = set.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found: Vec<(String, String)> = pictures(set.path())
            .unwrap()
            .into_iter()
            .map(|picture| (picture.label, picture.path.display().to_string()))
            .collect();
        let expected = [("a c", "./a c/x.webp"), ("b", "./b/-1.jpg"), ("b", "./b/2.PNG")];
        assert_eq!(found, expected.map(|(label, path)| (label.to_owned(), path.to_owned())));
        let missing = pictures(&set.path().join("missing")).unwrap_err();
        assert!(matches!(missing, LabelledError::Read { .. }), "{missing}");
    }
}
