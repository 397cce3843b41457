//! A node with what is known of its inputs.

use std::collections::HashMap;

use crate::onnx::proto::{AttributeProto, NodeProto};

use super::{Unknown, Value};

pub(super) struct Node<'a> {
    proto: &'a NodeProto,
    values: &'a HashMap<&'a str, Value>,
}

impl<'a> Node<'a> {
    pub(super) fn new(proto: &'a NodeProto, values: &'a HashMap<&str, Value>) -> Self {
        Self { proto, values }
    }

    pub(super) fn proto(&self) -> &'a NodeProto {
        self.proto
    }

    pub(super) fn op(&self) -> &'a str {
        self.proto.op_type()
    }

    pub(super) fn input(&self, index: usize) -> Result<&'a Value, Unknown> {
        self.optional(index)?.ok_or(Unknown::Mismatch)
    }

    /// `None` where the node leaves the input out; an error where it has one that nothing is known of.
    pub(super) fn optional(&self, index: usize) -> Result<Option<&'a Value>, Unknown> {
        match self.proto.input.get(index).filter(|name| !name.is_empty()) {
            None => Ok(None),
            Some(name) => self.values.get(name.as_str()).map(Some).ok_or(Unknown::Input),
        }
    }

    pub(super) fn inputs(&self) -> Result<Vec<&'a Value>, Unknown> {
        (0..self.proto.input.len()).map(|index| self.input(index)).collect()
    }

    /// The constants of an input.
    pub(super) fn numbers(&self, index: usize) -> Result<&'a [f64], Unknown> {
        self.input(index)?.numbers.as_deref().ok_or(Unknown::Input)
    }

    /// The integer list that early versions of an operator keep in an attribute, and later ones in an
    /// input; `None` where it is in neither.
    pub(super) fn list(&self, attribute: &str, input: usize) -> Result<Option<Vec<i64>>, Unknown> {
        if let Some(list) = self.ints(attribute) {
            return Ok(Some(list.to_vec()));
        }
        match self.optional(input)? {
            None => Ok(None),
            Some(value) => {
                let numbers = value.numbers.as_ref().ok_or(Unknown::Input)?;
                Ok(Some(numbers.iter().map(|number| *number as i64).collect()))
            }
        }
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.proto.attribute.iter().find(|attribute| attribute.name() == name)
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    /// `None` where the attribute is absent; an empty list is one.
    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    pub(super) fn string(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.attribute(name)?.s.as_ref()?).ok()
    }

    /// An axis counted from the front; `axis` may count from the back.
    pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, Unknown> {
        let rank = i64::try_from(rank).map_err(|_| Unknown::Mismatch)?;
        let axis = if axis < 0 { axis.checked_add(rank).ok_or(Unknown::Mismatch)? } else { axis };
        if axis >= rank {
            return Err(Unknown::Mismatch);
        }
        usize::try_from(axis).map_err(|_| Unknown::Mismatch)
    }
}
