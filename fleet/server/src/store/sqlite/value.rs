//! The service's types as values of columns.

use std::fmt;
use std::str::FromStr;

use revoada_core::{Digest, Timestamp};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};

/// Of stored JSON.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Versioned<T> {
    #[serde(deserialize_with = "known_version")]
    version: u32,
    content: T,
}

fn known_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        VERSION => Ok(VERSION),
        other => Err(D::Error::custom(format!("it is of version {other}"))),
    }
}

/// Nanoseconds of a time; none after the year 2262 is told from the last.
pub(super) fn time(at: Timestamp) -> i64 {
    number(at.as_nanos())
}

/// A number of which none above 9 · 10¹⁸ is told from the last.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// How many of a page are given.
pub(super) fn limit(limit: usize) -> i64 {
    count(limit.min(crate::store::PAGE_MAX))
}

/// JSON that [`Json`] reads.
pub(super) fn json<T: Serialize>(content: &T) -> String {
    serde_json::to_string(&Versioned { version: VERSION, content }).expect("stored types are plain data")
}

pub(super) struct Time(pub(super) Timestamp);
pub(super) struct Hash(pub(super) Digest);
pub(super) struct Number(pub(super) u64);
/// What [`json`] wrote.
pub(super) struct Json<T>(pub(super) T);
/// What was written as it is printed.
pub(super) struct Text<T>(pub(super) T);

impl FromSql for Number {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        u64::try_from(number).map(Self).map_err(|_| FromSqlError::OutOfRange(number))
    }
}

impl FromSql for Time {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Number::column_result(value).map(|nanos| Self(Timestamp::from_nanos(nanos.0)))
    }
}

impl FromSql for Hash {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 32]>::column_result(value).map(|bytes| Self(Digest::new(bytes)))
    }
}

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let read = serde_json::from_str(value.as_str()?);
        read.map(|versioned: Versioned<T>| Self(versioned.content)).map_err(FromSqlError::other)
    }
}

impl<T: FromStr<Err: fmt::Display>> FromSql for Text<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map(Self).map_err(|error: T::Err| FromSqlError::other(Refused(error.to_string())))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);
