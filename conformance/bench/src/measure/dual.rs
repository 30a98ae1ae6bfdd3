//! IPv4 and IPv6 together against IPv4 alone; and whether the addresses can be used the moment ADD returns, which is
//! what duplicate address detection would spoil for a second or more.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Add;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::args::Options;
use crate::ground::{Attachment, Features, Ground, Network, Who};
use crate::measure::{Turns, WARM_UP};
use crate::pods::{Pods, within};
use crate::report::Report;

pub const ADD_V4: &str = "ADD, IPv4 beside dual-stack";
pub const ADD_DUAL: &str = "ADD, dual-stack";
pub const UNUSABLE: &str = "ADDs whose addresses were not usable at return";

/// For a datagram between pod and gateway. Resolving the neighbour takes well under 1 ms; when the first request is
/// lost the kernel asks again after 1 s, which is too late here.
const PATIENCE: Duration = Duration::from_millis(500);

pub fn measure(ground: &Ground, options: &Options, report: &mut Report) -> Result<()> {
    report.expect_rows(&[ADD_V4, ADD_DUAL]);
    let mut lanes = Vec::new();
    for who in ground.present(&[Who::Ours, Who::Reference]) {
        for (dual_stack, row) in [(false, ADD_V4), (true, ADD_DUAL)] {
            let network = ground.network(
                who,
                Features {
                    dual_stack,
                    ..Features::default()
                },
            )?;
            let pod = Pods::create(&format!("{}-", network.bridge), 1)?;
            lanes.push((network, pod, row, 0_u32));
        }
    }
    let mut turns = Turns::new();
    for round in 0..WARM_UP + options.rounds(120, 25) {
        turns.shuffle(&mut lanes);
        for (network, pod, row, unusable) in &mut lanes {
            if network.who == Who::Reference && round % 4 != 0 {
                continue;
            }
            let attachment = Attachment {
                slot: 1,
                netns: pod.path(0)?,
            };
            let time_ms = network.add(attachment).time()?;
            if let Err(error) = exchange_with_gateways(network, attachment) {
                // The others would say the same.
                if network.who == Who::Ours && *unusable == 0 {
                    eprintln!("bench: {}: {error:#}", network.bridge);
                }
                *unusable += 1;
            }
            if round >= WARM_UP {
                report.push(row, network.who, time_ms);
            }
            network.del(attachment)?.time()?;
        }
    }
    for who in Who::ALL {
        let of_who = lanes.iter().filter(|(network, ..)| network.who == who);
        if let Some(unusable) = of_who.map(|(.., unusable)| *unusable).reduce(u32::add) {
            report.at_most(UNUSABLE, who, f64::from(unusable));
        }
    }
    Ok(())
}

/// Sends a datagram each way between every address of the Result and its gateway.
fn exchange_with_gateways(network: &Network, attachment: Attachment<'_>) -> Result<()> {
    let result = network.result(attachment.slot)?;
    let ips = result
        .get("ips")
        .and_then(Value::as_array)
        .context("the Result has no ips")?;
    for ip in ips {
        let text = |key| {
            ip.get(key)
                .and_then(Value::as_str)
                .context("the Result's ips lack a key")
        };
        let address: IpAddr = text("address")?.split('/').next().unwrap_or("").parse()?;
        let gateway: IpAddr = text("gateway")?.parse()?;
        // Binding to a tentative address fails at once.
        let pod = within(attachment.netns, || Ok(socket_on(address)?))
            .with_context(|| format!("bind to {address} in the pod"))?;
        exchange(&socket_on(gateway)?, &pod).with_context(|| address.to_string())?;
    }
    Ok(())
}

fn socket_on(address: IpAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(address, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn exchange(host: &UdpSocket, pod: &UdpSocket) -> Result<()> {
    let mut buffer = [0; 16];
    host.send_to(b"ping", pod.local_addr()?)?;
    let (_, from) = pod
        .recv_from(&mut buffer)
        .context("a datagram from the gateway to the pod")?;
    pod.send_to(b"pong", from)?;
    host.recv_from(&mut buffer)
        .context("the pod's answer to the gateway")?;
    Ok(())
}
