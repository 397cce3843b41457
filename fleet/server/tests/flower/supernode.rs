//! Unmodified SuperNodes of Flower at our door.
