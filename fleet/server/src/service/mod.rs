//! What operators can ask of the fleet service, whatever they ask it through.

mod rollout_form;

pub use rollout_form::{
    DurationText, GateForm, MeasureName, RetryForm, RolloutForm, RolloutFormError, SizeText, WaveForm,
};
