//! Which of the decoded results stay, class by class.

use revoada_bundle::strict::nearest;
use revoada_core::Prediction;
use thiserror::Error;

use crate::config::{ClassName, ClassRule};

/// Rules by index of the class. Without rules everything stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Filter {
    rules: Vec<(u32, ClassRule)>,
    /// Of classes without a rule of their own.
    others: ClassRule,
}

/// A rule for a class that the model does not have.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("there is no class `{class}` among its {labels} labels{hint}")]
pub struct UnknownClass {
    class: String,
    labels: usize,
    hint: String,
}

impl Filter {
    pub(super) fn new(rules: &[ClassRule], labels: &[String]) -> Result<Self, UnknownClass> {
        let mut filter = Self::default();
        for rule in rules {
            match &rule.class {
                None => filter.others = rule.clone(),
                Some(class) => filter.rules.push((index(class, labels)?, rule.clone())),
            }
        }
        Ok(filter)
    }

    /// Drops what the rules refuse. Results come and stay sorted by falling score, so that the first ones of a class are
    /// its best.
    pub(super) fn apply(&self, prediction: &mut Prediction) {
        if self.rules.is_empty() && self.others == ClassRule::default() {
            return;
        }
        let mut kept = Counts::default();
        prediction.detections.retain(|found| {
            let rule = self.rule(found.class);
            let (width, height) = (found.bbox.width, found.bbox.height);
            let fits = |side: f32, least: Option<u32>, most: Option<u32>| {
                least.is_none_or(|least| side >= least as f32) && most.is_none_or(|most| side <= most as f32)
            };
            rule.takes(found.score)
                && fits(width, rule.width_min, rule.width_max)
                && fits(height, rule.height_min, rule.height_max)
                && kept.one_more(found.class, rule.results_max)
        });
        let mut kept = Counts::default();
        prediction.classifications.retain(|guess| {
            let rule = self.rule(guess.class);
            rule.takes(guess.score) && kept.one_more(guess.class, rule.results_max)
        });
    }

    fn rule(&self, class: u32) -> &ClassRule {
        let own = self.rules.iter().find(|(index, _)| *index == class);
        own.map_or(&self.others, |(_, rule)| rule)
    }
}

impl ClassRule {
    fn takes(&self, score: f32) -> bool {
        !self.drop && self.score_min.is_none_or(|least| score >= least)
    }
}

fn index(class: &ClassName, labels: &[String]) -> Result<u32, UnknownClass> {
    let found = match class {
        // A model without labels has classes that nobody has counted.
        ClassName::Index(index) if labels.is_empty() || (*index as usize) < labels.len() => Some(*index),
        ClassName::Index(_) => None,
        ClassName::Label(label) => labels.iter().position(|known| known == label).map(|index| index as u32),
    };
    let unknown = || {
        let class = class.to_string();
        let near = nearest(&class, labels.iter().map(String::as_str));
        let hint = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
        UnknownClass { class, labels: labels.len(), hint }
    };
    found.ok_or_else(unknown)
}

/// How many of each class stay.
#[derive(Default)]
struct Counts(Vec<(u32, usize)>);

impl Counts {
    /// Whether one more may stay, which is then counted.
    fn one_more(&mut self, class: u32, most: Option<usize>) -> bool {
        let Some(most) = most else { return true };
        let place = self.0.iter().position(|(counted, _)| *counted == class).unwrap_or_else(|| {
            self.0.push((class, 0));
            self.0.len() - 1
        });
        let count = &mut self.0[place].1;
        *count += 1;
        *count <= most
    }
}

#[cfg(test)]
mod tests {
    use revoada_core::{Detection, Rect};

    use super::*;

    fn detections(filter: &Filter, of: &[(u32, f32, f32)]) -> Vec<(u32, f32, f32)> {
        let detection = |(class, score, width): &(u32, f32, f32)| Detection {
            class: *class,
            score: *score,
            bbox: Rect::new(0.0, 0.0, *width, 10.0),
            ..Detection::default()
        };
        let mut prediction = Prediction { detections: of.iter().map(detection).collect(), ..Prediction::default() };
        filter.apply(&mut prediction);
        prediction.detections.iter().map(|found| (found.class, found.score, found.bbox.width)).collect()
    }

    #[test]
    fn a_class_follows_its_own_rule_and_the_others_the_common_one() {
        let labels = ["car", "person", "bike"].map(str::to_owned);
        let rule = |class: &str| ClassRule { class: Some(ClassName::Label(class.to_owned())), ..ClassRule::default() };
        let rules = [
            ClassRule { score_min: Some(0.5), results_max: Some(1), ..rule("car") },
            ClassRule { drop: true, ..rule("bike") },
            ClassRule { width_min: Some(8), width_max: Some(20), ..ClassRule::default() },
        ];
        let filter = Filter::new(&rules, &labels).expect("these are classes of the model");
        let all =
            [(0, 0.9, 4.0), (1, 0.8, 9.0), (2, 0.7, 9.0), (0, 0.6, 9.0), (1, 0.3, 7.0), (1, 0.2, 21.0), (0, 0.1, 1.0)];
        assert_eq!(detections(&filter, &all), [(0, 0.9, 4.0), (1, 0.8, 9.0)]);
        assert_eq!(detections(&Filter::default(), &all), all);
    }

    #[test]
    fn a_class_that_the_model_has_not_is_named_with_the_nearest_one() {
        let labels = ["car", "person"].map(str::to_owned);
        let of = |class| [ClassRule { class: Some(class), ..ClassRule::default() }];
        let error = Filter::new(&of(ClassName::Label("persno".into())), &labels).unwrap_err();
        assert_eq!(error.to_string(), "there is no class `persno` among its 2 labels, did you mean `person`?");
        assert!(Filter::new(&of(ClassName::Index(2)), &labels).is_err());
        assert!(Filter::new(&of(ClassName::Index(2)), &[]).is_ok());
    }
}
