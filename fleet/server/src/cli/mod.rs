//! The verbs.

pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod client;
pub(crate) mod commands;
pub(crate) mod devices;
pub(crate) mod enrolment;
pub(crate) mod failure;
pub(crate) mod models;
pub(crate) mod rollouts;
pub(crate) mod runs;
pub(crate) mod serve;
pub(crate) mod simulate;
pub(crate) mod terminal;
pub(crate) mod tokens;
pub(crate) mod users;

pub(crate) use client::Access;
