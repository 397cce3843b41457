//! Memory of each kind, and who has it when.

use std::panic::{AssertUnwindSafe, catch_unwind};

use revoada_core::{ColorSpec, Frame, MemoryKind, PixelFormat, Size, StreamId, Timestamp};
use revoada_engine::cuda::{CudaError, DeviceBuffer, MemoryPolicy, SharedBuffer, Stream, SurfacePool};

use crate::machine::Machine;
use crate::stage_cases::noise;

pub(crate) fn bytes_come_back_as_they_went(machine: &Machine) {
    let context = machine.context();
    let stream = Stream::new(&context).unwrap();
    let mut buffer = SharedBuffer::new(&context, 1000).unwrap();
    assert_eq!(buffer.host().unwrap(), [0; 1000]);
    for round in 1..4u8 {
        buffer.host_mut().unwrap().fill(round);
        buffer.upload(&stream, 0..1000).unwrap();
        buffer.download(&stream, 0..1000).unwrap();
        assert_eq!(buffer.host().unwrap(), [round; 1000]);
    }
    if let Some(log) = machine.log() {
        // Where the sides may not touch managed memory at the same time, it is handed over each time.
        let handed_over = if context.policy() == MemoryPolicy::Managed { 2 * 3 } else { 0 };
        assert_eq!(log.calls("cuStreamAttachMemAsync"), handed_over);
    }
    // An empty one is allowed: a network may have an input without elements.
    let mut empty = SharedBuffer::new(&context, 0).unwrap();
    empty.upload(&stream, 0..0).unwrap();
    empty.download(&stream, 0..0).unwrap();
    assert_eq!(empty.host().unwrap(), [0u8; 0]);
    assert_eq!(buffer.copies(), usize::from(context.policy() == MemoryPolicy::Copied));
}

pub(crate) fn a_buffer_is_used_by_one_side_at_a_time(machine: &Machine) {
    let context = machine.context();
    let stream = Stream::new(&context).unwrap();
    let mut buffer = SharedBuffer::new(&context, 8).unwrap();
    let panics = |what: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(what)).is_err();
    assert!(panics(&mut || buffer.download(&stream, 0..8).unwrap()), "the CPU has it");
    assert!(panics(&mut || assert_ne!(buffer.device().pointer(), 0)), "the CPU has it");
    buffer.upload(&stream, 0..8).unwrap();
    assert_eq!(buffer.device().pointer(), buffer.address());
    assert!(panics(&mut || drop(buffer.host_mut())), "the device has it");
    assert!(panics(&mut || buffer.upload(&stream, 0..8).unwrap()), "the device has it");
    buffer.download(&stream, 0..8).unwrap();
    assert_eq!(buffer.host().unwrap(), [0; 8]);
}

pub(crate) fn ranges_outside_a_buffer_are_refused(machine: &Machine) {
    let context = machine.context();
    let stream = Stream::new(&context).unwrap();
    let buffer = DeviceBuffer::new(&context, 10).unwrap();
    buffer.fill(&stream, 7).unwrap();
    let slice = buffer.device();
    assert_eq!(slice.slice(3..10).unwrap().slice(0..7).unwrap().pointer(), slice.pointer() + 3);
    #[allow(clippy::reversed_empty_ranges, reason = "what is refused")]
    for range in [0..11, 11..12, 5..4] {
        let error = slice.slice(range.clone()).unwrap_err();
        assert!(matches!(error, CudaError::Range { bytes: 10, .. }), "{error}");
    }
    let mut shared = SharedBuffer::new(&context, 10).unwrap();
    assert_eq!(shared.upload(&stream, 4..11).unwrap_err().to_string(), "4..11 lies outside a buffer of 10 bytes");
    shared.upload(&stream, 4..10).unwrap();
    assert!(shared.download(&stream, 0..11).is_err());
}

/// Frames come and go without the driver hearing of it.
pub(crate) fn the_memory_of_surfaces_is_used_again(machine: &Machine) {
    let context = machine.context();
    let pool = SurfacePool::new(&context, 2).unwrap();
    let frame = |width| {
        let picture = noise(PixelFormat::I420, ColorSpec::default(), Size::new(width, 32), 0, 1);
        Frame::still(picture.layout, picture.bytes).unwrap()
    };
    let import = |width| pool.import(&frame(width)).unwrap();
    let first = import(64);
    assert_eq!(first.copies(), if context.policy() == MemoryPolicy::Copied { 2 } else { 1 });
    drop(first);
    let allocated = || {
        machine.log().map(|log| ["cuMemAlloc_v2", "cuMemHostAlloc", "cuMemAllocManaged"].map(|call| log.calls(call)))
    };
    let before = allocated();
    for _ in 0..10 {
        drop(import(64));
        // A little smaller is good enough.
        drop(import(60));
    }
    assert_eq!(allocated(), before);
    assert_eq!(pool.idle(), 1);
    // Of five that were there at once, two are kept.
    let many: Vec<_> = (0..5).map(|_| import(64)).collect();
    assert_eq!(pool.idle(), 0);
    drop(many);
    assert_eq!(pool.idle(), 2);
    // What is larger, or less than half as large, gets memory of its own.
    drop([import(128), import(16)]);
    assert_eq!(pool.idle(), 2);

    let (layout, bytes) = (*frame(64).layout(), vec![0u8; 64 * 32 * 2]);
    let stream = StreamId::new("reserved");
    let (zero, kind) = (Timestamp::ZERO, MemoryKind::NvBufSurface);
    let reserved = Frame::new(stream, 0, zero, zero, layout, kind, Box::new(bytes)).unwrap();
    assert!(matches!(pool.import(&reserved).unwrap_err(), CudaError::Memory { kind: MemoryKind::NvBufSurface }));
}
