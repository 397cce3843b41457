//! Order, time and graphs.

use revoada_engine::cuda::{DeviceBuffer, Event, SharedBuffer, Stream};

use crate::machine::Machine;

pub(crate) fn a_stream_waits_for_an_event_of_another(machine: &Machine) {
    let context = machine.context();
    let (first, second) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
    let event = Event::new(&context).unwrap();
    // Nothing to wait for yet.
    assert!(event.is_reached().unwrap());
    second.wait(&event).unwrap();

    let mut buffer = SharedBuffer::new(&context, 1 << 20).unwrap();
    buffer.host_mut().unwrap().fill(3);
    buffer.upload(&first, 0..1 << 20).unwrap();
    event.record(&first).unwrap();
    second.wait(&event).unwrap();
    buffer.download(&second, 0..1 << 20).unwrap();
    assert!(buffer.host().unwrap().iter().all(|byte| *byte == 3));
    event.synchronize().unwrap();
    assert!(event.is_reached().unwrap());
}

pub(crate) fn time_between_events_is_measured(machine: &Machine) {
    let context = machine.context();
    let stream = Stream::new(&context).unwrap();
    let (start, end) = (Event::timed(&context).unwrap(), Event::timed(&context).unwrap());
    let buffer = DeviceBuffer::new(&context, 1 << 20).unwrap();
    start.record(&stream).unwrap();
    buffer.fill(&stream, 1).unwrap();
    end.record(&stream).unwrap();
    stream.synchronize().unwrap();
    let elapsed = end.elapsed_since(&start).unwrap();
    assert!(!elapsed.is_zero() && elapsed.as_secs() < 10, "{elapsed:?}");
    // An event that keeps no time cannot be measured with.
    let untimed = Event::new(&context).unwrap();
    untimed.record(&stream).unwrap();
    untimed.synchronize().unwrap();
    assert!(untimed.elapsed_since(&start).is_err());
}

pub(crate) fn a_graph_repeats_what_was_captured(machine: &Machine) {
    let context = machine.context();
    let stream = Stream::new(&context).unwrap();
    let (first, second) = (DeviceBuffer::new(&context, 16).unwrap(), DeviceBuffer::new(&context, 16).unwrap());
    let before = machine.log().map(|log| log.calls("cuMemsetD8Async"));
    let mut graph = stream
        .capture(|stream| {
            first.fill(stream, 1)?;
            second.fill(stream, 2)
        })
        .unwrap();
    for _ in 0..3 {
        graph.launch(&stream).unwrap();
    }
    stream.synchronize().unwrap();
    if let Some(log) = machine.log() {
        assert_eq!(log.calls("cuMemsetD8Async"), before.unwrap() + 2);
        assert_eq!(log.calls("cuGraphLaunch"), 3);
    }
}

pub(crate) fn a_failed_capture_leaves_the_stream_usable(machine: &Machine) {
    let context = machine.context();
    let stream = Stream::new(&context).unwrap();
    let buffer = DeviceBuffer::new(&context, 16).unwrap();
    // Waiting is no part of a graph.
    let error = stream.capture(|stream| stream.synchronize()).unwrap_err();
    assert!(error.to_string().contains("CAPTURE"), "{error}");
    buffer.fill(&stream, 1).unwrap();
    stream.synchronize().unwrap();
    stream.capture(|stream| buffer.fill(stream, 2)).unwrap().launch(&stream).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(context.lost(), None);
}
