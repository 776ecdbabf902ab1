//! The service alone, for tests that kill it: `serve STORE` says where it listens and serves until it is told to stop.

use hone_server::{BackendConfig, Config, Server};

#[tokio::main]
async fn main() {
    let store = std::env::args().nth(1).expect("needed the address of a store");
    // Nothing is asked of it.
    let nobody = BackendConfig { url: Some("http://127.0.0.1:9/v1".into()), ..BackendConfig::default() };
    let config = Config { listen: "127.0.0.1:0".into(), store, backends: vec![nobody], ..Config::default() };
    let server = Server::start(config, Vec::new()).await.expect("the service");
    println!("{}", server.address());
    tokio::signal::ctrl_c().await.expect("signals");
    server.stop();
    server.ended().await;
}
