//! What somebody meant who mistyped a word.

/// The known word that a mistyped one most likely stands for.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this likeness a suggestion is a guess that misleads; `url` and `uri` have 0.67.
    const LIKENESS_MIN: f64 = 0.6;
    /// Nobody mistypes a word into one as long as this, and comparing takes quadratic time.
    const WORD_BYTES_MAX: usize = 100;
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let word = word.to_lowercase();
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(&word, known);
    let scored = known.into_iter().map(|known| (likeness(known), known));
    let (best, near) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best >= LIKENESS_MIN).then_some(near)
}
