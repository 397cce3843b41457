//! Classes that a configuration names.

/// All classes, or some by their index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Classes {
    All,
    Some(Vec<bool>),
}

/// A name that no class has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnknownLabel {
    pub(crate) class: String,
    /// The label that is most like it; `None` where there are no labels.
    pub(crate) nearest: Option<String>,
}

impl Classes {
    /// Those of these names; all where there are none. Several classes may have one name.
    pub(crate) fn named(names: &[String], labels: &[String]) -> Result<Self, UnknownLabel> {
        if names.is_empty() {
            return Ok(Self::All);
        }
        if let Some(class) = names.iter().find(|name| !labels.contains(name)) {
            let likeness = |label: &String| strsim::jaro_winkler(label, class);
            let nearest = labels.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).cloned();
            return Err(UnknownLabel { class: class.clone(), nearest });
        }
        Ok(Self::Some(labels.iter().map(|label| names.contains(label)).collect()))
    }

    pub(crate) fn has(&self, class: u32) -> bool {
        match self {
            Self::All => true,
            Self::Some(classes) => classes.get(class as usize).copied().unwrap_or(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn classes_are_found_by_name_or_refused_with_the_nearest() {
        let labels = words(&["car", "person", "car"]);
        let cars = Classes::named(&words(&["car"]), &labels).unwrap();
        assert_eq!([0, 1, 2, 3].map(|class| cars.has(class)), [true, false, true, false]);
        assert!(Classes::named(&[], &[]).unwrap().has(7));
        let unknown =
            |nearest: Option<&str>| UnknownLabel { class: "persn".into(), nearest: nearest.map(str::to_owned) };
        assert_eq!(Classes::named(&words(&["car", "persn"]), &labels), Err(unknown(Some("person"))));
        assert_eq!(Classes::named(&words(&["persn"]), &[]), Err(unknown(None)));
    }
}
