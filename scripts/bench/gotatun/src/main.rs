//! `gotatun-device INTERFACE`: makes a WireGuard interface that `wg set` configures, and stays until SIGTERM.

use gotatun::device::{DeviceBuilder, uapi::UapiServer};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() {
    let name = std::env::args().nth(1).expect("usage: gotatun-device INTERFACE");
    let uapi = UapiServer::default_unix_socket(&name, None, None).expect("the configuration socket");
    let mut device = DeviceBuilder::new()
        .with_default_udp()
        .with_uapi(uapi)
        .create_tun(&name)
        .expect("the interface")
        .build()
        .await
        .expect("the device");
    let mut terminated = signal(SignalKind::terminate()).expect("a signal handler");
    tokio::select! {
        _ = terminated.recv() => (),
        () = device.wait() => (),
    }
}
