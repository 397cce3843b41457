//! Serves an H.264 file as many cameras over RTSP, without encoding anything, until it is killed.
//!
//!     serve_clip CLIP.mp4 CAMERAS
//!
//! Its one line on standard output is where they are: `rtsp://ADDRESS/cam0` to `rtsp://ADDRESS/cam{CAMERAS - 1}` begin with
//! that. Each viewer is shown the clip from its beginning.

use std::error::Error;

use gstreamer as gst;
use gstreamer_rtsp_server as gst_rtsp_server;

use gst_rtsp_server::prelude::*;
use revoada_pipeline::media;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(clip), Some(cameras)) = (arguments.next(), arguments.next()) else {
        return Err("usage: serve_clip CLIP.mp4 CAMERAS".into());
    };
    media::init()?;
    let server = gst_rtsp_server::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service("0");
    let mounts = server.mount_points().ok_or("a server has mount points")?;
    for camera in 0..cameras.parse::<u32>()? {
        let factory = gst_rtsp_server::RTSPMediaFactory::new();
        let clip = clip.replace('\\', "\\\\").replace('"', "\\\"");
        factory.set_launch(&format!(
            "( filesrc location=\"{clip}\" ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
        ));
        mounts.add_factory(&format!("/cam{camera}"), factory);
    }
    server.attach(None)?;
    println!("rtsp://127.0.0.1:{}/cam", server.bound_port());
    gst::glib::MainLoop::new(None, false).run();
    Ok(())
}
