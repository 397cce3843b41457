//! Fuzz targets for weights that participants send; each has a short run in every `cargo test`, and
//! `cargo bolero test -p revoada-federated --test fuzz NAME` goes on from there.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;

use revoada_federated::npy::{self, Array, Element};
use revoada_federated::{Layout, Memory, Weights, from_safetensors, to_safetensors};

/// What is made of a sound file: bytes in their places, and a length to which it is cut where that is odd.
type Changes = (Vec<(u16, u8)>, u16);

/// A sound file with a few bytes changed; half of all cases are cut off.
fn changed(sound: &[u8], (changes, length): &Changes) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for (place, byte) in changes {
        let place = usize::from(*place) % bytes.len();
        bytes[place] = *byte;
    }
    if length % 2 == 1 {
        bytes.truncate(usize::from(*length) % (sound.len() + 1));
    }
    bytes
}

#[test]
fn any_array_of_numpy_has_the_numbers_of_its_shape_or_is_refused() {
    let sound = npy::write(Element::F32, &[2, 3], &[0.5; 6]);
    bolero::check!().with_type::<Changes>().with_iterations(20_000).with_max_len(64).for_each(|changes| {
        let bytes = changed(&sound, changes);
        if let Ok(array) = Array::parse(&bytes) {
            let count: usize = array.shape.iter().product();
            assert_eq!(array.data.len(), count * array.element.size());
            let mut values = Vec::new();
            array.extend(&mut values);
            assert_eq!(values.len(), count);
        }
    });
}

fn weights() -> Weights {
    let layout = Layout::new([("head.weight".to_owned(), vec![2, 3]), ("head.bias".to_owned(), vec![2])]).unwrap();
    Weights::new(Arc::new(layout), vec![0.25; 8]).unwrap()
}

#[test]
fn any_file_of_weights_has_the_numbers_of_its_shapes_or_is_refused() {
    let weights = weights();
    let (layout, sound) = (weights.layout(), to_safetensors(&weights, &[("note", "sound")]));
    bolero::check!().with_type::<Changes>().with_iterations(20_000).with_max_len(64).for_each(|changes| {
        let bytes = changed(&sound, changes);
        // Whether they are of the layout that is wanted is asked by who wants it: it only gives their order.
        for wanted in [Some(layout), None] {
            if let Ok(read) = from_safetensors(&bytes, wanted) {
                assert_eq!(read.values().len(), read.layout().count());
            }
        }
    });
}

/// What the service has kept of a strategy, where its disk has changed it.
#[test]
fn any_memory_is_read_as_it_was_kept_or_refused() {
    let sound = to_safetensors(&weights(), &[]);
    bolero::check!().with_type::<Changes>().with_iterations(20_000).with_max_len(64).for_each(|changes| {
        assert!(Memory::from_bytes(&changed(&sound, changes)).is_err());
    });
}
